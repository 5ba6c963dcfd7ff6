"""Arrays that are mapped from files: read where they lie, and their pages given back.

A page of a file that was read counts as the process's memory until the system needs it elsewhere.
Whoever goes through more than memory should hold gives pages back as it goes; what is read again
comes from the file, mostly from the system's own cache.
"""

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray


def release(*arrays: NDArray[Any]) -> None:
    """Give back the pages of arrays that are mapped from files; others stay as they are.

    Parts of a mapped array count as the whole. No value changes. A private map, whose changes are
    in no file, is left alone.
    """
    for array in arrays:
        if (mapped := _map_below(array)) is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def _map_below(array: Any) -> mmap.mmap | None:
    while array is not None and not isinstance(array, mmap.mmap):
        if isinstance(array, np.memmap) and array.mode == "c":
            return None
        array = getattr(array, "base", None)
    return array
