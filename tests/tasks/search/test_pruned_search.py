"""A search that prunes: the same study however it was killed, what it saved, and what is told."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows.search import _planned
from tasks.data.ingestion import ImageSet
from tasks.families.table import FAMILIES
from tasks.search import exploration, trial
from tasks.search.exploration import Ground, Scoreboard, label_of, open_trials, record_of_search
from tasks.search.halving import given_for_halving
from tasks.search.outcome import Outcome
from tasks.search.pictures import history
from tasks.search.records import (
    Finding,
    SearchRecord,
    begin,
    outcomes_of,
    proposals_of,
    results_of,
    steps_of,
)
from tasks.search.report import close_pruned_runs, rows_of, summary_of, told_labels
from tasks.search.space import space_for
from tasks.search.study import best_of, study_of
from tasks.search.trial import try_out
from tasks.store.artifacts import artifacts
from tasks.store.files import home, remove
from tasks.tracking.mlflow_client import nested_runs

RATE = "vae.training.learning_rate"
TRIALS, STEPS = 11, 90


class Killed(BaseException):
    """The process died here."""


def faked(_request: Any, plan: Any, *_: Any) -> Outcome:
    """Of a training: less is better, more steps are, and one corner diverges."""
    training = plan.settings["training"]
    if training.learning_rate > 5e-3:
        return Outcome(state="failed", value=None, reason="Diverged: the loss is nan")
    value = abs(training.learning_rate - 2e-3) * 100 + 1 / training.steps
    curve = [(step, value) for step in range(1, training.steps + 1, 5)]
    named: Any = {"objective": "validation_loss", "curve": curve, "curve_name": "loss"}
    return Outcome(state="complete", value=value, **named)


@dataclass
class Searching:
    images: ImageSet
    run_id: str
    name: str = "rates"
    steps: int = STEPS
    given: tuple[tuple[str, Any], ...] = ()

    def ground(self) -> Ground:
        """As a new process makes it."""
        family = FAMILIES["vae"]
        given = given_for_halving(family, dict(self.given), {})
        given["vae.training.steps"] = self.steps
        plan_for: Any = partial(_planned, family, self.images, "quick", 1)
        record = record_of_search(
            family,
            self.images,
            plan_for,
            space=space_for(family, {RATE: "log:1e-4..1e-2"}),
            given=given,
            preset="quick",
            seed=0,
            prune="halving",
            name=self.name,
        )
        return Ground(
            search=begin(record),
            data=self.images,
            judge=None,
            likelihood=family.likelihood,
            plan_for=plan_for,
            parent_run_id=self.run_id,
            told=told_labels(self.run_id),
        )

    def go(self, trials: int = TRIALS, dice: random.Random | None = None) -> SearchRecord:
        """Search to the end; dice: some trials of a batch are tried, in any order, and looked up.

        As several workers do it that are forgotten in between.
        """
        ground = self.ground()
        while batch := open_trials(ground, trials):
            chosen = dice.sample(batch, dice.randint(1, len(batch))) if dice else batch
            for each in chosen:
                try_out(ground.request_of(each))
                ground.told.add(label_of(each))
            close_pruned_runs.fn(ground.search, self.run_id)
        return ground.search


@pytest.fixture
def searching(images: ImageSet, run_id: str, monkeypatch: pytest.MonkeyPatch) -> Searching:
    monkeypatch.setattr(trial, "_made", faked)
    return Searching(images, run_id)


def whole(search: SearchRecord) -> list[Any]:
    """The whole study."""
    outcomes = outcomes_of(search)
    return [(each.proposal, outcomes[each.number]) for each in proposals_of(search)]


def test_a_search_killed_at_random_points_prunes_what_an_unkilled_one_does(
    searching: Searching, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dice, kills = random.Random(0), 0
    places: list[tuple[Any, str]] = [
        *((trial, name) for name in ("_made", "_tell")),
        *((exploration, name) for name in ("keep", "proposal_after", "standings_of")),
    ]
    for _ in range(200):
        module, name = dice.choice(places)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, dying(getattr(module, name), dice.randint(1, 3)))
            try:
                killed = searching.go(dice=dice)
                break
            except Killed:
                kills += 1
    assert kills >= 4
    statuses = {tags["atelier.trial"]: status for _, status, tags in nested_runs(searching.run_id)}
    seen, steps = whole(killed), steps_of(killed)
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "elsewhere"))

    unkilled = replace(searching, name="other").go()

    assert whole(unkilled) == seen
    assert steps_of(unkilled) == steps
    states = [outcome.state for _, outcome in seen]
    assert set(states) == {"complete", "pruned", "failed"}
    ends = {label: status for label, status in statuses.items() if status != "FINISHED"}
    for number, (_, outcome) in enumerate(seen):
        if outcome.state == "pruned":
            assert ends.pop(f"trial {number} at {[*outcome.rungs][-1]} steps") == "KILLED"
    assert list(ends.values()) == ["FAILED"] * states.count("failed")


def dying(real: Callable[..., Any], after: int) -> Callable[..., Any]:
    left = [after]

    def call(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise Killed
        return real(*given, **named)

    return call


def test_pruned_trials_are_told_to_the_study_and_in_words(searching: Searching) -> None:
    search = searching.go()

    outcomes = outcomes_of(search)
    pruned = {n: each for n, each in outcomes.items() if each.state == "pruned"}
    results = results_of(outcomes)
    assert pruned
    assert not set(pruned) & set(best_of(results))
    told = study_of(search.spec, [each.proposal for each in proposals_of(search)], results).trials
    for number, outcome in pruned.items():
        assert told[number].state.name == "PRUNED"
        values = {int(at): value for at, value in outcome.rungs.items()}
        assert told[number].intermediate_values == values
        assert outcome.value == values[max(values)]
        assert outcome.curve[-1][0] <= max(values)
        assert f"trial {number}: pruned" in history(results)
    rows = {row[1]: row for row in rows_of(search)}
    number, outcome = next(iter(pruned.items()))
    assert rows[str(number)][0] == ""
    assert "of 90 steps" in rows[str(number)][2]
    said = Scoreboard(search=search, trials=TRIALS, workers=1).line()
    assert f"{len(pruned)} pruned" in said
    summary = summary_of(search, Finding(search=search.key, trials=TRIALS, best=None))
    assert f", {len(pruned)} pruned; " in summary
    assert "without pruning" in summary


def test_what_was_saved_is_counted_in_steps_that_were_not_trained(searching: Searching) -> None:
    """A longer training goes on from the state before the decay of the shorter one."""
    search = searching.go()

    found = steps_of(search)

    outcomes = outcomes_of(search).values()
    first, second, third = 10, 30 - 8, 90 - 24
    by_rungs = {1: first, 2: first + second}
    wanted = sum(
        first + second + third if each.state == "complete" else by_rungs[len(each.rungs)]
        for each in outcomes
        if each.state != "failed"
    )
    ended = sum(each.state != "failed" for each in outcomes)
    assert found == (wanted, ended * STEPS)
    assert wanted < 0.7 * ended * STEPS


def test_a_longer_search_goes_on_with_what_was_pruned(searching: Searching) -> None:
    before = whole(searching.go(trials=6))

    longer = searching.go()

    assert whole(longer)[:6] == before
    assert len(whole(longer)) == TRIALS


def test_another_search_finds_all_trainings_again(
    searching: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = whole(searching.go())

    def again(*_: Any) -> Outcome:
        raise AssertionError("tried again")

    monkeypatch.setattr(trial, "_made", again)

    assert whole(replace(searching, name="other").go()) == first


@pytest.mark.slow
def test_a_survivor_goes_on_where_it_was_held_and_ends_as_if_trained_at_once(
    images: ImageSet, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    small = {"model.latent_size": 2, "model.base_width": 4, "model.hidden_size": 8}
    given = {f"vae.{name}": value for name, value in {**small, "training.batch_size": 8}.items()}
    searching = Searching(images, run_id, given=tuple(given.items()))
    caplog.set_level("INFO", logger="atelier")

    search = searching.go(trials=1)

    (outcome,) = outcomes_of(search).values()
    assert outcome.state == "complete"
    assert [*outcome.rungs] == ["10", "30"]
    told = [record.getMessage() for record in caplog.records]
    resumed = [line.partition("resumed at step ")[2] for line in told if "resumed at" in line]
    assert resumed == ["8", "24"]
    assert sorted(each.record["step"] for each in artifacts("stable-phases")) == [8, 24, 72]
    steps = [step for step, _ in outcome.curve]
    assert steps == sorted(set(steps))
    assert steps_of(search) == (10 + 22 + 66, 90)
    for kind in ("models", "stable-phases", "trials"):
        remove(home() / "artifacts" / kind)
    at_once = try_out(searching.ground().request("at once", {}, 0))
    assert (at_once.fit, at_once.value) == (outcome.fit, outcome.value)
