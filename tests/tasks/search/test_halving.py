"""Which trials are pruned: a function of records, however many workers, killed or not."""

import random
from typing import Any

import pytest

from tasks.families.table import FAMILIES
from tasks.search.halving import Halving, Standing, given_for_halving, halving_of, standings
from tasks.search.study import Result
from tasks.store.files import BadInput

TRIALS, BATCH = 18, 4


def losses_of(number: int) -> list[Result]:
    """Of a training that is measured three times; some diverge, and the order changes a little."""
    dice = random.Random(number)
    final = dice.random()
    if number % 7 == 6:
        return [Result(state="complete", value=final), Result(state="failed")]
    noisy = [final + 0.3 * dice.random() + 1, final + 0.1 * dice.random() + 0.5, final]
    return [Result(state="complete", value=value) for value in noisy]


def searched(trials: int, workers: int, seed: int | None = None) -> list[Standing]:
    """A whole search by so many workers; seed: of who ends first, and of kills in between."""
    dice = random.Random(seed)
    measured: list[list[Result | None]] = []
    while True:
        found = standings(measured)
        todo = [n for n, each in enumerate(found) if each.next_stage is not None]
        if not todo:
            assert not any(each.waits for each in found)
            if len(measured) == trials:
                return found
            measured += [[None] * 3 for _ in range(min(BATCH, trials - len(measured)))]
            continue
        chosen = todo[:workers] if seed is None else dice.sample(todo, min(workers, len(todo)))
        for number in chosen:
            if seed is not None and dice.random() < 0.3:
                continue  # killed in the middle: nothing is on record
            stage = found[number].next_stage
            assert stage is not None
            measured[number][stage] = losses_of(number)[stage]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_who_was_first_and_what_was_killed_changes_nothing(workers: int) -> None:
    whole = searched(TRIALS, 1)

    assert all(searched(TRIALS, workers, seed) == whole for seed in range(20))


@pytest.mark.parametrize("shorter", range(1, TRIALS))
def test_a_longer_search_begins_as_a_shorter_one(shorter: int) -> None:
    """Also where the shorter one ended within a batch."""
    assert searched(TRIALS, 2)[:shorter] == searched(shorter, 2)


def test_what_is_pruned_is_not_among_the_best_third_of_those_before_it() -> None:
    found = searched(TRIALS, 2)

    pruned = {n: each for n, each in enumerate(found) if each.place}
    assert len(pruned) >= TRIALS / 3
    assert {len(each.reached) for each in pruned.values()} == {1, 2}
    for number, each in enumerate(found):
        for rung, result in enumerate(each.reached[:2]):
            if result.value is None:
                continue
            values = [
                other.reached[rung].value
                for other in found[: number + 1]
                if len(other.reached) > rung and other.reached[rung].value is not None
            ]
            better = sum(value is not None and value < result.value for value in values)
            is_kept = number == 0 or better < len(values) / 3
            assert is_kept == (not each.place or len(each.reached) > rung + 1)


def test_the_present_recipe_is_never_pruned() -> None:
    bad = [Result(state="complete", value=9.0)] * 3
    good: list[Result | None] = [Result(state="complete", value=1.0), None, None]

    first, *others = standings([bad, good, good])

    assert (len(first.reached), first.is_over, first.place) == (3, True, 0)
    assert others[0].next_stage == 1
    assert (others[1].place, others[1].of) == (2, 3)  # of equals the earlier one is better


def test_a_trial_waits_for_those_of_smaller_numbers_only() -> None:
    value = Result(state="complete", value=0.5)
    nothing: list[Result | None] = [None, None, None]

    before, waiting, after = standings([nothing, [value, None, None], nothing])

    assert waiting.waits
    assert waiting.next_stage is None
    assert before.next_stage == after.next_stage == 0
    assert not standings([[value, None, None], [value, None, None], nothing])[1].waits


def test_a_failed_trial_is_over_and_compared_with_nobody() -> None:
    failed: list[Result | None] = [Result(state="failed"), None, None]
    value = Result(state="complete", value=0.5)

    found = standings([[value] * 3, failed, [value, None, None]])

    assert found[1] == Standing(reached=(Result(state="failed"),), is_over=True)
    assert (found[2].place, found[2].of) == (2, 2)


def test_rungs_are_a_ninth_and_a_third() -> None:
    assert halving_of(400) == Halving(rungs=(44, 133), steps=400)
    assert halving_of(9).rungs == (1, 3)
    with pytest.raises(BadInput, match="9 steps or more, got 8"):
        halving_of(8)


@pytest.mark.parametrize(
    ("family", "given", "vary", "said"),
    [
        ("ngram", {}, {}, "ngram has no steps of training"),
        ("vae", {"vae.training.schedule": "cosine"}, {}, "wants vae.training.schedule=wsd"),
        ("vae", {}, {"vae.training.schedule": "cosine,wsd"}, "which is varied"),
        ("gan", {}, {"gan.training.steps": "90,900"}, "which is varied"),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_one_line(
    family: str, given: dict[str, Any], vary: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        given_for_halving(FAMILIES[family], given, vary)

    assert "\n" not in str(refused.value)


def test_the_schedule_is_set_for_all_trials() -> None:
    given = given_for_halving(FAMILIES["vae"], {"vae.model.latent_size": 4}, {})

    assert given == {"vae.model.latent_size": 4, "vae.training.schedule": "wsd"}
