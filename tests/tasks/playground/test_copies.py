"""Copied spans, held against a search that looks everywhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.playground import copies
from tasks.playground.copies import MIN_CHARACTERS, copied_spans


def everywhere(text: str, training: str) -> list[tuple[int, int]]:
    spans, end = [], 0
    for start in range(len(text)):
        length = 0
        while start + length < len(text) and text[start : start + length + 1] in training:
            length += 1
        if length >= MIN_CHARACTERS and start + length > end:
            end = start + length
            spans.append((start, length))
    return spans


TEXTS = st.text("ab", min_size=1, max_size=120)


@given(text=TEXTS, training=TEXTS)
@settings(max_examples=200, deadline=None)
def test_spans_are_the_longest_ones(text: str, training: str) -> None:
    assert copied_spans(text, [training]) == everywhere(text, training)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_pieces_and_parts_of_the_training_text_hide_no_copy(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = "".join(f"{n} sheep went over the hill, " for n in range(60))
    text = "now " + training[333:471] + " then " + training[40:80]
    monkeypatch.setattr(copies, "_CHARACTERS_AT_ONCE", 100)

    pieces = [training[at : at + size] for at in range(0, len(training), size)]

    assert copied_spans(text, pieces) == everywhere(text, training)
    assert copied_spans(text, pieces)[0][1] >= 138


def test_what_is_short_is_no_copy() -> None:
    training = "the cat sat on the mat"
    assert copied_spans(training[: MIN_CHARACTERS - 1], [training]) == []
    assert copied_spans(training[:MIN_CHARACTERS], [training]) == [(0, MIN_CHARACTERS)]
    assert copied_spans("x" * 50, [""]) == []
