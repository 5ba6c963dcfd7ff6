"""The course of a search: proposals, trials in their order, and what they say meanwhile."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from prefect import task

from models.presets import Preset
from models.training.config import FitConfig
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.families.family import Family
from tasks.runtime.messages import one_line
from tasks.runtime.progress import log
from tasks.runtime.retries import TRAINING
from tasks.search.halving import Pruning, Standing, halving_of
from tasks.search.outcome import Outcome
from tasks.search.records import (
    Proposed,
    SearchRecord,
    Stage,
    asked_parts,
    keep,
    known_outcome,
    outcomes_of,
    proposals_of,
    results_of,
    standings_of,
)
from tasks.search.runners import TrialRunner
from tasks.search.space import Space, plain_space
from tasks.search.study import Proposal, SamplerName, StudySpec, best_of, proposal_after
from tasks.search.trial import (
    TrialRequest,
    course_parts,
    key_of_run,
    request_of,
    tell_of_problem,
    trial_parts,
    value_in,
)
from tasks.store.files import BadInput, digest_of
from tasks.training.fit_store import TrainedModel
from tasks.training.plan import TrainingPlan

PlanFor = Callable[[dict[str, Any], int], TrainingPlan]
"""The training of some settings and a seed; raises BadInput where they contradict each other."""


def record_of_search(  # noqa: PLR0913 - each is part of what a search is
    family: Family,
    data: ImageSet | TokenSet,
    plan_for: PlanFor,
    *,
    space: Space,
    given: dict[str, Any],
    preset: Preset,
    seed: int,
    sampler: SamplerName = "tpe",
    prune: Pruning = "none",
    threads: int = 1,
    name: str | None = None,
    source: dict[str, Any] | None = None,
) -> SearchRecord:
    """What a search is, before it begins; name: none makes one of what it is.

    Raises BadInput for settings that contradict each other, and for too few steps to prune.
    """
    first = plan_for(given, seed)
    spec = StudySpec(
        space=plain_space(space),
        first={each: value_in(first, each) for each in space},
        seed=seed,
        sampler=sampler,
    )
    halving = halving_of(first.settings["training"].steps) if prune == "halving" else None
    parts = {
        **asked_parts(
            family=family.name,
            preset=preset,
            given=given,
            space=space,
            seed=seed,
            sampler=sampler,
            threads=threads,
        ),
        **{"batch_size": spec.batch_size, "first": spec.first, "optuna": spec.optuna},
        **({"halving": asdict(halving)} if halving else {}),
        **course_parts(first, data, family.likelihood),
    }
    model = f"{data.name}-{family.name}"
    return SearchRecord(
        name=name or f"{model}-{digest_of(parts)[:8]}",
        family=family.name,
        model=model,
        source=source or {},
        data_title=data.title if isinstance(data, ImageSet) else data.corpus.title,
        data_digest=data.digest,
        preset=preset,
        given=given,
        threads=threads,
        spec=spec,
        parts=parts,
        halving=halving,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenTrial:
    """A trial with one of its trainings, which has to be made or told of."""

    proposed: Proposed
    stage: int = 0

    @property
    def steps(self) -> int | None:
        """Of a training that ends at a rung; None of the whole one."""
        stages = self.proposed.stages
        return stages[self.stage].steps if self.stage < len(stages) - 1 else None


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

    def request(
        self, label: str, values: dict[str, Any], seed: int, steps: int | None = None
    ) -> TrialRequest:
        """A trial of some values; steps: of a training up to a rung. Raises BadInput."""
        return request_of(
            self._plan(values, seed, steps),
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

    def outcome_key(self, plan: TrainingPlan) -> str:
        """By what the outcome of such a trial is found."""
        parts = trial_parts(plan, self.data, self.judge, self.likelihood, self.search.threads)
        return digest_of(parts)

    def told_outcome(self, label: str, values: dict[str, Any], seed: int) -> Outcome | None:
        """What came of a trial whose nested run of this search has ended; raises BadInput."""
        if label not in self.told:
            return None
        return known_outcome(self.search.model, self.outcome_key(self._plan(values, seed, None)))

    def stages(self, values: dict[str, Any], seed: int) -> tuple[Stage, ...]:
        """The trainings of a trial, the whole one last; raises BadInput."""
        halving = self.search.halving
        lengths = [*halving.rungs, None] if halving else [None]
        found: list[Stage] = []
        kept = [0]  # the states from which longer ones go on
        for steps in lengths:
            plan = self._plan(values, seed, steps)
            all_steps = begun = 0
            if isinstance(training := plan.settings.get("training"), FitConfig):
                all_steps = training.steps
                begun = max(each for each in kept if each <= training.decay_start)
                kept += [training.decay_start] * (training.decay_start < all_steps)
            key = self.outcome_key(plan)
            found.append(Stage(steps=all_steps, new_steps=all_steps - begun, trial=key))
        return tuple(found)

    def request_of(self, trial: OpenTrial) -> TrialRequest:
        """What is to be made, or told, of a trial."""
        values, seed = values_of(trial.proposed.proposal), self.search.spec.seed
        return self.request(label_of(trial), values, seed, trial.steps)

    def _plan(self, values: dict[str, Any], seed: int, steps: int | None) -> TrainingPlan:
        rung = {} if steps is None else {f"{self.search.family}.training.steps": steps}
        return self.plan_for({**self.search.given, **values, **rung}, seed)


def label_of(trial: OpenTrial) -> str:
    """What a trial's training is called."""
    at = "" if trial.steps is None else f" at {trial.steps} steps"
    return f"trial {trial.proposed.number}{at}"


def values_of(proposal: Proposal) -> dict[str, Any]:
    """What is set for a trial: nothing for the present recipe, whose values its record names."""
    return proposal.values if proposal.number else {}


def open_trials(ground: Ground, trials: int) -> list[OpenTrial]:
    """The trials of the present batch that have to be tried, or told of in this search's runs.

    They are proposed if need be; of one that may be pruned it is its next training. None: all of so
    many trials are done.
    """
    search, size = ground.search, ground.search.spec.batch_size
    known = proposals_of(search)
    standing, outcomes = standings_of(search, known), outcomes_of(search, known)
    for first in range(0, trials, size):
        end = min(trials, first + size)
        if len(known) < end:
            while len(known) < end:
                before = [each.proposal for each in known]
                made = proposal_after(search.spec, before, results_of(outcomes))
                known.append(keep(search, _with_outcome(ground, made)))
            # Another search may know what came of them.
            standing, outcomes = standings_of(search, known), outcomes_of(search, known)
        for proposed in known[first:end]:
            _tell_of_problem(ground, proposed)
        of_batch = zip(known[first:end], standing[first:end], strict=True)
        waiting = [each for one, how in of_batch if (each := _open(ground, one, how)) is not None]
        if waiting:
            return waiting
    return []


def _open(ground: Ground, proposed: Proposed, how: Standing) -> OpenTrial | None:
    """Of a trial the first training to be made or told; None: it has to wait, or is over."""
    if proposed.problem:
        return None
    for reached in range(len(how.reached)):
        trial = OpenTrial(proposed=proposed, stage=reached)
        if label_of(trial) not in ground.told:
            return trial
    stage = how.next_stage
    return None if stage is None else OpenTrial(proposed=proposed, stage=stage)


def _tell_of_problem(ground: Ground, proposed: Proposed) -> None:
    """Let a trial whose settings contradict each other have a nested run, too, which failed."""
    label = f"trial {proposed.number}"
    if not proposed.problem or label in ground.told:
        return
    search, values = ground.search, values_of(proposed.proposal)
    tell_of_problem(
        *(search.name, label, values, proposed.problem),
        parent_run_id=ground.parent_run_id,
        run_key=key_of_run(search.key, label, values),
    )
    ground.told.add(label)


def _with_outcome(ground: Ground, proposal: Proposal) -> Proposed:
    """A proposal, and where its outcome will be; or how its settings contradict each other."""
    key = ground.search.key
    try:
        stages = ground.stages(values_of(proposal), ground.search.spec.seed)
    except BadInput as error:
        problem = one_line(error)
        log(f"trial {proposal.number}: failed: {problem}")
        return Proposed(search=key, proposal=proposal, trial="", problem=problem)
    return Proposed(
        search=key,
        proposal=proposal,
        trial=stages[-1].trial,
        stages=stages if ground.search.halving else (),
    )


@dataclass(kw_only=True)
class Scoreboard:
    """What a search says of itself as it goes: done, running, failed, best so far, time left."""

    search: SearchRecord
    trials: int
    workers: int
    is_of_trials: bool = True
    """Else of fresh seeds, for which how far the trials are says nothing."""
    ends_at: float | None = None
    """By time.monotonic(): when no further trial begins."""
    _running: int = 0
    _seconds: dict[str, float] = field(default_factory=dict)
    """Of each trial, by its label without the steps."""
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
            trial = label.partition(" at ")[0]
            self._seconds[trial] = self._seconds.get(trial, 0.0) + time.monotonic() - began
            if outcome is not None:
                log(f"{label}: {told(outcome)}" + (f"; {self.line()}" if self.is_of_trials else ""))

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
            seconds = sum(self._seconds.values()) / len(self._seconds) * left / self.workers
            if self.ends_at is not None:
                seconds = max(0.0, min(seconds, self.ends_at - time.monotonic()))
            parts.append(f"{seconds:.0f} s left")
        return ", ".join(parts)


def told(outcome: Outcome) -> str:
    """An outcome in a few words."""
    if outcome.state != "complete":
        return f"{outcome.state}: {outcome.reason}"
    return f"{outcome.value:.5g} {outcome.unit}"


@task(name="trial", task_run_name="{request.label}", **TRAINING)
def run_trial(request: TrialRequest, runner: TrialRunner, board: Scoreboard) -> Outcome:
    """Try out one setting where the runner does; a retry goes on from the checkpoint."""
    began, outcome = board.begins(), None
    try:
        outcome = runner.try_out(request)
    finally:
        board.ends(request.label, outcome, began)
    return outcome
