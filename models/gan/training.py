"""Training the GAN: both losses, the penalties and what the stability monitor sees."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from models.gan.config import GanConfig
from models.gan.model import Gan, labelled_batches, optimizers_of
from models.gan.networks import fixed_latents, images_of
from models.gan.stability import ControlConfig, StabilityMonitor, controlled_state, controlled_steps
from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.checkpoint import num_parameters
from models.training.config import FitConfig
from models.training.loops import Step
from models.training.protocol import ImageData, Trained
from models.training.stored_data import Rows, rows_of

REFERENCE_IMAGES = 1000
GRID_COLUMNS = 10


class GanTraining:
    """One training of both networks, under control; see `models.training.protocol.Training`."""

    shown: ClassVar = ("generator_loss", "discriminator_loss")
    grid_title: ClassVar = "fixed latent points"

    def __init__(
        self, data: ImageData, device: torch.device, model: GanConfig, training: FitConfig
    ) -> None:
        torch.manual_seed(seed_at(training.seed, 0, INITIAL_STREAM))
        self.num_steps = training.steps
        self._fit = training
        self._model = Gan(model).to(device)
        optimizers = optimizers_of(self._model, training.learning_rate)
        train = rows_of(data.train, device)
        classes = None
        if model.num_classes:
            classes = torch.from_numpy(data.train_labels).to(device)
        images = ImageBatches(train, training.batch_size, training.seed, training.shards)
        self._batches = labelled_batches(images, classes)
        self._monitor = StabilityMonitor(ControlConfig(), _reference(train, classes))
        self.state = controlled_state(self._model, optimizers, self._monitor)

    def steps(self) -> Iterator[Step]:
        """Updates; after a return to a healthy state the steps count on from there."""
        known = 0
        for step in controlled_steps(
            self._model, self.state, self._batches, self._fit, self._monitor
        ):
            remarks: tuple[str, ...] = ()
            if self._monitor.num_rollbacks > known:
                known = self._monitor.num_rollbacks
                remarks = (f"went back to step {step.step}: {self._monitor.diagnoses[-1]}",)
            yield replace(step, remarks=remarks)

    def drawn(self) -> Tensor:
        """What the averaged generator makes of the same latent points, now."""
        config = self._model.config
        latents = fixed_latents(config, GRID_COLUMNS, seed=0)
        num_classes = config.num_classes
        labels = torch.arange(GRID_COLUMNS) % num_classes if num_classes else None
        return images_of(self._model.average, latents, labels)

    def finish(self, scratch: str) -> Trained:
        """The averaged generator."""
        del scratch
        return Trained(
            tensors=self._model.average.state_dict(),
            config=self._model.config,
            num_parameters=num_parameters(self._model.generator),
        )


def _reference(train: Rows, classes: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Real images for the monitor to compare with, from all over the training split."""
    step = max(1, len(train) // REFERENCE_IMAGES)
    chosen = torch.arange(0, len(train), step, device=train.device)
    return train[chosen].float() / 255, None if classes is None else classes[chosen]
