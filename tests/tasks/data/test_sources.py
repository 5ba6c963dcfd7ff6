"""What the program knows by itself: the digits of scikit-learn, read with and without it."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tasks.data import sources
from tasks.data.sources import read_digits
from tests.imports import imported_by


@pytest.mark.parametrize("has_the_file", [True, False])
def test_digits_are_those_of_scikit_learn(
    has_the_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_the_file:
        monkeypatch.setattr(sources, "find_spec", lambda _: None)
    theirs = load_digits()

    ours = read_digits()

    assert ours.pixels.shape == (1797, 1, 8, 8)
    assert np.array_equal(ours.pixels[:, 0], np.rint(theirs.images * (255 / 16)).astype(np.uint8))
    assert np.array_equal(ours.labels, theirs.target)
    assert (ours.pixels.dtype, ours.labels.dtype) == (np.uint8, np.int64)


def test_scikit_learn_is_not_imported_for_them() -> None:
    imported, _ = imported_by(
        "from tasks.data.sources import read_digits; read_digits()", ["sklearn"]
    )

    assert imported == []
