"""Tiny real things for tests: a home, an image set, a corpus, a tracking database, a server."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows import local_stack

# Prefect makes its home when it is imported: not the one of the person who runs the tests.
_SESSION_HOME = tempfile.TemporaryDirectory(prefix="atelier-tests-")
os.environ["ATELIER_HOME"] = _SESSION_HOME.name
os.environ["PYTHONWARNINGS"] = "default"
local_stack.apply_settings()


@pytest.fixture
def atelier_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home; runs are kept in its own SQLite database."""
    home = tmp_path / "home"
    monkeypatch.setenv("ATELIER_HOME", str(home))
    monkeypatch.delenv("ATELIER_DATA", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """120 grey 8x8 pictures in two classes: bright on the left, bright on the right."""
    random = np.random.default_rng(0)
    for label, columns in (("left", slice(0, 4)), ("right", slice(4, 8))):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        for index in range(60):
            pixels = random.integers(0, 60, (8, 8), dtype=np.uint8)
            pixels[:, columns] += 150
            Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return tmp_path / "pictures"


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """A corpus of 14 kB in which some words follow others more often."""
    random = np.random.default_rng(1)
    words = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]
    lines = [" ".join(random.choice(words, size=9)) + "." for _ in range(320)]
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(lines) + "\n")
    return path
