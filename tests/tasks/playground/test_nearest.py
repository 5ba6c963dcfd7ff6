"""Nearest training pictures, held against all distances."""

import numpy as np
import pytest

from tasks.playground import nearest
from tasks.playground.nearest import nearest_pictures


@pytest.mark.parametrize("at_once", [3, 4096])
def test_the_nearest_is_found_among_all_parts(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "_PICTURES_AT_ONCE", at_once)
    random = np.random.default_rng(0)
    training = random.integers(0, 256, (20, 3, 4, 4), dtype=np.uint8)
    pictures = random.integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    pictures[2] = training[17]

    places, distances = nearest_pictures(pictures, training)

    difference = (pictures[:, None].astype(float) - training[None]) / 255
    whole = np.sqrt((difference**2).sum((2, 3, 4)))
    assert places.tolist() == whole.argmin(1).tolist()
    assert distances == pytest.approx(whole.min(1), rel=1e-6)
    assert places[2] == 17 and distances[2] == 0
