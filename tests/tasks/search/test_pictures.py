"""The pictures of a search."""

from tasks.search.outcome import Outcome
from tasks.search.pictures import learning_curves


def ended(state: str, *curve: tuple[int, float]) -> Outcome:
    return Outcome(state=state, value=curve[-1][1], curve=curve, curve_name="validation_loss")


def test_a_trial_that_was_pruned_after_its_first_measurement_is_drawn_too() -> None:
    drawn = learning_curves(
        {
            0: ended("complete", (5, 3.0), (45, 1.0)),
            1: ended("pruned", (5, 4.0)),
            2: ended("pruned", (5, 3.5), (15, 3.0)),
        }
    )

    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 1
    assert "<title>trial 1</title></circle>" in drawn


def test_what_is_not_finite_is_no_point_of_a_curve() -> None:
    diverged = ended("failed", (5, 2.0), (10, float("nan")))

    drawn = learning_curves({0: ended("complete", (5, 3.0), (45, 1.0)), 1: diverged})

    assert "nan" not in drawn
    assert "<title>trial 1</title></circle>" in drawn


def test_without_a_line_there_is_no_picture() -> None:
    assert learning_curves({0: ended("complete", (45, 1.0)), 1: ended("pruned", (5, 1.0))}) == ""
