"""The course of a search: the same whole study, wherever it was killed and gone on with."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows.search import _planned
from tasks.data.tokenization import TokenSet
from tasks.families.table import FAMILIES
from tasks.search import exploration, trial
from tasks.search.exploration import Ground, Scoreboard, label_of, open_trials, record_of_search
from tasks.search.records import (
    Finding,
    SearchRecord,
    begin,
    best_settings,
    kept_fits,
    outcomes_of,
    proposals_of,
    results_of,
)
from tasks.search.report import pages_of, publish_search, rows_of, told_labels
from tasks.search.space import space_for
from tasks.search.study import best_of
from tasks.search.trial import try_out
from tasks.store.artifacts import artifacts
from tasks.store.files import BadInput
from tasks.tracking.mlflow_client import nested_runs

ORDER, HELD_OUT = "ngram.model.order", "ngram.tuning.max_held_out"
VARY = {ORDER: "1..5"}
TRIALS = 11


class Killed(BaseException):
    """The process died here."""


@dataclass
class Searching:
    tokens: TokenSet
    run_id: str
    name: str = "orders"

    def ground(self) -> Ground:
        """As a new process makes it."""
        family = FAMILIES["ngram"]
        plan_for: Any = partial(_planned, family, self.tokens, "quick", 1)
        record = record_of_search(
            family,
            self.tokens,
            plan_for,
            space=space_for(family, VARY),
            given={},
            preset="quick",
            seed=0,
            name=self.name,
        )
        return Ground(
            search=begin(record),
            data=self.tokens,
            judge=None,
            likelihood="",
            plan_for=plan_for,
            parent_run_id=self.run_id,
            told=told_labels(self.run_id),
        )

    def go(self, trials: int = TRIALS, dice: random.Random | None = None) -> SearchRecord:
        """Search to the end; dice: trials of a batch are tried in any order."""
        ground = self.ground()
        while batch := open_trials(ground, trials):
            for each in dice.sample(batch, len(batch)) if dice else batch:
                try_out(ground.request_of(each))
                ground.told.add(label_of(each))
        return ground.search


def whole(search: SearchRecord) -> list[Any]:
    """The whole study but for what differs from run to run: times and ids of runs."""
    outcomes = outcomes_of(search)
    return [
        (each.proposal, replace(outcomes[each.number], seconds=0.0, run_id=""))
        for each in proposals_of(search)
    ]


@pytest.fixture
def searching(tokens: TokenSet, run_id: str) -> Searching:
    return Searching(tokens, run_id)


@pytest.mark.slow
def test_a_search_killed_at_random_points_is_the_unkilled_one(
    searching: Searching, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dice = random.Random(0)
    places: list[tuple[Any, str]] = [
        *((trial, name) for name in ("rebuilt_from", "measured_on_validation", "_tell", "_curve")),
        (exploration, "keep"),
        (exploration, "proposal_after"),
    ]
    kills = 0
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
    statuses = [status for _, status, _ in nested_runs(searching.run_id)]
    seen = whole(killed)
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "elsewhere"))

    unkilled = replace(searching, name="other").go()

    assert whole(unkilled) == seen
    assert len(seen) == TRIALS
    assert statuses == ["FINISHED"] * TRIALS


def dying(real: Callable[..., Any], after: int) -> Callable[..., Any]:
    left = [after]

    def call(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise Killed
        return real(*given, **named)

    return call


def test_the_first_trial_is_the_recipe_itself_and_a_longer_search_goes_on(
    searching: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = searching.go(trials=3)
    before = whole(short)

    longer = searching.go(trials=5)

    assert whole(longer)[:3] == before
    assert len(whole(longer)) == 5
    assert rows_of(longer)[-1][0] in ("5", "")
    _, best = best_settings("orders")
    winner = best_of(results_of(outcomes_of(longer)))[0]
    assert best == (proposals_of(longer)[winner].proposal.values if winner else {})
    assert kept_fits() <= {each.digest for each in artifacts("models")}
    assert 1 <= len(kept_fits()) <= 3


def test_pages_open_without_a_network(searching: Searching) -> None:
    search = searching.go(trials=6)

    pages = pages_of(search, "a summary of <b>words</b>")

    assert {"search.html", "history.svg", "parallel_coordinates.svg"} <= set(pages)
    for page in pages.values():
        assert "src=" not in page
        assert "href=" not in page
        assert "<script" not in page
    assert "&lt;b&gt;words" in pages["search.html"]


def test_progress_tells_done_best_and_time_left(searching: Searching) -> None:
    search = searching.go(trials=3)
    board = Scoreboard(search=search, trials=5, workers=1)

    began = board.begins()
    board.ends("trial 2", outcomes_of(search)[2], began)

    assert "3/5 trials" in board.line()
    assert "best " in board.line()
    assert "s left" in board.line()


def test_of_a_fresh_seed_its_outcome_alone_is_told(
    searching: Searching, caplog: pytest.LogCaptureFixture
) -> None:
    search = searching.go(trials=1)
    board = Scoreboard(search=search, trials=5, workers=1, is_of_trials=False)
    outcome = outcomes_of(search)[0]
    caplog.clear()

    board.ends("seed 1", outcome, board.begins())

    assert [record.message.rstrip() for record in caplog.records] == [
        f"seed 1: {outcome.value:.5g} {outcome.unit}"
    ]


def test_settings_that_contradict_each_other_are_a_failed_trial_with_the_reason(
    searching: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = searching.ground()
    real = ground.plan_for

    def contradicting(given: dict[str, Any], seed: int) -> Any:
        if given:
            raise BadInput("heads 3 do not divide the width 64")
        return real(given, seed)

    ground = replace(ground, plan_for=contradicting)
    (first,) = open_trials(ground, 4)
    try_out(ground.request_of(first))
    ground.told.add(label_of(first))

    assert open_trials(ground, 4) == []
    outcomes = outcomes_of(ground.search)
    assert [outcomes[n].state for n in range(4)] == ["complete", *["failed"] * 3]
    assert "do not divide" in outcomes[1].reason
    runs = {
        tags["atelier.trial"]: (status, tags)
        for _, status, tags in nested_runs(ground.parent_run_id)
    }
    assert [runs[f"trial {n}"][0] for n in range(4)] == ["FINISHED", *["FAILED"] * 3]
    assert "do not divide" in runs["trial 3"][1]["atelier.reason"]
    assert told_labels(ground.parent_run_id) == {f"trial {n}" for n in range(4)}
    assert open_trials(replace(ground, told={"trial 0"}), 4) == []
    assert len(nested_runs(ground.parent_run_id)) == 4


def test_a_fresh_seed_that_was_told_of_is_read_and_another_is_not(searching: Searching) -> None:
    ground = searching.ground()
    values = {ORDER: 2}
    outcome = try_out(ground.request("seed 1", values, 1))

    assert ground.told_outcome("seed 1", values, 1) is None  # its run may still be open

    ground = searching.ground()
    assert ground.told_outcome("seed 1", values, 1) == outcome
    assert ground.told_outcome("seed 2", values, 2) is None


def test_a_finished_search_is_told_again_in_the_same_words(searching: Searching) -> None:
    """Its record has another order of names when it is read again; MLflow compares texts."""
    search = searching.go(trials=1)
    finding = Finding(search=search.key, trials=1, best=0, decision="none")
    publish_search.fn(search, finding, searching.run_id)

    again = searching.ground().search

    assert again == search
    publish_search.fn(again, finding, searching.run_id)
