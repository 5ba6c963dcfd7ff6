"""The pictures of a sheet, cut apart again at their own size: what a page enlarges by whole pixels.

`tasks.plots` lays pictures out on sheets and repeats their pixels; a page that scales a whole sheet
to its window blurs them. So it shows each picture on its own, so many times its size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

GAP = 2
"""Pixels between two pictures of a sheet, as `tasks.plots.grid` leaves them."""
MIN_SIDE = 8
"""Of a picture, in pixels: a smaller one is none of a data set's."""
_PAPER = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """Pictures at their own size."""

    pixels: np.ndarray
    """(N, H, W) or (N, H, W, 3) uint8, row by row of the sheet."""
    columns: int

    @property
    def height(self) -> int:
        """Of each picture, in its own pixels."""
        return int(self.pixels.shape[1])

    @property
    def width(self) -> int:
        """Of each picture, in its own pixels."""
        return int(self.pixels.shape[2])

    def times(self, side: int) -> int:
        """How many times a picture is enlarged so that its longer side has about `side` pixels."""
        return max(1, round(side / max(self.height, self.width)))


def tiles_of(path: Path, columns: int) -> Tiles | None:
    """The pictures of a sheet of `columns`; None for a file that is no such sheet."""
    sheet = _read(path)
    cut = None if sheet is None else _cut(sheet, columns)
    return None if cut is None else Tiles(pixels=_reduced(cut), columns=columns)


def halves_of(path: Path, columns: int, gap: int) -> tuple[Tiles, Tiles] | None:
    """The two sets of a sheet of `tasks.plots.side_by_side`, each of `columns`.

    gap: pixels between the two. None for a file that is no such sheet.
    """
    sheet = _read(path)
    if sheet is None or (sheet.shape[1] - gap) % 2:
        return None
    half = (sheet.shape[1] - gap) // 2
    left, right = _cut(sheet[:, :half], columns), _cut(sheet[:, half + gap :], columns)
    if left is None or right is None or left.shape != right.shape:
        return None
    both = _reduced(np.concatenate([left, right]))
    return (
        Tiles(pixels=both[: len(left)], columns=columns),
        Tiles(pixels=both[len(left) :], columns=columns),
    )


def film_of(paths: Sequence[Path], columns: int, still: int = 0) -> Tiles | None:
    """Sheets of the same pictures at several moments, as pictures (N, moments * H, W).

    Each holds its moments one below the other, the last of them `still` times more. None unless all
    files are sheets of one shape.
    """
    cuts = []
    for path in paths:
        sheet = _read(path)
        cut = None if sheet is None else _cut(sheet, columns)
        if cut is None:
            return None
        cuts.append(cut)
    if not cuts or len({cut.shape for cut in cuts}) > 1:
        return None
    number = len(cuts[0])
    reduced = _reduced(np.concatenate(cuts))
    moments = [reduced[at : at + number] for at in range(0, len(reduced), number)]
    moments += [moments[-1]] * still
    return Tiles(pixels=np.concatenate(moments, axis=1), columns=columns)


def _read(path: Path) -> np.ndarray | None:
    """(H, W) or (H, W, 3) uint8; None for what is no picture of these kinds."""
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("L", "RGB"):
                return None
            return np.asarray(picture)
    except (OSError, SyntaxError, ValueError):  # what PIL raises for damaged files
        return None


def _cut(sheet: np.ndarray, columns: int) -> np.ndarray | None:
    """(N, H, W, ...) of a sheet, enlarged as they are there."""
    width = (sheet.shape[1] + GAP) // columns - GAP
    if width < MIN_SIDE or (width + GAP) * columns - GAP != sheet.shape[1]:
        return None
    for height in (width, *range(MIN_SIDE, sheet.shape[0] + 1)):  # most pictures are square
        if (sheet.shape[0] + GAP) % (height + GAP) == 0 and _has_gaps(sheet, height, width):
            break
    else:
        return None
    rows = (sheet.shape[0] + GAP) // (height + GAP)
    return np.stack(
        [
            sheet[top : top + height, left : left + width]
            for top in range(0, rows * (height + GAP), height + GAP)
            for left in range(0, columns * (width + GAP), width + GAP)
        ]
    )


def _has_gaps(sheet: np.ndarray, height: int, width: int) -> bool:
    rows = np.arange(len(sheet)) % (height + GAP) >= height
    columns = np.arange(sheet.shape[1]) % (width + GAP) >= width
    return bool((sheet[rows] == _PAPER).all() and (sheet[:, columns] == _PAPER).all())


def _reduced(pictures: np.ndarray) -> np.ndarray:
    """The smallest pictures that give these by repeating their pixels: nothing is lost."""
    height, width = pictures.shape[1:3]
    for times in range(min(height, width) // MIN_SIDE, 1, -1):
        if height % times or width % times:
            continue
        small = pictures[:, ::times, ::times]
        if np.array_equal(small.repeat(times, axis=1).repeat(times, axis=2), pictures):
            return small
    return pictures
