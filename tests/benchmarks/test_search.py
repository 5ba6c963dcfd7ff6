"""What the search's benchmark reads and counts."""

import pytest

from benchmarks.search import answer_of, is_end_of_trial, per_minute


@pytest.mark.parametrize(
    ("line", "is_end"),
    [
        ("22:32:22  trial 1: 23.652 nats per image; 1/6 trials, 1 running\n", True),
        ("22:32:22  trial 12: failed: Diverged: step 3\n", True),
        ("22:31:59  search first: 0/6 trials\n", False),
        ("22:33:04  seed 1: 23.289 nats per image\n", False),
        ("1      2                   23.268     vae.model.latent_size=8\n", False),
        ("place  trial               objective  settings\n", False),
    ],
)
def test_the_line_of_a_trial_is_known(line: str, is_end: bool) -> None:
    assert is_end_of_trial(line) is is_end


def test_a_rate_begins_at_the_end_of_the_first_trial() -> None:
    assert per_minute([100.0, 102.0, 106.0]) == pytest.approx(20.0)


def test_an_answer_is_all_but_times_and_names_of_runs() -> None:
    outcome = {"value": 1.5, "seconds": 2.0, "run_id": "a"}
    trial = {"number": 0, "values": {"x": 1}, "outcome": outcome}
    again = {**trial, "outcome": {**outcome, "seconds": 3.0, "run_id": "b"}}
    other = {**trial, "outcome": {**outcome, "value": 1.25}}

    assert answer_of([trial]) == answer_of([again])
    assert answer_of([trial]) != answer_of([other])
