"""The training pictures nearest to others."""

import numpy as np

_PICTURES_AT_ONCE = 4096


def nearest_pictures(pictures: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each picture the place of the nearest training picture, and its Euclidean distance.

    pictures (Q, C, H, W) and training (N, C, H, W), N >= 1, uint8, which may be mapped from disk.
    Returns (Q,) int64 and (Q,) float64; distances are of pixels from 0 to 1.
    """
    wanted = _flat(pictures)
    best, places = np.full(len(wanted), np.inf), np.zeros(len(wanted), np.int64)
    rows = np.arange(len(wanted))
    for start in range(0, len(training), _PICTURES_AT_ONCE):
        part = _flat(training[start : start + _PICTURES_AT_ONCE])
        squares = (wanted**2).sum(1)[:, None] + (part**2).sum(1) - 2 * wanted @ part.T
        nearest = squares.argmin(1)
        closer = squares[rows, nearest] < best
        best = np.where(closer, squares[rows, nearest], best)
        places = np.where(closer, nearest + start, places)
    found = np.stack([np.asarray(training[place]) for place in places])
    # From the very pixels: the sum above loses what two large numbers share.
    return places, np.sqrt(((wanted.astype(np.float64) - _flat(found)) ** 2).sum(1))


def _flat(pictures: np.ndarray) -> np.ndarray:
    """(N, C, H, W) uint8 to (N, P) float32 in [0, 1]."""
    flat: np.ndarray = np.asarray(pictures).reshape(len(pictures), -1).astype(np.float32) / 255
    return flat
