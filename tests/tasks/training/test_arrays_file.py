from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from tasks.training import arrays_file
from tasks.training.arrays_file import write_arrays

KINDS = ["u8", "i8", "f8", "f4", "u4", "i4", "f2", "u2", "i2", "i1", "u1", "?"]


@pytest.mark.parametrize("bytes_at_once", [8, 1 << 24])
def test_the_file_is_the_librarys_for_every_kind_of_number(
    tmp_path: Path, bytes_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays_file, "_BYTES_AT_ONCE", bytes_at_once)
    random = np.random.default_rng(0)
    arrays = {
        f"{name} {kind}": random.integers(0, 2, shape).astype(kind)
        for kind in KINDS
        for name, shape in (("b", (3, 5)), ("a", (7,)), ("é", ()), ("none", (0, 3)))
    }

    write_arrays(tmp_path / "ours", arrays)

    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    assert (tmp_path / "ours").read_bytes() == save(tensors)
    loaded = load_file(tmp_path / "ours")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_a_mapped_array_is_written_as_it_is_and_stays_so(tmp_path: Path) -> None:
    numbers = np.arange(100_000, dtype=np.int64)
    np.save(tmp_path / "numbers.npy", numbers)
    mapped = np.load(tmp_path / "numbers.npy", mmap_mode="r")

    write_arrays(tmp_path / "ours", {"numbers": mapped})

    assert torch.equal(load_file(tmp_path / "ours")["numbers"], torch.from_numpy(numbers))
    assert (mapped == numbers).all()
