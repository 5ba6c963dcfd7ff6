"""Training the classifier whose features image samples are compared in; the best one stays."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from models.metrics.classifier import Classifier, ClassifierConfig, make_optimizer
from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.config import FitConfig
from models.training.loops import Step
from models.training.protocol import ImageData, Trained
from models.training.stored_data import rows_of
from models.training.validated import ValidatedFit

NUM_VALIDATIONS = 10
VALIDATION_IMAGES = 1000


class ClassifierTraining:
    """One training of a classifier; see `models.training.protocol.Training`.

    A set without classes has labels that are not looked at; see `models.metrics.classifier`.
    """

    shown: ClassVar = ("loss", "accuracy")

    def __init__(
        self,
        data: ImageData,
        device: torch.device,
        model: ClassifierConfig,
        training: FitConfig,
    ) -> None:
        torch.manual_seed(seed_at(training.seed, 0, INITIAL_STREAM))
        judge = Classifier(model).to(device)
        self._fit = ValidatedFit(judge, make_optimizer(judge, training), training)
        self.num_steps, self.state = training.steps, self._fit.state
        self._batches = ImageBatches(
            rows_of(data.train, device), training.batch_size, training.seed
        )
        self._labels = torch.from_numpy(data.train_labels).to(device)
        self._validation = tuple(
            torch.from_numpy(part[:: max(1, len(part) // VALIDATION_IMAGES)].copy()).to(device)
            for part in (data.validation, data.validation_labels)
        )

    def _batch_at(self, step: int) -> tuple[Tensor, Tensor]:
        return self._batches.at(step), self._labels[self._batches.indices_at(step)]

    def steps(self) -> Iterator[Step]:
        """Updates, with loss and accuracy on the validation images now and then."""
        return self._fit.steps(self._batch_at, self._validated, NUM_VALIDATIONS)

    @torch.no_grad()
    def _validated(self, step: Step) -> Step:
        """The lessons' loss on held-out images, changed and damaged by the same draw every time."""
        torch.manual_seed(0)  # the next step of training seeds anew
        pixels, labels = self._validation
        model = self._fit.model
        terms = model.losses((pixels.float() / 255, labels), 0)
        measured = {f"validation_{name}": float(terms[name]) for name in ("loss", "accuracy")}
        self._fit.best.offer(step.step, measured["validation_loss"], model)
        return replace(step, measured=measured)

    def finish(self, scratch: str) -> Trained:
        """The weights that validated best."""
        del scratch
        return self._fit.kept()
