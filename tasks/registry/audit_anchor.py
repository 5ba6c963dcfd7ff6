"""The audit log and the registry, held against each other.

The registry keeps an anchor of each log: its length and the sha256 of its last line, in a tag of
the registered model, written after each line. So an altered last line, a cut-off end or another log
in its place shows, unless somebody changes both. A kill between the line and the anchor leaves the
log one line ahead, which the next reader settles. Several homes may write to one registry: each log
has an anchor of its own, named by the log's first line; homes that share a store have one log, and
one anchor of it, which each of them lets follow what all have written; one that set an older anchor
over a newer one sees that and sets it right. Another tag has the id of that store, so that a home
which has used none yet begins no log in a folder that is not mounted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.packaging.files import PackageUnknown
from tasks.registry import audit_history, audit_log
from tasks.registry.log_storage import is_shared, lines_of, store_id
from tasks.registry.version_tags import whole
from tasks.store.shared import StoreAway
from tasks.store.storage import STORE_VARIABLE
from tasks.tracking import registry_queries
from tasks.tracking.mlflow_client import client

ANCHOR_TAG = "audit_log."
STORE_TAG = "audit_store"
"""The tag with the id of the shared store in which the log lies, if it lies in one."""
MAX_LINES_OF_A_KILL = 1
"""How far a kill can leave a log ahead of its anchor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """What the registry knows of a log."""

    length: int
    head: str
    """sha256 of the line of that number."""


def append(model: str, kind: audit_log.Kind, **facts: Any) -> audit_log.Entry:
    """Add an entry to a model's log and anchor it; the caller holds the model's lock.

    Raises AuditLogDamaged where the log would begin, and the registry knows of another store.
    """
    if is_shared() and (what := _is_elsewhere(model, model_tags(model) or {})):
        raise audit_log.damaged(model, what)
    entry = audit_log.append(model, kind, **facts)
    anchor(model)
    return entry


def anchor(model: str, *, begins: bool = False) -> None:
    """Let the registry know how far a log has come, where it knows the model at all.

    An anchor only moves on: this home's copy of a log whose store is away, a log that lost its end,
    and one that was altered move none. begins: the log began anew, so it lies in the store of this
    home from now on; else the store that the registry knows stays what it is.
    """
    while True:
        found = audit_log.latest(model)
        tags = model_tags(model)
        if not found.entries or not found.is_current or tags is None:
            return
        _tell_the_store(model, tags, begins=begins)
        name, value = anchor_tag(found)
        if not _follows(found, anchors(tags).get(found.name)):
            return
        client().set_registered_model_tag(model, name, value)
        if not is_shared():
            return  # else another home's anchor may have come before: look whether all is anchored


def _tell_the_store(model: str, tags: Mapping[str, str], *, begins: bool) -> None:
    """Let the registry know in which store a log lies, unless it does."""
    there, here = tags.get(STORE_TAG, ""), store_id()  # none without a shared store
    if here and here != there and (begins or not there) and lines_of(model).is_begun():
        client().set_registered_model_tag(model, STORE_TAG, here)


def _follows(found: audit_log.Log, before: Anchor | None) -> bool:
    """Whether a log is longer than when it was anchored, and the same up to there."""
    if before is None or not before.length:
        return True
    is_longer = len(found.entries) > before.length
    return is_longer and found.heads[before.length - 1] == before.head


def anchor_tag(found: audit_log.Log) -> tuple[str, str]:
    """The tag of a log's anchor, and its value."""
    return f"{ANCHOR_TAG}{found.name}", f"{len(found.entries)} {found.heads[-1]}"


def model_tags(model: str) -> dict[str, str] | None:
    """The tags of a registered model; None where the registry has no such model."""
    found = registry_queries.model(model)
    return None if found is None else found.tags


def anchors(tags: Mapping[str, str]) -> dict[str, Anchor]:
    """All anchors of a registered model, by the name of their log."""
    found = {}
    for name, value in tags.items():
        if name.startswith(ANCHOR_TAG):
            length, _, head = value.partition(" ")
            found[name.removeprefix(ANCHOR_TAG)] = Anchor(length=whole(length) or 0, head=head)
    return found


def checked_log(model: str, *, anew: bool = False) -> audit_log.Log:
    """A model's log, once it agrees with its anchor; raises AuditLogDamaged where it does not.

    anew: believe no copy of a shared log, not even one that agrees. Raises StoreAway where the log
    is in a store that does not answer, and this home's copy lacks lines that are anchored.
    """
    tags = model_tags(model) or {}  # before the log, which may grow meanwhile
    known = anchors(tags)
    found = audit_log.latest(model, anew=True) if anew else audit_log.read(model)
    what = disagreement(found, known) or (found.is_current and _is_elsewhere(model, tags))
    if not found.is_current and known and (what or not found.entries):
        raise StoreAway(
            f"the shared store does not answer, and this home's copy of the audit log of {model}"
            f" ends at line {len(found.entries)}; wait until it answers"
        )
    if what and is_shared():
        found = audit_log.read_again(model)
        what = disagreement(found, known) or _is_elsewhere(model, tags)
    if what:
        raise audit_log.damaged(model, what)
    return found


def disagreement(found: audit_log.Log, known: Mapping[str, Anchor]) -> str:
    """What is wrong with a log according to its anchors, in words, or nothing.

    A log that is ahead of its anchor, or that has none, is not wrong: the registry may be older.
    """
    if not found.entries or not known:
        return ""
    mine, length = known.get(found.name), len(found.entries)
    if mine is None:
        lengths = ", ".join(str(each.length) for each in known.values())
        return (
            f"it is not the one that the registry is anchored to (of {lengths} lines): another took"
            " its place, or its first line was altered"
        )
    if mine.length > length:
        return (
            f"it has {length} lines, and the registry is anchored to line {mine.length}: its end"
            " was cut off"
        )
    if mine.length and found.heads[mine.length - 1] != mine.head:
        return f"line {mine.length}, or one before it, is not what was written: it was altered"
    return ""


def _is_elsewhere(model: str, tags: Mapping[str, str]) -> str:
    """That a shared store has nothing of a log that lies in another, in words, or nothing.

    Lines of this home's own, of before it shared a store, do not count. Raises StoreAway.
    """
    there, here = tags.get(STORE_TAG, ""), store_id()
    if not there or here == there or not is_shared() or lines_of(model).is_begun():
        return ""
    where = f"the store here, {here:.8}," if here else "the store here"
    return (
        f"the registry knows it in the store {there:.8}, and {where} has nothing of it: mount the"
        f" right one, or correct {STORE_VARIABLE}"
    )


def loss(found: audit_log.Log, tags: Mapping[str, str] | None) -> str:
    """What the registry has lost of what a log tells, in words, or nothing.

    tags: those of the registered model; None where the registry has no such model.
    """
    if tags is None:
        is_known = bool(audit_history.live_versions(found.entries))
        is_known = is_known or audit_history.champion_by(list(found.entries)) is not None
        return (
            "the registry has no such model any more: its database was lost or replaced, or the"
            " model was deleted in MLflow"
            if is_known
            else ""
        )
    mine = anchors(tags).get(found.name)
    ahead = found.num_anchored if mine is None else len(found.entries) - mine.length
    if ahead <= MAX_LINES_OF_A_KILL:
        return ""
    return (
        f"the registry does not know the last {ahead} lines of the audit log: its database was"
        " replaced by an older one, or by another"
    )


def note_loss(model: str, why: str, champion: int | None, remaining: Mapping[int, str]) -> None:
    """Write into the log what the registry has lost; nobody has left those versions by hand.

    remaining: the versions that the registry has, and the content digest of each.
    """
    entries = audit_log.entries_of(model)
    live = audit_history.live_versions(entries)
    gone = sorted(number for number, content in live.items() if remaining.get(number) != content)
    content = "" if champion is None else remaining.get(champion, "")
    append(
        model,
        "outside",
        action="lost",
        who="unknown",
        from_version=audit_history.champion_by(entries),
        to_version=champion,
        why=why,
        evidence={"gone": gone},
        digests={"content": content} if content else {},
    )


def note_gone(
    model: str, numbers: list[int], why: str, action: audit_log.Action = "discard"
) -> None:
    """Write into the log that versions were removed on purpose, so that nobody misses them.

    The caller holds the model's lock.
    """
    append(model, "repair", action=action, why=why, evidence={"gone": sorted(numbers)})


def note_lost_model(model: str) -> None:
    """Before a model is registered anew: what was registered under its name before is gone."""
    if model_tags(model) is None and (why := loss(audit_log.read(model), None)):
        note_loss(model, why, None, {})


def registered_package(model: str, number: int) -> audit_log.Entry:
    """The entry that tells what a version's package is; raises PackageUnknown, AuditLogDamaged."""
    entry = audit_history.registration_of(checked_log(model).entries, number)
    if entry is None:
        raise PackageUnknown(
            f"{model} version {number}: the audit log does not say what its package is, so nothing"
            " of it is loaded; it was registered before the log kept that, or elsewhere; `atelier"
            f" doctor --repair {model}=adopt` looks into its files and adopts it once"
        )
    return entry
