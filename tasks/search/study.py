"""What is tried next: a pure function of what a search is, and of the trials so far.

Optuna proposes, and remembers nothing: its study is built anew for each proposal from records, and
its sampler is seeded by (seed, number). Proposals come in batches of a fixed size, which is part of
the search and not the number of its workers: a trial knows the results of earlier batches, and of
its own batch only what is tried. So one worker or four, stopped and gone on with or not, propose
the same trials.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from tasks.search.space import holds, space_of

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of each study that is built

SamplerName = Literal["tpe", "random"]
TrialEnd = Literal["complete", "pruned", "failed"]

BATCH_SIZE = 4
RANDOM_TRIALS = 10
"""How many trials are random before the Tree-structured Parzen Estimator has enough to go by."""

MIN_TRIALS_THAT_TELL = 4
"""Of different values: below that nothing is said of what matters."""

_STATES = {
    "": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySpec:
    """All that decides what is proposed, beside the trials' results."""

    space: dict[str, Any]
    """What is varied, as JSON (see `tasks.search.space.plain_space`)."""
    first: dict[str, Any]
    """The present recipe's values of what is varied: trial 0."""
    seed: int
    sampler: SamplerName
    batch_size: int = BATCH_SIZE
    optuna: str = field(default_factory=lambda: version("optuna"))
    """The version of Optuna, which decides what a seed proposes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A trial before it is tried."""

    number: int
    values: dict[str, Any]
    """What is tried, by the full names of settings."""
    params: dict[str, Any]
    """The same, as far as it lies within the space: what the sampler learns from."""
    system_attrs: dict[str, Any] = field(default_factory=dict)
    """What the sampler noted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How a trial ended."""

    state: TrialEnd
    value: float | None = None
    """The objective, of which less is better; of a failed trial none."""
    rungs: dict[str, float] = field(default_factory=dict)
    """What was measured on the way, by the number of steps."""


def proposal_after(
    spec: StudySpec, proposals: Sequence[Proposal], results: Mapping[int, Result]
) -> Proposal:
    """The next trial, after all earlier ones were proposed.

    results: by number; what the trial must not know is not looked at. Raises KeyError where an
    earlier batch lacks a result.
    """
    number = len(proposals)
    space = space_of(spec.space)
    if number == 0:
        known = {name: value for name, value in spec.first.items() if holds(space[name], value)}
        return Proposal(number=0, values=dict(spec.first), params=known)
    first_of_batch = number - number % spec.batch_size
    study = optuna.create_study(
        study_name="search", direction="minimize", sampler=_sampler(spec, number)
    )
    for each in proposals:
        result = results[each.number] if each.number < first_of_batch else None
        study.add_trial(_frozen(each, result, space))
    trial = study.ask(space)
    noted = study.get_trials(deepcopy=False)[number].system_attrs
    return Proposal(
        number=number,
        values=dict(trial.params),
        params=dict(trial.params),
        system_attrs=dict(noted),
    )


def best_of(results: Mapping[int, Result]) -> list[int]:
    """The numbers of complete trials, the best first; of equals the earlier one."""
    found = [(each.value, number) for number, each in results.items() if each.state == "complete"]
    return [number for value, number in sorted(found) if value is not None]


def study_of(
    spec: StudySpec, proposals: Sequence[Proposal], results: Mapping[int, Result]
) -> optuna.Study:
    """The whole study, with all results, for whoever looks at it."""
    space = space_of(spec.space)
    study = optuna.create_study(study_name="search", direction="minimize")
    for each in proposals:
        study.add_trial(_frozen(each, results.get(each.number), space))
    return study


def importance_of(
    spec: StudySpec, proposals: Sequence[Proposal], results: Mapping[int, Result]
) -> dict[str, float]:
    """How much of the objective's variance each setting explains (PED-ANOVA), the largest first.

    Of what only part of the complete trials has, as trial 0 outside the space, those trials tell
    nothing. Empty where too few trials are complete, or all are equally good.
    """
    told = [
        each
        for each in proposals
        if set(each.params) == set(spec.space) and _is_complete(results.get(each.number))
    ]
    if len({results[each.number].value for each in told}) < MIN_TRIALS_THAT_TELL:
        return {}
    study = study_of(spec, told, results)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _is_complete(result: Result | None) -> bool:
    return result is not None and result.state == "complete"


def _sampler(spec: StudySpec, number: int) -> BaseSampler:
    seed = zlib.crc32(f"{spec.seed}:{number}".encode())
    if spec.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS, constant_liar=True)


def _frozen(proposal: Proposal, result: Result | None, space: Mapping[str, Any]) -> FrozenTrial:
    """A trial as Optuna takes it; without a result it counts as being tried."""
    return create_trial(
        state=_STATES[result.state if result else ""],
        value=result.value if result and result.state != "failed" else None,
        params={name: proposal.params[name] for name in sorted(proposal.params)},
        distributions={name: space[name] for name in sorted(proposal.params)},
        intermediate_values={int(at): value for at, value in result.rungs.items()}
        if result
        else {},
        system_attrs=proposal.system_attrs,
    )
