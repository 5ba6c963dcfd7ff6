"""The course of a search: proposals, trials in their order, and what they say meanwhile."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prefect import task

from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.runtime.messages import one_line
from tasks.runtime.progress import log, log_on_page
from tasks.runtime.retries import TRAINING
from tasks.search.outcome import Outcome
from tasks.search.records import (
    Proposed,
    SearchRecord,
    keep,
    outcome_of,
    outcomes_of,
    proposals_of,
    results_of,
)
from tasks.search.study import Proposal, best_of, proposal_after
from tasks.search.trial import TrialRequest, key_of_run, request_of, trial_parts
from tasks.search.workers import Workers
from tasks.store.files import BadInput, digest_of
from tasks.training.fit_store import TrainedModel
from tasks.training.plan import TrainingPlan

PlanFor = Callable[[dict[str, Any], int], TrainingPlan]
"""The training of some settings and a seed; raises BadInput where they contradict each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What all trials of a search have in common, beside its record."""

    search: SearchRecord
    data: ImageSet | TokenSet
    judge: TrainedModel | None
    likelihood: str
    plan_for: PlanFor
    parent_run_id: str
    told: set[str]
    """The labels of trials whose nested runs of this search have ended."""

    def request(self, label: str, values: dict[str, Any], seed: int) -> TrialRequest:
        """A trial of some values; raises BadInput."""
        return request_of(
            self.plan_for({**self.search.given, **values}, seed),
            self.data,
            judge=self.judge,
            search=self.search.name,
            label=label,
            given=values,
            likelihood=self.likelihood,
            threads=self.search.threads,
            parent_run_id=self.parent_run_id,
            run_key=key_of_run(self.search.key, label, values),
        )

    def outcome_key(self, values: dict[str, Any], seed: int) -> str:
        """By what the outcome of such a trial is found; raises BadInput."""
        plan = self.plan_for({**self.search.given, **values}, seed)
        parts = trial_parts(plan, self.data, self.judge, self.likelihood, self.search.threads)
        return digest_of(parts)

    def request_of(self, proposed: Proposed) -> TrialRequest:
        """The trial of a proposal without a problem."""
        return self.request(label_of(proposed), values_of(proposed.proposal), self.search.spec.seed)


def label_of(proposed: Proposed) -> str:
    """What a trial is called."""
    return f"trial {proposed.number}"


def values_of(proposal: Proposal) -> dict[str, Any]:
    """What is set for a trial: nothing for the present recipe, whose values its record names."""
    return proposal.values if proposal.number else {}


def open_trials(ground: Ground, trials: int) -> list[Proposed]:
    """The trials of the present batch that have to be tried, or told of in this search's runs.

    They are proposed if need be. None: all of so many trials are done.
    """
    search, size = ground.search, ground.search.spec.batch_size
    known, outcomes = proposals_of(search), outcomes_of(search)
    for first in range(0, trials, size):
        end = min(trials, first + size)
        while len(known) < end:
            before = [each.proposal for each in known]
            made = proposal_after(search.spec, before, results_of(outcomes))
            known.append(keep(search, _with_outcome(ground, made)))
        waiting = [each for each in known[first:end] if _is_open(ground, each)]
        if waiting:
            return waiting
        for each in known[first:end]:
            if (outcome := outcome_of(search, each)) is not None:
                outcomes[each.number] = outcome
    return []


def _is_open(ground: Ground, proposed: Proposed) -> bool:
    if proposed.problem:
        return False
    return outcome_of(ground.search, proposed) is None or label_of(proposed) not in ground.told


def _with_outcome(ground: Ground, proposal: Proposal) -> Proposed:
    """A proposal, and where its outcome will be; or how its settings contradict each other."""
    key, problem = "", ""
    try:
        key = ground.outcome_key(values_of(proposal), ground.search.spec.seed)
    except BadInput as error:
        problem = one_line(error)
        log(f"trial {proposal.number}: failed: {problem}")
    return Proposed(search=ground.search.key, proposal=proposal, trial=key, problem=problem)


@dataclass(kw_only=True)
class Scoreboard:
    """What a search says of itself as it goes: done, running, failed, best so far, time left."""

    search: SearchRecord
    trials: int
    workers: int
    ends_at: float | None = None
    """By time.monotonic(): when no further trial begins."""
    _running: int = 0
    _seconds: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_time_up(self) -> bool:
        """Whether no further trial may begin."""
        return self.ends_at is not None and time.monotonic() >= self.ends_at

    def begins(self) -> float:
        """A trial begins; returns when."""
        with self._lock:
            self._running += 1
        return time.monotonic()

    def ends(self, label: str, outcome: Outcome | None, began: float) -> None:
        """A trial ended, with an outcome or an error: say how far the search is."""
        with self._lock:
            self._running -= 1
            self._seconds.append(time.monotonic() - began)
            if outcome is not None:
                log_on_page(f"{label}: {told(outcome)}")
                log(f"{label}: {told(outcome)}; {self.line()}")

    def line(self) -> str:
        """How far the search is, in one line."""
        outcomes = outcomes_of(self.search)
        states = [each.state for each in outcomes.values()]
        parts = [f"{len(states)}/{self.trials} trials"]
        parts += [f"{self._running} running"] if self._running else []
        for state in ("failed", "pruned"):
            parts += [f"{count} {state}"] if (count := states.count(state)) else []
        if best := best_of(results_of(outcomes)):
            parts.append(f"best {outcomes[best[0]].value:.5g} (trial {best[0]})")
        left = self.trials - len(states)
        if left > 0 and self._seconds:
            seconds = sum(self._seconds) / len(self._seconds) * left / self.workers
            if self.ends_at is not None:
                seconds = max(0.0, min(seconds, self.ends_at - time.monotonic()))
            parts.append(f"{seconds:.0f} s left")
        return ", ".join(parts)


def told(outcome: Outcome) -> str:
    """An outcome in a few words."""
    if outcome.value is None:
        return f"{outcome.state}: {outcome.reason}"
    return f"{outcome.value:.5g} {outcome.unit}"


@task(name="trial", task_run_name="{request.label}", **TRAINING)
def run_trial(request: TrialRequest, workers: Workers, board: Scoreboard) -> Outcome:
    """Try out one setting in a worker's process; a retry goes on from the checkpoint."""
    began, outcome = board.begins(), None
    try:
        outcome = workers.try_out(request)
    finally:
        board.ends(request.label, outcome, began)
    return outcome
