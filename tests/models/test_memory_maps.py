"""Mapped arrays give back the memory of what was read, and lose nothing."""

import re
from pathlib import Path

import numpy as np
import pytest

from models.memory_maps import release


def resident_kilobytes(path: Path) -> int:
    """Of all maps of a file in this process."""
    found = 0
    parts = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    for part in parts:
        if str(path) in part.partition("\n")[0]:
            found += int(re.search(r"(?m)^Rss:\s+(\d+) kB", part)[1])  # type: ignore[index]
    return found


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.npy"
    np.save(path, np.arange(1 << 20, dtype=np.int32))
    return path


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_pages_that_were_read_are_given_back(stored: Path, mode: str) -> None:
    mapped = np.load(stored, mmap_mode=mode)
    part = np.asarray(mapped[1000:])[::2]
    before = int(part.sum(dtype=np.int64))
    assert resident_kilobytes(stored) > 4000

    release(part)

    assert resident_kilobytes(stored) == 0
    assert int(part.sum(dtype=np.int64)) == before


def test_what_was_changed_in_a_private_map_stays(stored: Path) -> None:
    private = np.load(stored, mmap_mode="c")
    private[5] = -1

    release(private)

    assert private[5] == -1


def test_arrays_in_memory_are_left_alone() -> None:
    numbers = np.arange(5)

    release(numbers, numbers[1:], np.empty(0))

    assert numbers.tolist() == [0, 1, 2, 3, 4]
