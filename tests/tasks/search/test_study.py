"""What is proposed: the same, however a search was cut into processes, and whoever was first."""

import json
import math
import random
from dataclasses import asdict
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tasks.search.space import plain_space
from tasks.search.study import (
    Proposal,
    Result,
    SamplerName,
    StudySpec,
    best_of,
    importance_of,
    proposal_after,
    study_of,
)
from tasks.store.records import shaped

SPACE = {
    "f.training.rate": FloatDistribution(1e-4, 1e-1, log=True),
    "f.model.share": FloatDistribution(0.0, 1.0, step=0.1),
    "f.model.size": IntDistribution(4, 64, log=True),
    "f.model.kind": CategoricalDistribution(["a", "b", None]),
}
FIRST = {"f.training.rate": 1e-3, "f.model.share": 0.5, "f.model.size": 8, "f.model.kind": "b"}


def spec(
    sampler: SamplerName = "tpe", seed: int = 0, batch_size: int = 4, **first: Any
) -> StudySpec:
    return StudySpec(
        space=plain_space(SPACE),
        first={**FIRST, **first},
        seed=seed,
        sampler=sampler,
        batch_size=batch_size,
    )


def measured(proposal: Proposal) -> Result:
    """A function of what is tried, with a minimum, and a corner in which training diverges."""
    values = proposal.values
    if values["f.training.rate"] > 0.05:
        return Result(state="failed")
    loss = (math.log10(values["f.training.rate"]) + 2.5) ** 2 + abs(values["f.model.share"] - 0.3)
    loss += values["f.model.size"] / 100 + (values["f.model.kind"] == "a")
    return Result(state="complete", value=loss)


def searched(
    of: StudySpec, trials: int, workers: int = 1, chaos: int | None = None
) -> tuple[list[Proposal], dict[int, Result]]:
    """A whole search; chaos: a seed by which it is forgotten and read again, and ends shuffled."""
    dice = random.Random(chaos)
    proposals: list[Proposal] = []
    results: dict[int, Result] = {}
    while len(results) < trials:
        first_of_batch = len(results) - len(results) % of.batch_size
        while len(proposals) < min(trials, first_of_batch + of.batch_size):
            proposals.append(proposal_after(of, proposals, results))
            if chaos is not None and dice.random() < 0.5:  # some have ended, some are under way
                waiting = [each for each in proposals if each.number not in results]
                for each in dice.sample(waiting, dice.randint(0, min(workers, len(waiting)))):
                    results[each.number] = measured(each)
            if chaos is not None and dice.random() < 0.5:
                proposals, results = read_again(proposals), dict(results)
        for each in proposals:
            results.setdefault(each.number, measured(each))
    return proposals, results


def read_again(proposals: list[Proposal]) -> list[Proposal]:
    """As a new process finds them in its records."""
    written = json.loads(json.dumps([asdict(each) for each in proposals], sort_keys=True))
    return [shaped(each, Proposal, "a record") for each in written]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_search_that_was_killed_and_spread_proposes_what_an_unkilled_one_does(
    sampler: SamplerName, workers: int
) -> None:
    whole = searched(spec(sampler), 24)

    for chaos in range(3):
        assert searched(spec(sampler), 24, workers, chaos) == whole


def test_the_order_of_keys_in_a_record_changes_nothing() -> None:
    """Manifests are written with sorted keys: a new process reads another order."""
    written = json.dumps(asdict(spec()), sort_keys=True)
    again: StudySpec = shaped(json.loads(written), StudySpec, "a record")

    assert list(again.space) != list(spec().space)
    assert searched(again, 16) == searched(spec(), 16)


def test_a_longer_search_begins_as_a_shorter_one() -> None:
    """Also where the shorter one ended within a batch."""
    proposals, _ = searched(spec(), 22)

    assert searched(spec(), 18)[0] == proposals[:18]


def test_the_first_trial_is_the_present_recipe() -> None:
    first = proposal_after(spec(), [], {})

    assert first == Proposal(number=0, values=FIRST, params=FIRST)


def test_of_a_recipe_outside_the_space_the_sampler_learns_what_lies_within() -> None:
    of = spec(**{"f.model.size": 128, "f.model.kind": "c"})
    first = proposal_after(of, [], {})

    assert first.values["f.model.size"] == 128
    assert set(first.params) == {"f.training.rate", "f.model.share"}
    proposals, results = searched(of, 16)
    assert len(results) == 16
    assert proposals[0] == first


@pytest.mark.parametrize(
    "other",
    [spec(seed=1), spec("random"), spec(batch_size=3), spec(**{"f.model.share": 0.1})],
    ids=["seed", "sampler", "batch size", "recipe"],
)
def test_what_is_in_the_spec_decides_what_is_proposed(other: StudySpec) -> None:
    assert searched(spec(), 16)[0] != searched(other, 16)[0]


def test_a_trial_does_not_know_the_results_of_its_own_batch() -> None:
    proposals, results = searched(spec(), 12)
    of_batch = {number: Result(state="complete", value=-1e9) for number in (8, 9, 10)}

    assert proposal_after(spec(), proposals[:11], {**results, **of_batch}) == proposals[11]


def test_a_trial_needs_the_results_of_earlier_batches() -> None:
    proposals, results = searched(spec(), 12)
    del results[2]

    with pytest.raises(KeyError):
        proposal_after(spec(), proposals, results)


def test_the_sampler_learns() -> None:
    """The mean of what it proposes last is better than what chance proposes."""

    def mean_of_last(sampler: SamplerName) -> float:
        _, results = searched(spec(sampler), 40)
        values = [results[number].value for number in range(20, 40)]
        found = [value for value in values if value is not None]
        return sum(found) / len(found)

    assert mean_of_last("tpe") < 0.7 * mean_of_last("random")


def test_the_best_is_the_least_and_of_equals_the_earlier() -> None:
    results = {
        0: Result(state="complete", value=2.0),
        1: Result(state="failed"),
        2: Result(state="complete", value=1.0),
        3: Result(state="pruned", value=0.5),
        4: Result(state="complete", value=1.0),
    }

    assert best_of(results) == [2, 4, 0]
    assert best_of({}) == []


def test_what_matters_is_found_to_matter() -> None:
    proposals, _ = searched(spec("random"), 60)
    rates = {each.number: math.log10(each.values["f.training.rate"]) for each in proposals}
    results = {n: Result(state="complete", value=(rate + 2.5) ** 2) for n, rate in rates.items()}

    found = importance_of(spec("random"), proposals, results)

    assert set(found) == set(SPACE)
    assert max(found, key=lambda name: found[name]) == "f.training.rate"


def test_nothing_is_said_of_what_matters_after_a_few_trials() -> None:
    proposals, results = searched(spec(), 3)

    assert importance_of(spec(), proposals, results) == {}


def test_the_study_for_others_has_every_trial() -> None:
    proposals, results = searched(spec(), 16)
    del results[15]

    study = study_of(spec(), proposals, results)

    assert [trial.state.name for trial in study.trials].count("RUNNING") == 1
    assert study.best_trial.number == best_of(results)[0]
