"""Training the GPT: next-token prediction on random windows, the best validated weights kept."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from models.gpt.model import Gpt, GptConfig, make_optimizer
from models.training.batches import INITIAL_STREAM, TokenBatches, seed_at
from models.training.checkpoint import BestWeights, TrainingState, num_parameters
from models.training.loops import FitConfig, Step, likelihood_steps
from models.training.protocol import TextData, Trained

NUM_VALIDATIONS = 10
VALIDATION_TOKENS = 16_384


class GptTraining:
    """One training of a GPT; see `models.training.protocol.Training`."""

    shown: ClassVar = ("loss",)
    grid_title: ClassVar = ""

    def __init__(
        self, data: TextData, device: torch.device, config: GptConfig, fit: FitConfig
    ) -> None:
        torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
        self.num_steps = fit.steps
        self._fit = fit
        self._model = Gpt(config).to(device)
        self._optimizer = make_optimizer(self._model, fit)
        self._best = BestWeights(self._model)
        self.state = TrainingState(
            {"model": self._model, "best": self._best.model},
            {"all": self._optimizer},
            {"best": self._best},
        )
        train = torch.from_numpy(data.train.astype("int64")).to(device)
        held_out = data.validation[:VALIDATION_TOKENS].astype("int64")
        self._validation = torch.from_numpy(held_out).to(device)
        self._batches = TokenBatches(train, config.context_length, fit.batch_size, fit.seed)

    def steps(self) -> Iterator[Step]:
        """Updates, with the loss on held-out tokens now and then."""
        fit = self._fit
        validate_every = max(1, fit.steps // NUM_VALIDATIONS)
        for step in likelihood_steps(
            self._model, self._optimizer, self._batches.at, fit, self.state.step
        ):
            if step.step % validate_every and step.step != fit.steps:
                yield step
                continue
            loss = -float(self._model.score(self._validation, start=1).mean())
            self._best.offer(step.step, loss, self._model)
            yield replace(step, measured={"validation_nats_per_token": loss})

    def drawn(self) -> Tensor:
        """It draws no pictures."""
        raise NotImplementedError("a token model draws no pictures")

    def finish(self, scratch: str) -> Trained:
        """The weights that validated best."""
        del scratch
        return Trained(
            tensors=self._best.model.state_dict(),
            config=self._model.config,
            num_parameters=num_parameters(self._model),
            remarks=(f"the weights of step {self._best.step} did best on the validation split",),
        )
