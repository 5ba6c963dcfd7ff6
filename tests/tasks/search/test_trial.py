"""One trial: tried once for all searches, told in each one's own MLflow run."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from models.training.loops import Diverged
from tasks.data.ingestion import ImageSet
from tasks.search import trial
from tasks.search.outcome import Outcome
from tasks.search.trial import TrialRequest, try_out
from tasks.store.artifacts import artifacts
from tasks.store.records import DamagedRecord, shaped
from tasks.tracking.mlflow_client import client
from tasks.training.plan import plan_from

Ask = Callable[..., TrialRequest]


def no_fit(patch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any) -> None:
        raise error

    patch.setattr(trial.fit_model, "fn", fail)


def runs_of(parent: str) -> dict[str, Any]:
    """The nested runs, by name."""
    found = client().search_runs(
        [client().get_run(parent).info.experiment_id], f"tags.mlflow.parentRunId = '{parent}'"
    )
    return {run.info.run_name: run for run in found}


def test_a_trial_travels_as_json(ask: Ask) -> None:
    request = ask()

    again = shaped(json.loads(json.dumps(asdict(request))), TrialRequest, "a request")

    assert again == request
    assert plan_from(again.plan, again.kinds).settings["model"].order == 3


def test_a_trial_has_a_nested_run_with_its_settings_and_its_objective(
    ask: Ask, run_id: str
) -> None:
    outcome = try_out(ask())

    assert outcome.state == "complete"
    assert outcome.objective == "validation_bits_per_byte"
    assert outcome.value is not None and 0 < outcome.value < 8
    run = runs_of(run_id)["first, trial 0"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["validation_bits_per_byte"] == outcome.value
    assert run.data.params["varied.order"] == "3"
    assert run.data.params["ngram.model.order"] == "3"


def test_the_same_point_costs_nothing_twice_also_in_another_search(
    ask: Ask, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = try_out(ask())
    no_fit(monkeypatch, AssertionError("trained again"))

    again = [try_out(ask("first", 5)), try_out(ask("second"))]

    assert again == [first, first]
    assert len(list(artifacts("trials"))) == 1
    assert {run.info.status for run in runs_of(run_id).values()} == {"FINISHED"}
    assert set(runs_of(run_id)) == {"first, trial 0", "first, trial 5", "second, trial 0"}


def test_another_point_or_another_number_of_threads_is_another_trial(ask: Ask) -> None:
    for each in (ask(), ask(number=1, order=4), replace(ask(number=2), threads=2)):
        try_out(each)

    assert len(list(artifacts("trials"))) == 3


@pytest.mark.parametrize(
    "error", [Diverged("the loss is nan at step 3"), ValueError("order 9 is above the text's 5")]
)
def test_what_the_settings_bring_about_is_an_outcome(
    ask: Ask, run_id: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    no_fit(monkeypatch, error)

    outcome = try_out(ask())

    assert (outcome.state, outcome.value) == ("failed", None)
    assert str(error) in outcome.reason
    run = runs_of(run_id)["first, trial 0"]
    assert run.info.status == "FAILED"
    assert str(error) in run.data.tags["atelier.reason"]
    no_fit(monkeypatch, AssertionError("tried again"))
    assert try_out(ask("second")) == outcome


@pytest.mark.parametrize("error", [DamagedRecord("a file"), ConnectionError("a server")])
def test_what_files_and_servers_bring_about_is_none(
    ask: Ask, run_id: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as patch:
        no_fit(patch, error)
        with pytest.raises(type(error)):
            try_out(ask())

    assert list(artifacts("trials")) == []
    assert try_out(ask()).state == "complete"
    assert len(runs_of(run_id)) == 1


def test_an_objective_that_is_no_number_is_a_failure(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = trial.Objective(name="validation_bits_per_byte", value=float("nan"), unit="bits")
    monkeypatch.setattr(trial, "measured_on_validation", lambda *_, **__: nan)

    outcome = try_out(ask())

    assert (outcome.state, outcome.value) == ("failed", None)
    assert "nan" in outcome.reason


def test_a_training_leaves_its_curve_with_the_outcome(
    images: ImageSet, run_id: str, request_for: Ask
) -> None:
    outcome = try_out(
        request_for(images, "vae", run_id, steps=40, warmup_steps=2, kl_warmup_steps=2)
    )

    assert outcome.curve_name.startswith("validation_")
    steps = [step for step, _ in outcome.curve]
    assert steps == sorted(steps)
    assert steps[-1] == 40


def test_a_damaged_outcome_is_made_again(ask: Ask) -> None:
    first = try_out(ask())
    (kept,) = artifacts("trials")
    Path(kept.folder / "manifest.json").write_text("{")

    assert try_out(ask()) == first


def test_outcomes_are_read_as_they_were_written() -> None:
    outcome = Outcome(state="complete", value=0.1, curve=[(1, 0.5), (2, 0.25)])

    assert shaped(json.loads(json.dumps(asdict(outcome))), Outcome, "x") == outcome
