"""What the program knows by itself: the digits of scikit-learn, read with and without it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tasks.data import sources
from tasks.data.sources import read_digits

ROOT = Path(__file__).resolve().parents[3]


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
    code = "import sys; from tasks.data.sources import read_digits; read_digits();"
    code += "print('sklearn' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert done.stdout == "False\n", done.stderr
