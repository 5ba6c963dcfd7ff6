"""Pictures as PNG bytes: grids of images, and the curves of a training run as SVG."""

import io
import math

import numpy as np
from PIL import Image

_PAPER = 255
_GAP = 2  # pixels between two images of a grid


def grid(images: np.ndarray, columns: int, side: int = 48) -> bytes:
    """Images (N, C, H, W) uint8 in rows of `columns`, each enlarged to about `side` pixels.

    Enlarging repeats pixels, so that a viewer sees exactly what a model drew.
    """
    return png(_sheet(images, columns, side))


def side_by_side(left: np.ndarray, right: np.ndarray, columns: int, side: int = 48) -> bytes:
    """Two sets of images (N, C, H, W) uint8 as two grids with a wide gap between them."""
    sheets = [_sheet(images, columns, side) for images in (left, right)]
    gap = np.full((len(sheets[0]), side // 2, sheets[0].shape[2]), _PAPER, np.uint8)
    return png(np.concatenate([sheets[0], gap, sheets[1]], axis=1))


def _sheet(images: np.ndarray, columns: int, side: int) -> np.ndarray:
    scale = max(1, round(side / max(images.shape[2:])))
    large = images.repeat(scale, axis=2).repeat(scale, axis=3)
    num, channels, height, width = large.shape
    rows = math.ceil(num / columns)
    sheet = np.full(
        (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels), _PAPER, np.uint8
    )
    for index, image in enumerate(large):
        top, left = index // columns * (height + _GAP), index % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return sheet


def png(sheet: np.ndarray) -> bytes:
    """A picture (H, W, C) uint8, C of 1 or 3, as a PNG file's content."""
    buffer = io.BytesIO()
    Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet).save(buffer, "PNG")
    return buffer.getvalue()


def curve(points: list[tuple[int, float]], width: int = 320, height: int = 90) -> str:
    """A line through (step, value) points as an SVG element, with its first and last value."""
    if len(points) < 2:
        return ""
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    last = max(steps)
    path = " ".join(
        f"{step / last * width:.1f},{height - 4 - (value - low) / span * (height - 8):.1f}"
        for step, value in points
    )
    return (
        f'<svg class="curve" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="from {values[0]:.4g} to {values[-1]:.4g} in {last} steps">'
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )
