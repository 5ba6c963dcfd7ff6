"""What a search is asked for, checked alike by the command line and by the flow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.presets import Preset
from tasks.families.family import Family
from tasks.search.halving import Pruning, given_for_halving
from tasks.search.records import asked_parts, check_name
from tasks.search.space import Space, space_for
from tasks.search.study import SamplerName
from tasks.store.files import BadInput
from tasks.store.names import checked_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is varied, and what all trials have set."""

    space: Space
    given: dict[str, Any]
    """By full names; what pruning needs is among it."""


def checked_search(  # noqa: PLR0913 - each is part of what a search is
    family: Family,
    vary: Mapping[str, Any],
    settings: dict[str, Any],
    *,
    prune: Pruning,
    name: str | None,
    preset: Preset,
    seed: int,
    sampler: SamplerName,
    threads: int,
) -> Asked:
    """What may be searched, as far as that is known before data are read.

    vary: specs by full names; settings: checked values. Raises BadInput, in one line, for specs and
    settings that cannot be, and for the name of another search.
    """
    space, given = space_for(family, vary), settings
    if prune == "halving":
        given = given_for_halving(family, settings, space)
    if both := sorted({*given} & {*space}):
        raise BadInput(f"{both[0]} is set to {given[both[0]]!r}, and varied; do one of them")
    if name is not None:
        asked = asked_parts(
            family=family.name,
            preset=preset,
            given=given,
            space=space,
            seed=seed,
            sampler=sampler,
            threads=threads,
        )
        check_name(checked_name("search", name), asked)
    return Asked(space=space, given=given)
