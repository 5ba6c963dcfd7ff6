"""What is told beside a main metric: numbers where it is stored, words where it is printed."""

import math

import pytest

from tasks.evaluation.result import reference_words, references, references_told

METRICS = {
    "test_frechet_distance": 0.5,
    "floor_frechet_distance": 0.17004,
    "floor_recall": 0.9,
    "test_bits_per_dimension": 4.5,
}


def test_the_main_metrics_own_references_are_told_and_no_others() -> None:
    told = references("test_frechet_distance", METRICS)

    assert told == {"floor_frechet_distance": 0.17004, "test_bits_per_dimension": 4.5}
    assert reference_words(told) == "real data: 0.1700, 4.500 bits per dimension"
    assert references("test_bits_per_byte", {"test_bits_per_byte": 1.0}) == {}
    assert reference_words({}) == ""


@pytest.mark.parametrize("floor", [0.17, 12.5, math.inf, None])
@pytest.mark.parametrize("bits", [4.5, None])
def test_words_of_before_give_their_numbers_back(floor: float | None, bits: float | None) -> None:
    numbers = {"floor_frechet_distance": floor, "test_bits_per_dimension": bits}
    told = {name: value for name, value in numbers.items() if value is not None}

    assert references_told("test_frechet_distance", reference_words(told)) == told


def test_other_words_tell_no_numbers() -> None:
    assert references_told("test_frechet_distance", "nothing, or real data") == {}
    assert references_told("test_frechet_distance", "real data: soon") == {}
