import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.metrics.text import (
    bits_per_byte,
    distinct_n,
    longest_copied_span,
    novel_ngram_share,
)

FEW_LETTERS = st.text("abc", max_size=40)


def ngrams(text, n):
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def brute_longest(generated, training):
    """Length of the longest common span and its first place in each, by trying all."""
    for length in range(min(len(generated), len(training)), 0, -1):
        for start in range(len(generated) - length + 1):
            place = training.find(generated[start : start + length])
            if place >= 0:
                return (length, start, place)
    return (0, 0, 0)


def test_bits_per_byte_is_worked_by_hand():
    assert bits_per_byte(8 * math.log(2), 4) == pytest.approx(2)
    assert bits_per_byte(1000 * math.log(256), 1000) == pytest.approx(8)  # a uniform byte model


def test_distinct_n_is_worked_by_hand():
    assert distinct_n("aabaab", 1) == 2 / 6
    assert distinct_n("aabaab", 2) == 3 / 5  # aa ab ba aa ab
    assert distinct_n([7, 7, 7, 7], 2) == 1 / 3
    assert distinct_n(torch.arange(9), 9) == 1


@given(generated=FEW_LETTERS, training=FEW_LETTERS, n=st.integers(1, 7))
@settings(max_examples=300, deadline=None)
def test_ngram_numbers_agree_with_sets_of_ngrams(generated, training, n):
    if len(generated) < n or not training:
        return
    made, known = ngrams(generated, n), set(ngrams(training, n))

    assert distinct_n(generated, n) == len(set(made)) / len(made)
    assert novel_ngram_share(generated, training, n) == pytest.approx(
        sum(gram not in known for gram in made) / len(made)
    )


@given(generated=FEW_LETTERS, training=FEW_LETTERS)
@settings(max_examples=500, deadline=None)
def test_longest_span_agrees_with_trying_all(generated, training):
    if not generated or not training:
        return

    assert longest_copied_span(generated, training) == brute_longest(generated, training)


@given(before=FEW_LETTERS, copied=st.text("abc", min_size=1, max_size=300), after=FEW_LETTERS)
@settings(max_examples=100, deadline=None)
def test_a_planted_copy_is_found_whole(before, copied, after):
    generated, training = f"x{copied}y", f"{before}{copied}{after}"

    span = longest_copied_span(generated, training)

    assert span.length >= len(copied)
    assert generated[span.generated_start :][: span.length] == copied
    assert training[span.training_start :][: span.length] == copied


def test_parts_of_a_large_text_join_without_seams(monkeypatch):
    monkeypatch.setattr("models.metrics.text.SYMBOLS_AT_ONCE", 7)
    generator = np.random.default_rng(0)
    made, known = ("".join(generator.choice(list("abc"), size)) for size in (60, 200))

    assert longest_copied_span(made, known) == brute_longest(made, known)
    assert novel_ngram_share(made, known, 5) == pytest.approx(
        np.mean([gram not in set(ngrams(known, 5)) for gram in ngrams(made, 5)])
    )


def test_texts_of_different_integer_types_are_compared_by_value():
    made, known = np.array([300, 2, 3, 70_000], np.uint32), np.array([2, 3, 44], np.uint8)

    assert longest_copied_span(made, known) == (2, 1, 0)  # 300 is 44 only modulo 256


def test_longest_span_takes_tokens_and_any_character():
    assert longest_copied_span([9, 500_000, 7, 8], np.array([1, 500_000, 7, 3])) == (2, 1, 1)
    assert longest_copied_span("né🎉\ud800x", "a🎉\ud800") == (2, 2, 1)
    assert novel_ngram_share("\ud800", "?", 1) == 1
    assert longest_copied_span("abc", "xyz") == (0, 0, 0)
    assert longest_copied_span("abc", "abc") == (3, 0, 0)


def test_longest_span_is_found_in_a_large_text():
    """1 MB against 10 kB, with a copy of 700 symbols: pair by pair this would take hours."""
    generator = np.random.default_rng(0)
    training = generator.integers(0, 60, 1_000_000)
    generated = generator.integers(0, 60, 10_000)
    generated[5000:5700] = training[400_000:400_700]
    training[400_700], generated[5700], training[399_999], generated[4999] = 1, 2, 1, 2

    span = longest_copied_span(generated, training)

    assert span == (700, 5000, 400_000)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: bits_per_byte(1.0, 0), "num_bytes must be at least 1, got 0"),
        (lambda: bits_per_byte(math.nan, 4), "total_nats must be 0 or more, got nan"),
        (lambda: distinct_n("ab", 3), "tokens has 2 symbols, wanted at least 3"),
        (lambda: distinct_n("ab", 0), "n must be at least 1, got 0"),
        (lambda: distinct_n([[1, 2], [3, 4]], 1), "one sequence of integers"),
        (lambda: novel_ngram_share("abc", "", 2), "training has 0 symbols"),
        (lambda: longest_copied_span("", "abc"), "generated has 0 symbols"),
    ],
)
def test_bad_input_is_named(compute, message):
    with pytest.raises(ValueError, match=message):
        compute()
