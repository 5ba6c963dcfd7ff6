"""What one training is, whatever its family: what is read, driven, resumed and kept.

A family gives a class with this interface; `tasks.training.fit` drives it. Nothing of it knows of
files, flows or servers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:  # what counts has neither
    from models.training.checkpoint import TrainingState
    from models.training.loops import Step


Tensors = dict[str, Tensor]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageData:
    """What an image model learns from: pixels (N, C, H, W) uint8, labels (N,) int64 (-1: none)."""

    train: np.ndarray
    train_labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class TextData:
    """What a token model learns from: token ids (N,) of each split."""

    train: np.ndarray
    validation: np.ndarray
    vocabulary_size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What is kept of a training."""

    tensors: Tensors | Arrays
    """Arrays where they may be larger than memory, and lie in files of `finish`'s folder."""
    config: Any
    """The configuration (a dataclass) that rebuilds the model; tuning may have changed it."""
    num_parameters: int
    remarks: tuple[str, ...] = field(default=())


class Training(Protocol):
    """One training of one model: a class called with (data, device, **settings)."""

    shown: ClassVar[tuple[str, ...]]
    """The terms that a progress line tells."""
    num_steps: int
    state: "TrainingState | None"
    """All that a resumed training needs; None where nothing can be resumed."""

    def steps(self) -> "Iterator[Step]":
        """Train from `state.step` on, telling of each update."""
        ...

    def finish(self, scratch: str) -> Trained:
        """What is kept, after the last step; scratch: a folder for what memory cannot hold."""
        ...


@runtime_checkable
class Draws(Protocol):
    """A training that also draws pictures as it goes."""

    grid_title: str
    """Of its pictures."""

    def drawn(self) -> Tensor:
        """What it draws now: (N, C, H, W) float in [0, 1], in rows of ten."""
        ...
