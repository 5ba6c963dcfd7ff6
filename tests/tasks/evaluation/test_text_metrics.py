"""How varied and how new written texts are, beside real text."""

from pathlib import Path

import numpy as np
import pytest

from models.metrics.text import longest_copied_span, novel_ngram_share
from tasks.data.ingestion import Corpus, ingest_text
from tasks.data.splits import load_text
from tasks.evaluation import text_metrics
from tasks.evaluation.text_metrics import SPAN, _measures_of_writing


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


@pytest.mark.parametrize("at_once", [1000, 5000])
def test_a_training_text_in_parts_says_what_the_whole_says(
    corpus: Corpus, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = load_text(corpus, "train")
    written = [training[95:160] + "x", "short", "z" * 30 + training[700:725], training[-40:]]
    whole = _measures_of_writing(written, corpus)
    monkeypatch.setattr(text_metrics, "COMPARED_AT_ONCE", at_once)
    monkeypatch.setattr("tasks.data.splits.CHARACTERS_AT_ONCE", 101)

    found = _measures_of_writing(written, corpus)

    assert found == whole
    assert found["test_longest_copied_characters"] == max(
        longest_copied_span(text, training).length for text in written
    )
    shares = [novel_ngram_share(text, training, SPAN) for text in written if len(text) >= SPAN]
    weights = [len(text) - SPAN + 1 for text in written if len(text) >= SPAN]
    assert found[f"test_novel_{SPAN}gram_share"] == np.average(shares, weights=weights)
