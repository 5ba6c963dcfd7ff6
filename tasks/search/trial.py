"""One trial: a keyed fit and its objective, made once for all searches, told in a run of its own.

A trial's outcome is an artifact, found by all that it depends on: the fit's key, the objective's
code, the judge, the number of threads. Its weights are the fit's and may be thrown away; the
outcome stays. Trials are tried in processes of their own (`tasks.search.workers`), and all that one
needs travels as JSON.
"""

import json
import os
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch

from models.training.loops import Diverged
from tasks.data.ingestion import ImageSet
from tasks.data.sources import Kind
from tasks.data.tokenization import TokenSet
from tasks.evaluation.images import judge_of
from tasks.evaluation.validation import Objective, measured_on_validation, objective_modules
from tasks.packaging.package import rebuilt_from
from tasks.runtime.messages import one_line
from tasks.search.outcome import Outcome
from tasks.store.artifacts import OpenArtifact, opened, step_of
from tasks.store.files import BadInput, ChecksumMismatch, digest_of
from tasks.store.fingerprint import cache_key_inputs
from tasks.store.records import DamagedRecord, shaped
from tasks.store.steps import history
from tasks.tracking.mlflow_client import (
    TrackingRefused,
    log_metrics,
    log_parameters,
    metric_history,
    run_metrics,
    set_tags,
)
from tasks.tracking.runs import task_run
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel, device_of, fit_parts, modules_of
from tasks.training.plan import TrainingPlan, data_from, feature_extractor_plan, kind_of, plan_from

POINTS_OF_A_CURVE = 100
_NOT_OF_THE_TRIAL = (BadInput, ChecksumMismatch, DamagedRecord, TrackingRefused)
"""Errors that are values' own, and tell of files and servers rather than of a setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRequest:
    """What is tried, as JSON can say it."""

    search: str
    label: str
    """Of the trial within its search: `trial 3`, or `seed 7` of the best setting."""
    given: dict[str, Any]
    """What differs from the recipe, by the full names of settings: for people."""
    kinds: dict[str, str]
    """`module:class` of each of the settings below."""
    plan: dict[str, Any]
    """A `TrainingPlan`, whose settings are plain."""
    data: dict[str, Any]
    """The receipt of an `ImageSet` or of a `TokenSet`."""
    data_kind: Kind
    judge: dict[str, Any] | None
    """The receipt of the feature extractor, where samples are compared."""
    likelihood: str
    threads: int
    parent_run_id: str
    run_key: str
    """By which the trial's MLflow run is found again."""


def request_of(
    plan: TrainingPlan,
    data: ImageSet | TokenSet,
    *,
    judge: TrainedModel | None,
    **told: Any,
) -> TrialRequest:
    """A trial of a plan; told: the fields that are neither plan nor data."""
    plain = {
        "plan": {**asdict(plan), "settings": plan.plain_settings()},
        "data": asdict(data),
        "judge": asdict(judge) if judge else None,
    }
    return TrialRequest(
        kinds=plan.kinds(),
        data_kind=kind_of(data),
        **json.loads(json.dumps(plain)),
        **told,
    )


def trial_parts(
    plan: TrainingPlan,
    data: ImageSet | TokenSet,
    judge: TrainedModel | None,
    likelihood: str,
    threads: int,
) -> dict[str, Any]:
    """All that a trial's outcome depends on."""
    looked_at = [data.digest, judge.digest if judge else ""]
    objective = cache_key_inputs(
        {"likelihood": likelihood}, looked_at, objective_modules(likelihood), "cpu"
    )
    return {**fit_parts(plan, data), "objective": objective, "threads": threads}


def course_parts(plan: TrainingPlan, data: ImageSet | TokenSet, likelihood: str) -> dict[str, Any]:
    """All that decides the outcomes of a search's trials beside their settings."""
    modules, device = [*modules_of(plan), *objective_modules(likelihood)], device_of(plan)
    if isinstance(data, ImageSet) and not likelihood:
        judge = feature_extractor_plan(data)
        modules += modules_of(judge)
        device += f"; judge: {device_of(judge)}"
    parts = cache_key_inputs({}, [data.digest], sorted(set(modules)), device)
    return {name: value for name, value in parts.items() if name != "settings"}


def value_in(plan: TrainingPlan, setting: str) -> Any:
    """The value of a setting, by its full name, in a training."""
    _, group, field_name = setting.split(".")
    return getattr(plan.settings[group], field_name)


def parts_of(request: TrialRequest) -> dict[str, Any]:
    """All that the outcome of a requested trial depends on, as this process sees it, as JSON."""
    plan, data, judge = _read(request)
    parts = trial_parts(plan, data, judge, request.likelihood, request.threads)
    made: dict[str, Any] = json.loads(json.dumps(parts))
    return made


def unfinished_tries(request: TrialRequest, parts: dict[str, Any]) -> list[str]:
    """The processes that began a trial before and did not end it, by the store's history."""
    step, key = step_of("trials", _name_of(request)), digest_of(parts)
    return [each.owner for each in history(step) if each.key == key and each.state == "killed"]


def _name_of(request: TrialRequest) -> str:
    """What the store calls the trials of a request's family and data."""
    plan, data, _ = _read(request)
    return f"{data.name}-{plan.family}"


def _read(
    request: TrialRequest,
) -> tuple[TrainingPlan, ImageSet | TokenSet, TrainedModel | None]:
    data = data_from(request.data, request.data_kind)
    judge = shaped(request.judge, TrainedModel, "a trial's judge") if request.judge else None
    return plan_from(request.plan, request.kinds), data, judge


def try_out(request: TrialRequest) -> Outcome:
    """Train and measure, unless that was done before; the trial's own MLflow run tells of it.

    A training that diverges, and settings that only the training finds to contradict the data, are
    outcomes; any other error is raised.
    """
    plan, data, judge = _read(request)
    parts = trial_parts(plan, data, judge, request.likelihood, request.threads)
    inputs = [data.digest, judge.digest if judge else ""]
    with opened("trials", _name_of(request), parts, inputs=inputs) as place:
        found = place.found(Outcome)
        known = shaped(found.record, Outcome, "a trial's outcome") if found else None
        return _told(request, plan, data, judge, place, known)


class _Failed(Exception):
    """A trial that failed, on its way out of the MLflow run, which is closed as failed."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


def _told(
    request: TrialRequest,
    plan: TrainingPlan,
    data: ImageSet | TokenSet,
    judge: TrainedModel | None,
    place: OpenArtifact,
    known: Outcome | None,
) -> Outcome:
    """The outcome, known or made now, and told in the trial's own run."""
    name = f"{request.search}, {request.label}"
    try:
        with task_run(
            name, request.run_key, request.parent_run_id, while_waiting=nullcontext
        ) as run:
            outcome = known or _made(request, plan, data, judge, run)
            if known is None:
                place.folder.mkdir(parents=True, exist_ok=True)
                place.commit(outcome, digest=digest_of({"trial": place.key, **asdict(outcome)}))
            _tell(run, request, plan, outcome)
            if outcome.state == "failed":
                raise _Failed(outcome)
    except _Failed as failed:
        outcome = failed.outcome
    return outcome


def _made(
    request: TrialRequest,
    plan: TrainingPlan,
    data: ImageSet | TokenSet,
    judge: TrainedModel | None,
    run_id: str,
) -> Outcome:
    try:
        fitted = fit_model.fn(data, plan, run_id)
        eyes = judge_of(judge) if judge else None
        subject = rebuilt_from(fitted)
        found = measured_on_validation(subject, data, eyes, likelihood=request.likelihood)
    except (Diverged, ValueError, torch.OutOfMemoryError) as error:
        if isinstance(error, _NOT_OF_THE_TRIAL):
            raise
        reason = f"{type(error).__name__}: {one_line(error)}"
        return Outcome(state="failed", value=None, reason=reason, run_id=run_id)
    name, curve = _curve(fitted.run_id, apart=found.name)
    return _outcome(fitted, found, name, curve)


def _outcome(
    fitted: TrainedModel, found: Objective, curve_name: str, curve: list[tuple[int, float]]
) -> Outcome:
    return Outcome(
        state="failed" if found.fault else "complete",
        value=None if found.fault else found.value,
        objective=found.name,
        unit=found.unit,
        reason=found.fault,
        seconds=fitted.seconds,
        fit=fitted.digest,
        run_id=fitted.run_id,
        curve_name=curve_name,
        curve=curve,
    )


def _curve(run_id: str, apart: str) -> tuple[str, list[tuple[int, float]]]:
    """What was measured on the validation split as training went on, or else a loss.

    apart: the objective's name, which an earlier trial of the same run may have left there.
    """
    names = sorted(name for name in run_metrics(run_id) if name != apart)
    validated = [name for name in names if name.startswith("validation_")]
    for name in (validated or [name for name in names if name.endswith("loss")])[-1:]:
        points = metric_history(run_id, name)
        every = max(1, len(points) // POINTS_OF_A_CURVE)
        return name, [*points[:-1:every], *points[-1:]]
    return "", []


def _tell(run_id: str, request: TrialRequest, plan: TrainingPlan, outcome: Outcome) -> None:
    """The trial on its run's page: settings, objective, and where the curves are."""
    log_parameters(run_id, plan.parameters())
    log_parameters(run_id, _varied(request.given))
    if outcome.value is not None:
        log_metrics(run_id, {outcome.objective: outcome.value, "objective": outcome.value})
    tags = _tags(request.search, request.label, outcome.reason)
    if outcome.run_id and outcome.run_id != run_id:
        tags["atelier.curves"] = outcome.run_id
    set_tags(run_id, tags)


def tell_of_problem(
    search: str,
    label: str,
    given: dict[str, Any],
    problem: str,
    *,
    parent_run_id: str,
    run_key: str,
) -> None:
    """Make the run of a trial that was not begun, since its settings contradict each other.

    It ends as failed, with the problem as its reason.
    """
    with (
        suppress(_Failed),
        task_run(f"{search}, {label}", run_key, parent_run_id, while_waiting=nullcontext) as run_id,
    ):
        log_parameters(run_id, _varied(given))
        set_tags(run_id, _tags(search, label, problem))
        raise _Failed(Outcome(state="failed", value=None, reason=problem))


def _varied(given: dict[str, Any]) -> dict[str, Any]:
    return {f"varied.{name}": value for name, value in given.items()}


def _tags(search: str, label: str, reason: str) -> dict[str, str]:
    reasons = {"atelier.reason": reason} if reason else {}
    return {"atelier.search": search, "atelier.trial": label, **reasons}


def key_of_run(search_key: str, label: str, values: dict[str, Any]) -> str:
    """The key of a trial's MLflow run: one for each trial of each search."""
    return digest_of({"search": search_key, "trial": label, "values": values})


def use_threads(number: int) -> None:
    """Let this process compute with so many threads: some models' bits depend on it."""
    os.environ["OMP_NUM_THREADS"] = str(number)
    torch.set_num_threads(number)
