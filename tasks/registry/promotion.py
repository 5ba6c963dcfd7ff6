"""Who is champion: every move of an alias, written in the audit log before and after.

A move is intent, alias, done: a kill between them leaves the registry as it was or as it should
be, and `reconcile` finds out which. Between homes that share a store the intent decides, for only
one of two can be the next line: the other reads it and decides again. A move that another home does
not finish in time is finished by whoever comes next.

Moving an alias emits a Prefect event, on which automations can wait: `atelier.model.promoted`,
`atelier.model.refused`, `atelier.model.stalled`.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.families.table import FAMILIES
from tasks.packaging.load_check import LoadCheckFailed, SamplesDiffer, check_loads
from tasks.registry import audit_anchor, audit_history, audit_log
from tasks.registry.log_storage import is_shared, known_models, registry_lock
from tasks.registry.verification import verified_copy
from tasks.registry.version_tags import (
    digest_tag,
    interval_tag,
    number_tag,
    text_tag,
    wanted_digest_tag,
    whole,
)
from tasks.registry.versions import (
    CHALLENGER,
    CHAMPION,
    Version,
    champion_of,
    contents_of,
    get_version,
    project_models,
    tags_of,
    versions_of,
)
from tasks.runtime.progress import log
from tasks.runtime.suggestions import did_you_mean
from tasks.store.files import BadInput
from tasks.store.names import checked_name
from tasks.store.retention import refusals_before_alert
from tasks.tracking.home_database import RegisteredVersion
from tasks.tracking.mlflow_client import client, outages_named

if TYPE_CHECKING:  # history and gc need neither Prefect nor what judges
    from tasks.evaluation.scorecard import PromotionDecision

PROMOTED, REFUSED, STALLED = (f"atelier.model.{w}" for w in ("promoted", "refused", "stalled"))
"""The events; stalled: so many versions in a row were refused that a person should look."""

Result = TypeVar("Result")

_DIGESTS = ("data", "code", "judge", "recipe")


def carry_out(version: Version, verdict: "PromotionDecision") -> Version | None:
    """Make an accepted version champion, a refused one challenger, and write it in the audit log.

    Returns None, and moves nothing, where the champion is no longer the one that the verdict
    accepts the version against: another run or a person was faster, so it must be judged again.
    """
    name = checked_name("model", version.name)

    def decide() -> str | None:
        reconcile(name)
        target = get_version(name, version.version)
        if target is None:
            raise LookupError(f"{name} has no complete version {version.version}")
        champion = champion_of(name)
        if champion is not None and champion.version == target.version:
            log(f"{name}: version {version.version} is the champion already")
            return CHAMPION
        now = None if champion is None else champion.version
        if verdict.accepted and now != verdict.champion_version:
            was = verdict.champion_version or "none"
            log(f"{name}: the champion is version {now}; when it was judged, it was {was}")
            return None
        evidence = _evidence(target, verdict)
        if verdict.accepted:
            with verified_copy(name, str(target.version)):  # it may have been found, not made
                _move(target, champion, "promote", verdict.reason, evidence)
        else:
            action: audit_log.Action = "decline" if verdict.decided_by else "refuse"
            _refuse(target, champion, action, verdict.reason, evidence)
        alias = CHAMPION if verdict.accepted else CHALLENGER
        log(f"{name}: version {version.version} is now {alias} ({verdict.reason})")
        return alias

    alias = decided(name, decide)
    return None if alias is None else replace(version, alias=alias)


def _get_ready() -> None:
    """Import what a move is made and told with, which takes seconds: the check takes more."""
    import prefect.events  # noqa: F401

    import tasks.registry.model_card  # noqa: F401

    client()


def promote(name: str, number: int, reason: str) -> tuple[int | None, int]:
    """Make a version champion by hand, against the gate; returns the one before and the new one.

    The version left is withdrawn: no later run brings it back by itself. Raises BadInput for what
    is not there or is champion already, and where the version does not load. One that was trained
    with other libraries, and draws differently with these, is let pass: the audit log says so.
    """
    checked_name("model", name)
    with by_hand(name):
        check_known(name)
        reconcile(name)
        return _by_hand(name, number, "override", reason)


def rollback(name: str, number: int | None = None, reason: str = "") -> tuple[int | None, int]:
    """Go back to the champion before this one, or to a version of a number, as `promote` does."""
    checked_name("model", name)
    with by_hand(name):
        check_known(name)
        reconcile(name)
        target = _champion_before(name) if number is None else number
        return _by_hand(name, target, "rollback", reason or "rolled back by hand")


def history(name: str) -> list[audit_log.Entry]:
    """What happened to a model's aliases, oldest first; an interrupted move is settled before."""
    checked_name("model", name)
    if name not in known_models():
        check_known(name)
    return decided(name, lambda: audit_history.told(_reconciled(name)))


def withdrawal_reason(name: str, content: str) -> str:
    """Why a content must not come back by itself: a person moved away from it; or nothing."""
    checked_name("model", name)

    def reason() -> str:
        entries = _reconciled(name)
        told = audit_history.contents_by_number(entries)
        named = {number for e in entries for number in (e.from_version, e.to_version) if number}
        elsewhere = contents_of(name) if named - told.keys() else {}
        return audit_history.withdrawal_reason(entries, content, elsewhere)

    return decided(name, reason)


def decided(name: str, decide: Callable[[], Result]) -> Result:
    """What a function decides about a model under its lock; see `audit_log.decided`."""

    def decide_alone() -> Result:
        with outages_named(), registry_lock(name):
            return decide()

    return audit_log.decided(name, decide_alone)


@contextmanager
def by_hand(name: str) -> Iterator[None]:
    """Let a person's decision about a model be made in the block, under its lock.

    It was made on what the person saw, so another home's move meanwhile ends it: Overtaken.
    """
    if is_shared():  # what a kill left open may be settled by several homes at once
        with suppress(audit_log.AuditLogDamaged):
            decided(name, lambda: reconcile(name))
    with outages_named(), registry_lock(name), audit_log.one_decision(name):
        yield


def _reconciled(name: str) -> list[audit_log.Entry]:
    reconcile(name)
    return audit_log.entries_of(name)


def reconcile(name: str) -> None:
    """Settle what a kill left open, and note what was moved or lost elsewhere; under the lock.

    Raises AuditLogDamaged where the log cannot be relied on.
    """
    found = audit_anchor.checked_log(name)
    audit_log.join(name)
    entries, champion = list(found.entries), champion_of(name)
    now = None if champion is None else champion.version
    tags = audit_anchor.model_tags(name)
    if lost := audit_anchor.loss(found, tags):
        log(f"WARNING: {name}: {lost}")
        remaining = contents_of(name)
        audit_anchor.note_loss(name, lost, now, remaining)
        entries = audit_log.entries_of(name)
    if (intent := audit_history.unsettled(entries)) is not None:
        if audit_log.is_under_way(name, intent):
            raise audit_log.overtaken(name, intent.number + 1)
        champion = _carried_on(intent, champion) if is_shared() else champion
        now = None if champion is None else champion.version
        kind: audit_log.Kind = "void"
        if champion is not None and now == intent.to_version:
            kind = "done"
            _publish_move(champion, intent.from_version, intent.why, intent.action)
        audit_anchor.append(name, kind, settles=intent.number, why="settled by the next reader")
        entries = audit_log.entries_of(name)
    if moved := moved_outside(entries, champion):
        content = "" if champion is None else champion.tags.get("content_digest", "")
        if tags is not None and tags.get("family") in FAMILIES and _announced_champion(name) != now:
            _update_model_page(name, champion, moved)
        audit_anchor.append(
            name,
            "outside",
            action="outside",
            who="unknown",
            from_version=audit_history.champion_by(entries),
            to_version=now,
            why=moved,
            digests={"content": content} if content else {},
        )
    audit_anchor.anchor(name)


def _carried_on(
    intent: audit_log.Entry, champion: RegisteredVersion | None
) -> RegisteredVersion | None:
    """The champion, once the alias is where another home's intent wanted it.

    That home may still be about to move it, for nobody here can see whether its process lives: what
    both do must be the same. Where the version is gone, or another has the name, nothing is done.
    """
    now = None if champion is None else champion.version
    if intent.to_version is None or now not in (intent.from_version, intent.to_version):
        return champion
    target = get_version(intent.model, intent.to_version)
    if target is None or target.tags.get("content_digest") != intent.digests.get("content"):
        return champion
    if now != intent.to_version:
        client().set_registered_model_alias(intent.model, CHAMPION, str(intent.to_version))
        log(f"{intent.model}: version {intent.to_version} is champion, as another home began")
    return target


def moved_outside(entries: list[audit_log.Entry], champion: RegisteredVersion | None) -> str:
    """What happened to the alias that the log does not tell, in words, or nothing."""
    known = audit_history.champion_by(entries)
    if champion is None:
        return "" if known is None else "the alias was taken away without this program"
    if champion.version != known:
        return "the alias was moved without this program"
    told = audit_history.contents_by_number(entries).get(known)
    if told and champion.tags.get("content_digest") != told:
        return f"version {known} is another than the log tells of"
    return ""


def move_back(target: RegisteredVersion, reason: str) -> None:
    """Give the name back to a version that lost it without this program; under the lock."""
    with verified_copy(target.name, str(target.version)):
        _move(target, champion_of(target.name), "restore", reason, _evidence(target, None))


def check_known(name: str) -> None:
    """Raise BadInput for a model that this project did not register."""
    known = project_models()
    if name not in known:
        raise BadInput(f"no model is named {name!r}{did_you_mean(name, known)}")


def _champion_before(name: str) -> int:
    """The champion before the present one: of the moves that brought it there, the latest."""
    champion = champion_of(name)
    if champion is None:
        raise BadInput(f"{name} has no champion to roll back from")
    now = champion.version
    entries, contents = audit_log.entries_of(name), contents_of(name)
    live, told = audit_history.live_versions(entries), audit_history.contents_by_number(entries)
    came_from = [
        entry.from_version
        for entry in audit_history.moves(entries)
        if entry.to_version == now
        and entry.from_version is not None  # as after a time without a champion
        and entry.action in ("promote", "override", "outside", "restore")
        and (
            entry.from_version not in told
            # after a loss numbers begin again
            or live.get(entry.from_version, "gone") == contents.get(entry.from_version)
        )
    ]
    if not came_from:
        raise BadInput(
            f"version {now} is the first champion of {name}: there is none before it; name one"
            f" with --to ({_numbers(name)})"
        )
    return came_from[-1]


def _by_hand(
    name: str, number: int, action: audit_log.Action, reason: str
) -> tuple[int | None, int]:
    target, champion = get_version(name, number), champion_of(name)
    if target is None:
        raise BadInput(f"{name} has no version {number}; there are: {_numbers(name)}")
    if champion is not None and champion.version == target.version:
        raise BadInput(f"version {number} is the champion of {name} already")
    family = FAMILIES.get(text_tag(target, "family"))
    if family is None:
        told = text_tag(target, "family")
        raise BadInput(
            f"version {number} of {name} is of the family {told!r}; this program knows"
            f" {', '.join(FAMILIES)}"
        )
    evidence = _evidence(target, None)
    try:
        with verified_copy(name, str(number)) as (folder, _):
            check_loads(
                f"models:/{name}/{number}",
                folder,
                family.data,
                samples=wanted_digest_tag(target, "samples"),
                meanwhile=_get_ready,
            )
    except SamplesDiffer as error:
        log(f"WARNING: with the libraries installed here it draws other samples: {error}")
        evidence["load_check"] = str(error)
    except LoadCheckFailed as error:
        raise BadInput(f"version {number} cannot be champion: {error}") from error
    _move(target, champion, action, reason, evidence)
    return (None if champion is None else champion.version), number


def _numbers(name: str) -> str:
    return ", ".join(str(version.version) for version in versions_of(name)) or "none"


def _move(
    target: RegisteredVersion,
    champion: RegisteredVersion | None,
    action: audit_log.Action,
    reason: str,
    evidence: dict[str, Any],
) -> None:
    """The alias and what tells of it, between two lines of the audit log."""
    name, before = target.name, None if champion is None else champion.version
    began = time.monotonic()
    intent = audit_anchor.append(
        name,
        "intent",
        action=action,
        from_version=before,
        to_version=target.version,
        why=reason,
        evidence=evidence,
        digests=_digests(target),
        **_who(),
    )
    try:
        if time.monotonic() - began > audit_log.SECONDS_OF_A_MOVE / 2:  # the machine slept, perhaps
            audit_log.check_newest(name)
        client().set_registered_model_alias(name, CHAMPION, str(target.version))
        _publish_move(target, before, reason, action)
        audit_anchor.append(name, "done", settles=intent.number, **_who())
    except audit_log.Overtaken:
        if not _was_finished(intent):
            raise


def _was_finished(intent: audit_log.Entry) -> bool:
    """Whether another home told of a move's end, which took so long that it finished the move.

    Where it has moved on since, the alias that was moved here goes where the log says.
    """
    entries = list(audit_log.latest(intent.model).entries)
    later = audit_history.unsettled(entries)
    wanted = later.to_version if later else audit_history.champion_by(entries)
    if wanted is not None and wanted != intent.to_version:
        client().set_registered_model_alias(intent.model, CHAMPION, str(wanted))
    return any(entry.kind == "done" and entry.settles == intent.number for entry in entries)


def _publish_move(
    champion: RegisteredVersion, before: int | None, reason: str, action: audit_log.Action
) -> None:
    """Tell of a move that has been made: on the pages, and to those who wait for the event."""
    name = champion.name
    challenger = client().get_registered_model(name).aliases.get(CHALLENGER)
    if str(challenger) == str(champion.version):
        client().delete_registered_model_alias(name, CHALLENGER)
    _update_model_page(name, champion, reason)
    _emit(PROMOTED, champion, {"previous": before, "reason": reason, "action": action})


def _refuse(
    target: RegisteredVersion,
    champion: RegisteredVersion | None,
    action: audit_log.Action,
    reason: str,
    evidence: dict[str, Any],
) -> None:
    name, number = target.name, target.version
    refusals = audit_history.refusals_by_champion(audit_log.entries_of(name))
    content = target.tags["content_digest"]
    told = (number, reason, content)
    if refusals and told == (
        refusals[-1].to_version,
        refusals[-1].why,
        refusals[-1].digests.get("content"),
    ):
        return  # the same run again
    client().set_registered_model_alias(name, CHALLENGER, str(number))
    audit_anchor.append(
        name,
        "refused",
        action=action,
        from_version=None if champion is None else champion.version,
        to_version=number,
        why=reason,
        evidence=evidence,
        digests=_digests(target),
        **_who(),
    )
    refusals = audit_history.refusals_by_champion(audit_log.entries_of(name))
    in_a_row = len({entry.to_version for entry in refusals})
    payload = {"reason": reason, "in_a_row": in_a_row}
    _emit(REFUSED, target, payload)
    if in_a_row % refusals_before_alert() == 0:
        _emit(STALLED, target, payload)


def _evidence(target: RegisteredVersion, verdict: "PromotionDecision | None") -> dict[str, Any]:
    numbers: dict[str, Any] = {
        text_tag(target, "main_metric"): number_tag(target, "main_value"),
        "interval": list(interval_tag(target)),
    }
    if verdict is not None and verdict.difference is not None:
        numbers |= {
            "champion": verdict.champion_value,
            "difference": verdict.difference,
            "difference_interval": [verdict.low, verdict.high],
            "seed_margin": verdict.margin,
        }
    return numbers


def _digests(target: RegisteredVersion) -> dict[str, str]:
    """What a version is: its package by the audit log, which the registry's tags may not tell."""
    told = {"content": tags_of(target).get("content_digest", "")}
    told |= {of: digest_tag(target, of) for of in _DIGESTS}
    entry = audit_history.registration_of(audit_log.entries_of(target.name), target.version)
    return told | ({"package": entry.digests["package"]} if entry else {})


def _who() -> dict[str, str]:
    """The flow run that acts, if one does; else the audit log names the person."""
    contexts = sys.modules.get("prefect.context")  # what nobody has imported runs no flow
    context = None if contexts is None else contexts.FlowRunContext.get()
    if context is None or context.flow_run is None:
        return {}
    return {"who": f"flow run {context.flow_run.name} ({context.flow_run.id})"}


def _update_model_page(name: str, champion: RegisteredVersion | None, why: str) -> None:
    """The registered model's own page, and the moment at which its champion changed."""
    from tasks.registry.model_card import family_page

    since = datetime.now(UTC).isoformat(timespec="minutes")
    version = None if champion is None else champion.version
    family = client().get_registered_model(name).tags["family"]
    text = family_page(family, name, version, since, why)
    client().update_registered_model(name, description=text)
    client().set_registered_model_tag(name, "champion_since", since)
    client().set_registered_model_tag(name, "champion_version", str(version or "none"))


def _announced_champion(name: str) -> int | None:
    """The version that the model's page calls champion: another home may have told a move."""
    told = client().get_registered_model(name).tags.get("champion_version", "none")
    return whole(told)  # what somebody else wrote there says nothing


def _emit(what: str, version: RegisteredVersion, payload: dict[str, Any]) -> None:
    """Tell Prefect's server, where there is one."""
    from prefect.events import emit_event
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        return
    emit_event(
        what,
        resource={
            "prefect.resource.id": f"atelier.model.{version.name}",
            "prefect.resource.name": version.name,
        },
        payload={"version": version.version, **payload},
    )
