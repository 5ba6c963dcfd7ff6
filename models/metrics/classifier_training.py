"""Training the classifier whose features image samples are compared in; the best one stays."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from models.metrics.classifier import Classifier, ClassifierConfig, make_optimizer
from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.checkpoint import BestWeights, TrainingState, num_parameters
from models.training.loops import FitConfig, Step, likelihood_steps
from models.training.protocol import ImageData, Trained

NUM_VALIDATIONS = 10
VALIDATION_IMAGES = 1000


class ClassifierTraining:
    """One training of a classifier; see `models.training.protocol.Training`.

    A set without classes has labels that are not looked at; see `models.metrics.classifier`.
    """

    shown: ClassVar = ("loss", "accuracy")
    grid_title: ClassVar = ""

    def __init__(
        self,
        data: ImageData,
        device: torch.device,
        config: ClassifierConfig,
        fit: FitConfig,
    ) -> None:
        torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
        self.num_steps = fit.steps
        self._fit = fit
        self._model = Classifier(config).to(device)
        self._optimizer = make_optimizer(self._model, fit)
        self._best = BestWeights(self._model)
        self.state = TrainingState(
            {"model": self._model, "best": self._best.model},
            {"all": self._optimizer},
            {"best": self._best},
        )
        pixels = torch.from_numpy(data.train.copy()).to(device)
        self._batches = ImageBatches(pixels, fit.batch_size, fit.seed)
        self._labels = torch.from_numpy(data.train_labels).to(device)
        self._validation = tuple(
            torch.from_numpy(part[:: max(1, len(part) // VALIDATION_IMAGES)].copy()).to(device)
            for part in (data.validation, data.validation_labels)
        )

    def _batch_at(self, step: int) -> tuple[Tensor, Tensor]:
        return self._batches.at(step), self._labels[self._batches.indices_at(step)]

    def steps(self) -> Iterator[Step]:
        """Updates, with loss and accuracy on the validation images now and then."""
        fit = self._fit
        validate_every = max(1, fit.steps // NUM_VALIDATIONS)
        for step in likelihood_steps(
            self._model, self._optimizer, self._batch_at, fit, self.state.step
        ):
            if step.step % validate_every and step.step != fit.steps:
                yield step
                continue
            measured = self._validated()
            self._best.offer(step.step, measured["validation_loss"], self._model)
            yield replace(step, measured=measured)

    @torch.no_grad()
    def _validated(self) -> dict[str, float]:
        """The lessons' loss on held-out images, changed and damaged by the same draw every time."""
        torch.manual_seed(0)  # the next step of training seeds anew
        pixels, labels = self._validation
        terms = self._model.losses((pixels.float() / 255, labels), 0)
        return {f"validation_{name}": float(terms[name]) for name in ("loss", "accuracy")}

    def drawn(self) -> Tensor:
        """It draws no pictures."""
        raise NotImplementedError("a classifier draws no pictures")

    def finish(self, scratch: str) -> Trained:
        """The weights that validated best."""
        del scratch
        return Trained(
            tensors=self._best.model.state_dict(),
            config=self._model.config,
            num_parameters=num_parameters(self._model),
            remarks=(f"the weights of step {self._best.step} did best on the validation split",),
        )
