"""How varied and how new written texts are, beside real text."""

from pathlib import Path

import numpy as np
import pytest

from tasks.data.ingestion import Corpus, ingest_text
from tasks.data.splits import load_text
from tasks.evaluation.text_metrics import _measures_of_writing


@pytest.fixture
def corpus(atelier_home: Path, tmp_path: Path) -> Corpus:
    """40 kB of words in random order: real text of which hardly a span comes twice."""
    random = np.random.default_rng(3)
    words = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]
    lines = [" ".join(random.choice(words, size=9)) + "." for _ in range(900)]
    path = tmp_path / "long.txt"
    path.write_text("\n".join(lines) + "\n")
    return ingest_text.fn(f"file:{path}")


def test_copies_and_babble_lie_on_both_sides_of_real_text(corpus: Corpus) -> None:
    training = load_text(corpus, "train")
    copied = _measures_of_writing([training[:400], training[900:1300]], corpus)
    babble = _measures_of_writing(["xyzzy" * 80, "plugh" * 80], corpus)

    assert copied["test_longest_copied_characters"] == 400
    assert copied["test_novel_12gram_share"] == 0
    assert babble["test_novel_12gram_share"] == 1
    assert babble["test_distinct_3"] < copied["test_distinct_3"]
    real = copied["real_data_novel_12gram_share"]
    assert 0.05 < real < 1
    assert real == babble["real_data_novel_12gram_share"]  # as long, so the same real text


def test_the_real_text_beside_is_held_out_and_as_long(corpus: Corpus) -> None:
    held_out = load_text(corpus, "test")
    pieces = [held_out[:300], held_out[-300:]]

    found = _measures_of_writing(pieces, corpus)

    for name in ("distinct_2", "novel_12gram_share", "longest_copied_characters"):
        assert found[f"test_{name}"] == found[f"real_data_{name}"]


def test_too_little_held_out_text_is_nothing_to_compare_with(corpus: Corpus) -> None:
    written = ["the cat sees a bird. " * 30] * 20
    assert sum(map(len, written)) > len(load_text(corpus, "test"))

    assert not any(name.startswith("real_data_") for name in _measures_of_writing(written, corpus))
