"""The tags of a registered version, read with care: a person or another program may change them.

A tag of its own has what people look for and filter by (data, preset, seed, main metric, gate,
parent) and what is searched for or compared with the audit log (`content_digest`,
`package_digest`). The other digests, and the main metric's interval, are one tag, `record`;
versions registered before have them as tags of their own, which are read still.
"""

import math
import re
from typing import Any, TypeVar

from tasks.runtime.progress import log
from tasks.store.records import DamagedRecord, parsed

Kind = TypeVar("Kind")

RECORD = "record"
"""The tag of digests and interval, as JSON."""
DIGESTS = ("samples", "code", "recipe", "data", "judge", "evaluation")
"""Those in it, by what they are digests of; before, `samples_digest` and so on were tags."""
_INTERVAL = ("main_low", "main_high")


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


def digest_tag(version: Any, of: str) -> str:
    """One of a version's DIGESTS, whichever tag has it; empty where none does."""
    return recorded_facts(version).get(f"{of}_digest", "")


def wanted_digest_tag(version: Any, of: str) -> str:
    """The same; raises DamagedRecord where no tag has it."""
    if not (found := digest_tag(version, of)):
        raise DamagedRecord(f"{_of(version)}: its tag {RECORD} has no {of}_digest")
    return found


def interval_tag(version: Any) -> tuple[float, float]:
    """The main metric's 95 % interval over the held-out items; NaN for what is not known."""
    told = recorded_facts(version)
    low, high = (_number(told.get(name, "")) for name in _INTERVAL)
    return low, high


def recorded_facts(version: Any) -> dict[str, str]:
    """A version's digests and interval as text, by what their tags were called before."""
    names = [*(f"{of}_digest" for of in DIGESTS), *_INTERVAL]
    found = {name: str(version.tags[name]) for name in names if version.tags.get(name)}
    if RECORD in version.tags:
        try:
            told: dict[str, str] = record_tag(version, RECORD, dict[str, str])
        except DamagedRecord as error:
            log(str(error))
            return found
        found |= told
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def references_tag(version: Any) -> dict[str, float]:
    """The metrics that are told beside a version's main value (`tasks.evaluation.result`)."""
    from tasks.evaluation.result import references

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
