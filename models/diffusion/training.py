"""Training the diffusion model: the loss of its velocity, and what the same noise becomes."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from models.diffusion.config import DiffusionConfig
from models.diffusion.model import Diffusion, labelled_batches, make_optimizer, velocity_steps
from models.diffusion.sampling import sample
from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.checkpoint import TrainingState, num_parameters
from models.training.config import FitConfig
from models.training.loops import Step
from models.training.protocol import ImageData, Trained
from models.training.stored_data import rows_of

GRID_COLUMNS = 10


class DiffusionTraining:
    """One training of a diffusion model; see `models.training.protocol.Training`."""

    shown: ClassVar = ("loss",)
    grid_title: ClassVar = "fixed noise"

    def __init__(
        self, data: ImageData, device: torch.device, model: DiffusionConfig, training: FitConfig
    ) -> None:
        torch.manual_seed(seed_at(training.seed, 0, INITIAL_STREAM))
        self.num_steps = training.steps
        self._fit = training
        self._model = Diffusion(model).to(device)
        train = rows_of(data.train, device)
        self._model.normalise_by(train)
        self._optimizer = make_optimizer(self._model, training)
        labels = torch.from_numpy(data.train_labels).to(device) if model.num_classes else None
        images = ImageBatches(train, training.batch_size, training.seed, training.shards)
        self._batches = labelled_batches(images, labels)
        self.state = TrainingState({"model": self._model}, {"all": self._optimizer})

    def steps(self) -> Iterator[Step]:
        """Updates; the averaged network follows each."""
        return velocity_steps(
            self._model, self._optimizer, self._batches, self._fit, self.state.step
        )

    def drawn(self) -> Tensor:
        """What the averaged network makes of the same noise, now."""
        return sample(self._model.average.eval(), GRID_COLUMNS, seed=0)

    def finish(self, scratch: str) -> Trained:
        """The averaged network."""
        del scratch
        return Trained(
            tensors=self._model.average.state_dict(),
            config=self._model.config,
            num_parameters=num_parameters(self._model.network),
        )
