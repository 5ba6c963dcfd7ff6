"""Training data that stay in their file: a batch's rows are read when it is asked for.

A data set may be larger than memory. On a CPU nothing of it is copied; a GPU holds all of what fits
beside the training, since it reads there faster, and is given a batch at a time of what does not.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from models.memory_maps import release

RELEASED_ABOVE = 1 << 28
"""Bytes of a mapped array above which pages are given back."""
ROWS_BETWEEN_RELEASES = 1 << 12
"""Rows whose pages stay: each brings 64 kB of its neighbourhood along where the system has it."""
SHARE_OF_A_GPU = 0.25
"""Of a GPU's free memory, what a data set may take."""


class StoredRows:
    """The rows of an array, (N, ...), indexed like a tensor that lies on a device.

    The array must not be written to.
    """

    def __init__(self, array: NDArray[Any], device: torch.device | str = "cpu") -> None:
        self._array = np.asarray(array)
        self._device = torch.device(device)
        self._num_read = 0
        self.shape = torch.Size(array.shape)
        self.ndim = array.ndim
        self.dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        self.device = torch.device("cpu")
        """Where the indices are wanted; rows come to the device that was named."""

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Copies of some rows: (B,) int64 to (B, ...), or as many dimensions as rows has."""
        found = torch.from_numpy(self._array.take(rows.cpu().numpy(), axis=0))
        self._num_read += rows.numel()
        if self._num_read >= ROWS_BETWEEN_RELEASES and self._array.nbytes > RELEASED_ABOVE:
            release(self._array)
            self._num_read = 0
        return found.to(self._device, non_blocking=True)


Rows = Tensor | StoredRows


def rows_of(
    array: NDArray[Any], device: torch.device | str, on_a_gpu_as: "DTypeLike | None" = None
) -> Rows:
    """An array, mapped or not, as a training on that device reads its rows.

    on_a_gpu_as: the type to hold there, where not every type can be indexed.
    """
    device = torch.device(device)
    if device.type == "cuda":
        dtype = array.dtype if on_a_gpu_as is None else np.dtype(on_a_gpu_as)
        free, _ = torch.cuda.mem_get_info(device)
        if array.size * dtype.itemsize <= SHARE_OF_A_GPU * free:
            return torch.from_numpy(np.array(array, dtype)).to(device)
    return StoredRows(array, device)
