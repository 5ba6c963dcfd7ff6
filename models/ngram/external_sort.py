"""Sorting more than memory holds, by merging sorted runs that lie in memory or in unnamed files.

Files are opened without a name in the folder that the caller hands in, so the operating system
removes them when they are closed, however the program ends.
"""

import errno
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from models.ngram.keys import Integers, Keys

SortKind = Literal["quicksort", "stable"]
MIN_MEMORY = 1 << 20
MIN_BLOCK = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalSortConfig:
    """Counting within a stated memory: what does not fit goes to disk."""

    folder: str
    """An existing folder for scratch files, which have no names and vanish with their process."""
    memory_bytes: int = 256 << 20
    """What counting may allocate, beside the interpreter, the libraries and the text."""

    def __post_init__(self) -> None:
        if self.memory_bytes < MIN_MEMORY:
            raise ValueError(f"memory_bytes must be at least {MIN_MEMORY}, got {self.memory_bytes}")


OpenFile = Callable[[], BinaryIO]


@contextmanager
def scratch_files(spill: ExternalSortConfig | None) -> Iterator[OpenFile | None]:
    """Give a function that opens a scratch file, and close all at the end; without `spill`, None.

    An error of the operating system is told with the folder it is about.
    """
    if spill is None:
        yield None
        return
    try:
        with ExitStack() as files:
            yield lambda: cast(
                BinaryIO, files.enter_context(tempfile.TemporaryFile(dir=spill.folder))
            )
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"counting n-grams within {spill.memory_bytes / 1e6:.0f} MB of memory could not use"
            f" the scratch folder ({error.strerror or error}); free space there, name another"
            " folder, or allow more memory",
            str(spill.folder),
        ) from error


class GrowingArray:
    """An array that grows at its end: in a scratch file, or in memory for lack of one."""

    def __init__(self, dtype: np.dtype[Any], open_file: OpenFile | None) -> None:
        self.dtype = dtype
        self._file = open_file() if open_file is not None else None
        self._parts: list[NDArray[Any]] = []
        self._ends = [0]

    def __len__(self) -> int:
        return self._ends[-1]

    def append(self, values: NDArray[Any]) -> None:
        """Add values, (n,), converted to the array's type. Raises OSError when the disk is full."""
        values = np.ascontiguousarray(values, self.dtype)
        end = len(self) + len(values)
        if self._file is None:
            self._parts.append(values)
            self._ends.append(end)
        else:
            self._file.write(values.data)
            self._ends = [end]

    def read(self, first: int, end: int) -> NDArray[Any]:
        """Elements first to end - 1, which must belong to one append where they are in memory."""
        if self._file is None:
            part = bisect_right(self._ends, first) - 1
            return self._parts[part][first - self._ends[part] : end - self._ends[part]]
        self._file.seek(first * self.dtype.itemsize)
        data = self._file.read((end - first) * self.dtype.itemsize)
        return np.frombuffer(data, self.dtype)

    def finished(self) -> NDArray[Any]:
        """The whole: an array in memory, or one that is mapped from the file."""
        if self._file is None:
            return np.concatenate([np.empty(0, self.dtype), *self._parts])
        self._file.flush()
        if len(self) == 0:
            return np.empty(0, self.dtype)
        return np.asarray(np.memmap(self._file, self.dtype, "r+", shape=(len(self),)))


class SortedRuns:
    """Counts how often each key was added, in whatever order, and gives them back sorted.

    kind: NumPy's sorting algorithm; "stable" is faster for keys that are nearly sorted.
    """

    def __init__(
        self, dtype: np.dtype[Any], keys_at_once: int, open_file: OpenFile | None, kind: SortKind
    ) -> None:
        self._keys_at_once = keys_at_once
        self._block = max(MIN_BLOCK, keys_at_once // 8)  # what is done with blocks takes more
        self._kind: SortKind = kind
        self._waiting: list[Keys] = []
        self._num_waiting = 0
        self._open_file = open_file
        self._dtype = dtype
        self._runs: list[tuple[int, int]] = []

    def add(self, keys: Keys) -> None:
        """Take over keys, (n,), and their memory; keys_at_once of them wait to be sorted."""
        if self._num_waiting + len(keys) > self._keys_at_once:
            self._store()
        self._waiting.append(keys)
        self._num_waiting += len(keys)

    def blocks(self) -> Iterator[tuple[Keys, Integers]]:
        """The distinct keys in order, a part at a time, and how often each was added."""
        if self._runs:
            self._store()
            yield from self._merged()
        elif self._num_waiting:
            keys, counts = self._sorted()
            for first in range(0, len(keys), self._block):
                yield keys[first : first + self._block], counts[first : first + self._block]

    def _sorted(self) -> tuple[Keys, Integers]:
        keys = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting, self._num_waiting = [], 0
        keys.sort(kind=self._kind)
        firsts = _firsts(keys)
        return keys[firsts], np.diff(firsts, append=len(keys))

    def _store(self) -> None:
        if self._num_waiting == 0:
            return
        if not self._runs:
            self._keys = GrowingArray(self._dtype, self._open_file)
            self._counts = GrowingArray(np.dtype(np.int32), self._open_file)
        keys, counts = self._sorted()
        self._runs.append((len(self._keys), len(self._keys) + len(keys)))
        self._keys.append(keys)
        self._counts.append(counts)

    def _merged(self) -> Iterator[tuple[Keys, Integers]]:
        """All that is not above the least last key of the parts that are read can be given out."""
        at_once = max(MIN_BLOCK, self._block // len(self._runs))
        runs = [_Run(self._keys, self._counts, *bounds) for bounds in self._runs]
        while runs := [run for run in runs if run.fill(at_once)]:
            bound = min((run.keys[-1] for run in runs if run.has_more), default=None)
            keys, counts = map(np.concatenate, zip(*(run.take(bound) for run in runs), strict=True))
            order = np.argsort(keys, kind="stable")  # a merge, as runs are sorted already
            keys, counts = keys[order], counts[order]
            firsts = _firsts(keys)
            yield keys[firsts], np.add.reduceat(counts, firsts, dtype=np.int64)


class _Run:
    """What is still to be read of one sorted run."""

    def __init__(self, keys: GrowingArray, counts: GrowingArray, first: int, end: int) -> None:
        self._stored = keys, counts
        self._first, self._end = first, end
        self.keys, self.counts = keys.read(first, first), counts.read(first, first)

    @property
    def has_more(self) -> bool:
        return self._first < self._end

    def fill(self, at_once: int) -> bool:
        """Read the next part where the last one is used up; whether there is anything left."""
        if len(self.keys) == 0 and self.has_more:
            first, self._first = self._first, min(self._first + at_once, self._end)
            self.keys, self.counts = (array.read(first, self._first) for array in self._stored)
        return len(self.keys) > 0

    def take(self, bound: Any) -> tuple[Keys, NDArray[np.int32]]:
        """Remove and return the keys up to a bound, and their counts; None takes all."""
        cut = len(self.keys) if bound is None else np.searchsorted(self.keys, bound, "right")
        taken = self.keys[:cut], self.counts[:cut]
        self.keys, self.counts = self.keys[cut:], self.counts[cut:]
        return taken


def _firsts(ordered: Keys) -> Integers:
    """Where a new key begins in sorted keys."""
    is_first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return np.flatnonzero(is_first)
