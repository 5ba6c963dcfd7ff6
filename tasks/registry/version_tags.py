"""The tags of a registered version, read with care: a person or another program may change them."""

import math
import re
from typing import Any, TypeVar

from tasks.evaluation.result import references
from tasks.runtime.progress import log
from tasks.store.records import DamagedRecord, parsed

Kind = TypeVar("Kind")


def text_tag(version: Any, name: str) -> str:
    """A tag of a version of the registry; raises DamagedRecord where it is missing."""
    value = version.tags.get(name)
    if not value:
        raise DamagedRecord(f"{_of(version)}: its tag {name} is missing")
    return str(value)


def whole(text: str) -> int | None:
    """A whole number from 0 on that a tag or a command names; None for anything else.

    Of ASCII's digits, nine at most: Python takes some others for digits, and refuses a text of
    thousands.
    """
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def number_tag(version: Any, name: str) -> float:
    """A tag that holds a number; one that does not is named, and counts as unknown: NaN."""
    value = version.tags.get(name, "")
    try:
        return float(value)
    except ValueError:
        log(f"{_of(version)}: its tag {name} is no number: {value!r:.40}")
        return math.nan


def record_tag(version: Any, name: str, kind: type[Kind]) -> Kind:
    """A tag that holds a record as JSON (see `tasks.store.records`); raises DamagedRecord."""
    return parsed(text_tag(version, name), kind, f"{_of(version)}: its tag {name}")


def references_tag(version: Any) -> dict[str, float]:
    """The metrics that are told beside a version's main value (`tasks.evaluation.result`)."""
    if "metrics" not in version.tags:  # of a version of long ago
        return {}
    try:
        metrics: dict[str, float] = record_tag(version, "metrics", dict[str, float])
    except DamagedRecord as error:
        log(str(error))
        return {}
    return references(version.tags.get("main_metric", ""), metrics)


def _of(version: Any) -> str:
    return f"{version.name} version {version.version}"
