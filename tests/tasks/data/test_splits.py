"""Stored data as what trains and measures reads them."""

from pathlib import Path

import pytest

from tasks.data.ingestion import ingest_text
from tasks.data.splits import load_end, load_text

pytestmark = pytest.mark.usefixtures("atelier_home")


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 9_000, 10**7])
def test_the_end_of_a_split_is_that_of_its_whole_text(tmp_path: Path, number: int) -> None:
    path = tmp_path / "mixed.txt"
    path.write_text("naïve ☃ and 𝄞, word after word\n" * 500, encoding="utf-8")
    corpus = ingest_text.fn(f"file:{path}")

    for split in ("train", "validation", "test"):
        whole = load_text(corpus, split)
        assert load_end(corpus, split, number) == (whole[-number:] if number else "")
