"""What a number of processes asks of settings: shards, which they share evenly."""

import os
from collections.abc import Collection, Mapping
from typing import Any

from tasks.families.table import FAMILIES
from tasks.settings.catalogue import settings_of
from tasks.settings.values import Given
from tasks.store.files import BadInput

IMPLIED_SHARDS = 4
"""Where a person sets none: one, two or four processes then give the same weights."""


def with_shards(
    given: Mapping[str, Any], families: Collection[str], processes: int | None
) -> Given:
    """What a person set, and the shards that a number of processes implies where it says none.

    families: those that are trained. processes: None leaves all as it is; one implies shards, too,
    so that its weights are those of two. Raises BadInput, in one line, where none of the families
    can use them, where this machine has fewer cores, and where shards cannot be shared evenly.
    """
    if processes is None:
        return dict(given)
    names = [name for family in families if (name := shards_name(family))]
    if not names:
        raise BadInput(
            f"{processes} processes are asked for, and {', '.join(families)} is not trained by"
            " gradients, which they would share"
        )
    if processes > (cores := _usable_cores()):
        raise BadInput(
            f"{processes} processes are asked for, and this machine lets us use {cores} cores;"
            " more processes than cores only wait for each other"
        )
    merged = {**dict.fromkeys(names, IMPLIED_SHARDS), **given}
    for name in names:
        shards, batch = merged[name], name.replace(".shards", ".batch_size")
        if shards % processes:
            raise BadInput(
                f"{name} is {shards}, which {processes} processes cannot share evenly; set it to"
                f" a multiple of {processes}"
            )
        if merged.get(batch, shards) % shards:
            raise BadInput(
                f"{batch} is {merged[batch]}, which {name} = {shards} does not cut into equal"
                " parts; set it to a multiple"
            )
    return merged


def shards_name(family: str) -> str:
    """The full name of the setting that cuts a family's batches; empty where nothing does."""
    name = f"{family}.training.shards"
    return name if name in settings_of(FAMILIES[family]) else ""


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
