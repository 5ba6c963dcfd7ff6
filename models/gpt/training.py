"""Training the GPT: next-token prediction on random windows, the best validated weights kept."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch

from models.gpt.config import GptConfig
from models.gpt.model import Gpt, make_optimizer
from models.training.batches import INITIAL_STREAM, TokenBatches, seed_at
from models.training.config import FitConfig
from models.training.loops import Step
from models.training.protocol import TextData, Trained
from models.training.stored_data import rows_of
from models.training.validated import ValidatedFit

NUM_VALIDATIONS = 10
VALIDATION_TOKENS = 16_384


class GptTraining:
    """One training of a GPT; see `models.training.protocol.Training`."""

    shown: ClassVar = ("loss",)

    def __init__(
        self, data: TextData, device: torch.device, model: GptConfig, training: FitConfig
    ) -> None:
        torch.manual_seed(seed_at(training.seed, 0, INITIAL_STREAM))
        gpt = Gpt(model).to(device)
        self._fit = ValidatedFit(gpt, make_optimizer(gpt, training), training)
        self.num_steps, self.state = training.steps, self._fit.state
        train = rows_of(data.train, device, on_a_gpu_as="int64")
        held_out = data.validation[:VALIDATION_TOKENS].astype("int64")
        self._validation = torch.from_numpy(held_out).to(device)
        self._batches = TokenBatches(
            train, model.context_length, training.batch_size, training.seed
        )

    def steps(self) -> Iterator[Step]:
        """Updates, with the loss on held-out tokens now and then."""
        return self._fit.steps(self._batches.at, self._validated, NUM_VALIDATIONS)

    def _validated(self, step: Step) -> Step:
        model = self._fit.model
        loss = -float(model.score(self._validation, start=1).mean())
        self._fit.best.offer(step.step, loss, model)
        return replace(step, measured={"validation_nats_per_token": loss})

    def finish(self, scratch: str) -> Trained:
        """The weights that validated best."""
        del scratch
        return self._fit.kept()
