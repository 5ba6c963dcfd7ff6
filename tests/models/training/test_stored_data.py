"""Rows that stay in their file, read a batch at a time, are those of a tensor."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.training import stored_data
from models.training.batches import ImageBatches, TokenBatches
from models.training.stored_data import StoredRows, rows_of


@pytest.fixture
def images(tmp_path: Path) -> np.ndarray:
    """Mapped from a file, and a part of what is in it, as the splits are."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    part: np.ndarray = np.load(tmp_path / "pixels.npy", mmap_mode="r")[7:47]
    return part


@pytest.mark.parametrize("released_above", [0, 1 << 28])
def test_batches_of_stored_images_are_those_of_a_tensor(
    images: np.ndarray, released_above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_data, "RELEASED_ABOVE", released_above)
    monkeypatch.setattr(stored_data, "ROWS_BETWEEN_RELEASES", 16)
    stored = ImageBatches(rows_of(images, "cpu"), 12, seed=3)
    whole = ImageBatches(torch.from_numpy(images.copy()), 12, seed=3)

    for step in (0, 1, 2, 3, 30):
        assert torch.equal(stored.indices_at(step), whole.indices_at(step))
        assert torch.equal(stored.at(step), whole.at(step))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int64"])
def test_windows_of_stored_tokens_are_those_of_a_tensor(tmp_path: Path, dtype: str) -> None:
    tokens = np.random.default_rng(0).integers(0, 250, 500).astype(dtype)
    np.save(tmp_path / "tokens.npy", tokens)
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    stored = TokenBatches(rows_of(mapped, "cpu"), 16, 5, seed=1)
    whole = TokenBatches(torch.from_numpy(tokens.astype("int64")), 16, 5, seed=1)

    for step in (0, 7):
        for found, wanted in zip(stored.at(step), whole.at(step), strict=True):
            assert found.dtype == torch.int64
            assert torch.equal(found, wanted)


def test_rows_are_copies_and_know_their_shape(images: np.ndarray) -> None:
    stored = StoredRows(images)

    rows = stored[torch.tensor([[0, 39], [5, 5]])]
    rows.zero_()

    assert rows.shape == (2, 2, 3, 8, 8)
    assert (len(stored), stored.shape, stored.ndim) == (40, (40, 3, 8, 8), 4)
    assert stored.dtype == torch.uint8
    assert images[0].any()
    with pytest.raises(IndexError):
        stored[torch.tensor([40])]
