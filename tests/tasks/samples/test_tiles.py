"""Sheets are cut into the pictures that they were made of, at their own size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks import plots
from tasks.samples import comparison
from tasks.samples.html_page import _DIFFERENCE_COLUMNS, _DIFFERENCE_GAP
from tasks.samples.tiles import film_of, halves_of, tiles_of


def noise(number: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 200, (number, *shape), dtype=np.uint8)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def last(pixels: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as tiles have it."""
    return pixels[:, 0] if pixels.shape[1] == 1 else pixels.transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 64, 64), (1, 12, 8), (1, 8, 24), (3, 17, 31)]
)
def test_a_sheet_gives_back_its_pictures(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = noise(20, *shape)

    found = tiles_of(written(tmp_path / "a.png", plots.grid(pixels, 10)), 10)

    assert found is not None
    assert np.array_equal(found.pixels, last(pixels))
    assert (found.height, found.width, found.columns) == (*shape[1:], 10)


def test_a_sheet_of_one_colour_loses_nothing_but_size(tmp_path: Path) -> None:
    blank = np.zeros((10, 1, 16, 16), np.uint8)

    found = tiles_of(written(tmp_path / "a.png", plots.grid(blank, 10)), 10)

    assert found is not None
    assert found.pixels.shape == (10, 8, 8)  # 48 pixels, as many as six times eight
    assert found.times(48) == 6


@pytest.mark.parametrize("size", [(498, 7), (7, 498), (500, 48), (1, 1), (498, 50)])
def test_what_is_no_sheet_gives_nothing(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    Image.new("L", size).save(path)

    assert tiles_of(path, 10) is None
    assert halves_of(path, 6, 24) is None
    assert film_of([path], 10) is None


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_file_gives_nothing(tmp_path: Path, content: bytes) -> None:
    assert tiles_of(written(tmp_path / "a.png", content), 10) is None


def test_other_kinds_of_pictures_give_nothing(tmp_path: Path) -> None:
    Image.new("RGBA", (498, 48), "white").save(tmp_path / "a.png")

    assert tiles_of(tmp_path / "a.png", 10) is None
    assert tiles_of(tmp_path / "none.png", 10) is None


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_a_comparison_gives_back_both_halves(tmp_path: Path, shape: tuple[int, ...]) -> None:
    left, right = noise(30, *shape), 255 - noise(30, *shape)
    sheet = plots.side_by_side(left, right, comparison.COLUMNS)

    found = halves_of(written(tmp_path / "a.png", sheet), _DIFFERENCE_COLUMNS, _DIFFERENCE_GAP)

    assert found is not None
    assert np.array_equal(found[0].pixels, last(left))
    assert np.array_equal(found[1].pixels, last(right))


def test_a_film_holds_the_moments_of_each_picture_below_each_other(tmp_path: Path) -> None:
    moments = [noise(30, 1, 8, 8), np.zeros((30, 1, 8, 8), np.uint8)]
    paths = [
        written(tmp_path / f"{at}.png", plots.grid(pixels, 10)) for at, pixels in enumerate(moments)
    ]

    found = film_of(paths, 10, still=1)

    assert found is not None
    assert found.pixels.shape == (30, 24, 8)
    assert np.array_equal(found.pixels[:, :8], moments[0][:, 0])
    assert not found.pixels[:, 8:].any()  # the last moment, twice
    assert film_of([], 10) is None
    fewer = written(tmp_path / "c.png", plots.grid(noise(10, 1, 8, 8), 10))
    assert film_of([paths[0], fewer], 10) is None
