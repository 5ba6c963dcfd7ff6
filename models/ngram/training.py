"""Training the n-gram model: smoothing tuned on a hold-out of the training split, then counting."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import torch

from models.ngram.config import NgramConfig, TuningConfig
from models.ngram.external_sort import ExternalSortConfig
from models.ngram.model import NgramModel
from models.ngram.tuning import tune
from models.training.protocol import TextData, Trained

if TYPE_CHECKING:
    from models.training.loops import Step


class NgramTraining:
    """Counting, which has no steps to resume; see `models.training.protocol.Training`."""

    shown: ClassVar = ()
    num_steps = 0
    state = None

    def __init__(
        self,
        data: TextData,
        _device: torch.device,
        model: NgramConfig,
        tuning: TuningConfig | None,
    ) -> None:
        """Without tuning it is plain modified Kneser-Ney; the device changes nothing."""
        self._data, self._config, self._tuning = data, model, tuning

    def steps(self) -> "Iterator[Step]":
        """None: all of the work is in `finish`."""
        return iter(())

    def finish(self, scratch: str) -> Trained:
        """Tune the smoothing on the end of the training split, then count all of it."""
        data, config, spill = self._data, self._config, ExternalSortConfig(folder=scratch)
        if self._tuning is not None:
            config = tune(data.train, data.vocabulary_size, config, self._tuning, spill)
        model = NgramModel.fit(data.train, data.vocabulary_size, config, spill)
        arrays = model.arrays()
        return Trained(
            tensors=arrays,
            config=config,
            num_parameters=sum(array.size for array in arrays.values()),
        )
