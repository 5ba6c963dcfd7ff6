"""What is told beside a main metric: numbers where it is stored, words where it is printed."""

import math

import pytest

from tasks.evaluation.result import (
    reference_words,
    references,
    references_told,
    with_present_names,
)
from tasks.evaluation.scorecard import with_baseline

METRICS = {
    "test_frechet_distance": 0.5,
    "real_data_frechet_distance": 0.17004,
    "real_data_recall": 0.9,
    "test_bits_per_dimension": 4.5,
}


def test_the_main_metrics_own_references_are_told_and_no_others() -> None:
    told = references("test_frechet_distance", METRICS)

    assert told == {"real_data_frechet_distance": 0.17004, "test_bits_per_dimension": 4.5}
    assert reference_words(told) == "real data: 0.1700, 4.500 bits per dimension"
    assert references("test_bits_per_byte", {"test_bits_per_byte": 1.0}) == {}
    assert reference_words({}) == ""


@pytest.mark.parametrize("real", [0.17, 12.5, math.inf, None])
@pytest.mark.parametrize("bits", [4.5, None])
def test_words_of_before_give_their_numbers_back(real: float | None, bits: float | None) -> None:
    numbers = {"real_data_frechet_distance": real, "test_bits_per_dimension": bits}
    told = {name: value for name, value in numbers.items() if value is not None}

    assert references_told("test_frechet_distance", reference_words(told)) == told


def test_metrics_of_versions_before_go_by_the_names_of_today() -> None:
    """They called what real data score `floor_`; a run that holds both has the later number."""
    before = {"floor_recall": 0.9, "test_recall": 0.5, "floor_frechet_distance": 0.3}

    assert with_present_names({**before, "real_data_frechet_distance": 0.2}) == {
        **{"real_data_recall": 0.9, "test_recall": 0.5},
        "real_data_frechet_distance": 0.2,
    }
    assert references("test_frechet_distance", before) == {"real_data_frechet_distance": 0.3}
    (row,) = with_baseline(before)
    assert (row.name, row.value, row.baseline) == ("test_recall", 0.5, 0.9)


def test_other_words_tell_no_numbers() -> None:
    assert references_told("test_frechet_distance", "nothing, or real data") == {}
    assert references_told("test_frechet_distance", "real data: soon") == {}
