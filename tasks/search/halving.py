"""Successive halving: trials that are not among the best after a part of the training end there.

A trial is trained as far as the first rung, a ninth of its steps, then as far as the second, a
third, then to the end. At each rung it goes on if it is among the best third of the trials that
came as far (Jamieson and Talwalkar 2016; rungs as in ASHA, Li et al. 2020). ASHA compares with
whoever was faster; here a trial is compared with those of smaller numbers only, and waits for them.
So the answer is a function of the trials' records, whatever the number of workers, and a longer
search begins like a shorter one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tasks.families.family import Family
from tasks.search.study import Result
from tasks.settings.catalogue import settings_of
from tasks.store.files import BadInput

Pruning = Literal["none", "halving"]

ETA = 3
NUM_RUNGS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Halving:
    """After how many steps trials may end."""

    rungs: tuple[int, ...]
    steps: int
    """Of a whole training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How far one trial is."""

    reached: tuple[Result, ...]
    """What was measured after each of its trainings, the shortest first."""
    is_over: bool
    """Whether nothing of it is left to do: it failed, was pruned, or was trained to the end."""
    place: int = 0
    """At the rung where it was pruned, and 0 where it was not; 1 is the best."""
    of: int = 0
    """Among so many."""
    waits: bool = False
    """Whether trials of smaller numbers must come as far first."""

    @property
    def next_stage(self) -> int | None:
        """The index of the training that it needs now."""
        return None if self.is_over or self.waits else len(self.reached)


def halving_of(steps: int) -> Halving:
    """The rungs of trainings of so many steps; raises BadInput for too few."""
    fewest = ETA**NUM_RUNGS
    if steps < fewest:
        raise BadInput(f"pruning by halving wants trainings of {fewest} steps or more, got {steps}")
    rungs = tuple(steps // ETA**power for power in range(NUM_RUNGS, 0, -1))
    return Halving(rungs=rungs, steps=steps)


def given_for_halving(
    family: Family, given: Mapping[str, Any], vary: Mapping[str, Any]
) -> dict[str, Any]:
    """What is set, and the schedule by which a longer training goes on from a shorter one.

    Raises BadInput for a family without steps, and where steps or schedule are something else's.
    """
    schedule, steps = (f"{family.name}.training.{name}" for name in ("schedule", "steps"))
    if schedule not in settings_of(family):
        raise BadInput(f"{family.name} has no steps of training, so no trial of it can be pruned")
    for name in (schedule, steps):
        if name in vary:
            raise BadInput(f"pruning by halving decides on {name}, which is varied; do one of them")
    if given.get(schedule, "wsd") != "wsd":
        raise BadInput(f"pruning by halving wants {schedule}=wsd, got {given[schedule]!r}")
    return {**given, schedule: "wsd"}


def standings(
    measured: Sequence[Sequence[Result | None]], always: frozenset[int] = frozenset({0})
) -> list[Standing]:
    """How far each trial is, in the order of their numbers.

    measured: of each trial the results of its trainings, the shortest first and the whole one last,
    None where there is none yet. always: trials that are never pruned: the present recipe, with
    which all are compared.
    """
    found: list[Standing] = []
    pools: dict[int, list[float]] = {}
    settled = max(map(len, measured), default=0)
    """Below this rung all trials of smaller numbers have come, as far as they come at all."""
    for number, results in enumerate(measured):
        standing = _standing(results, pools, settled, is_kept=number in always)
        if not standing.is_over:
            settled = min(settled, len(standing.reached))
        found.append(standing)
    return found


def _standing(
    results: Sequence[Result | None],
    pools: dict[int, list[float]],
    settled: int,
    *,
    is_kept: bool,
) -> Standing:
    reached: list[Result] = []
    for rung, result in enumerate(results):
        if result is None:
            return Standing(reached=tuple(reached), is_over=False)
        reached.append(result)
        if result.value is None or rung == len(results) - 1:
            break
        pool = pools.setdefault(rung, [])
        pool.append(result.value)
        if is_kept:
            continue
        if rung >= settled:
            return Standing(reached=tuple(reached), is_over=False, waits=True)
        place = sum(value <= result.value for value in pool)  # of equals the earlier one is better
        if place > -(-len(pool) // ETA):
            return Standing(reached=tuple(reached), is_over=True, place=place, of=len(pool))
    return Standing(reached=tuple(reached), is_over=True)
