"""In what the audit log, the registry and the files of the champions disagree; nothing is changed.

Each disagreement is one line, with the ways out of it, which `tasks/registry/repair.py` goes.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tasks.families.table import FAMILIES
from tasks.registry import audit_anchor, audit_history, audit_log
from tasks.registry.log_storage import is_shared, known_models
from tasks.registry.promotion import moved_outside
from tasks.registry.verification import UNVERIFIED, check_stored, verified_copy
from tasks.registry.versions import (
    all_versions,
    champion_of,
    misnamed,
    project_models,
)
from tasks.tracking.home_database import RegisteredVersion
from tasks.tracking.mlflow_client import outages_named

WAYS = {
    "accept": "take the registry as it is, and write into the log that it is so",
    "restore": "give the name `champion` back to the version that the log names, and the model its"
    " tag family",
    "adopt": "look into the files of versions that the log names without their digest, and keep it",
    "begin": "keep the log aside and begin a new one; what persons withdrew goes on",
    "join": "keep the log that this home had before it shared a store aside, and go on with the"
    " shared one; what persons withdrew goes on",
    "discard": "delete the champion from the registry; its files stay in the store, and the next"
    " run registers the same content anew",
}
"""adopt:N and discard:N name one version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One disagreement."""

    model: str
    what: str
    ways: tuple[str, ...]

    def to_do(self) -> str:
        """The commands that go the ways; without any, what a person does in MLflow."""
        if not self.ways:
            return "rename or delete it in MLflow"
        named = " or ".join(f"--repair {self.model}={way}" for way in self.ways)
        return f"`atelier doctor {named}`; the ways: `atelier doctor --repair`"


def all_models() -> list[str]:
    """The models of the registry and those of the audit logs, of which one may be lost."""
    return sorted({*project_models(), *known_models()})


def misnamed_models() -> list[Problem]:
    """Models that bear a family of ours and a name that none of ours can have."""
    what = (
        "bears a family of ours and a name that no model of ours can have (lower-case letters and"
        " digits, - and _): it was renamed in MLflow, or is another program's; it is passed over"
    )
    return [Problem(model=name, what=f"{name!r} {what}", ways=()) for name in misnamed()]


def problems_of(name: str, *, with_packages: bool = True) -> list[Problem]:
    """All disagreements about a model.

    with_packages: the champion's files are fetched and compared, and a shared log is read from its
    store; else files are only looked for, and this home's copy of the log is believed.
    """
    with outages_named():
        return list(_problems(name, with_packages))


def _problems(name: str, with_packages: bool) -> Iterator[Problem]:
    tags = audit_anchor.model_tags(name)
    try:
        found = audit_anchor.checked_log(name, anew=with_packages and is_shared())
    except audit_log.AuditLogDamaged as error:
        yield Problem(model=name, what=str(error), ways=("begin",))
        return
    entries = list(found.entries)
    yield from _own_log(name, len(entries))
    yield from _strangers(name, found, tags or {})
    lost = audit_anchor.loss(found, tags)
    champion = champion_of(name)
    if lost:
        what = f"{name}: {lost}{_left_by_hand(entries, champion)}"
        yield Problem(model=name, what=what, ways=("accept",))
    elif moved := _moved(entries, champion):
        now = "none" if champion is None else f"version {champion.version}"
        known = audit_history.champion_by(entries)
        what = f"{name}: {moved}: the champion is {now}, and by the log version {known or 'none'}"
        yield Problem(model=name, what=what, ways=("restore", "accept"))
    elif (last := audit_history.last_move_without_us(entries)) is not None:
        what = (
            f"{name}: {last.why} (noted {last.at[:10]}), from version {last.from_version or 'none'}"
        )
        what += f" to {last.to_version or 'none'}{_left_by_hand(entries, champion)}"
        yield Problem(model=name, what=what, ways=("accept", "restore"))
    if tags is None:
        return
    if entries and tags.get("family") not in FAMILIES:
        what = (
            f"{name}: its tag family is {tags.get('family', 'missing')!r}: gallery and history pass"
        )
        yield Problem(model=name, what=f"{what} over such a model", ways=("restore",))
    versions = all_versions(name)
    if not lost:
        yield from _gone(name, entries, versions)
    yield from _unknown(name, entries, versions)
    # One whose package the log does not tell was told of already.
    if champion and audit_history.registration_of(entries, champion.version) is not None:
        yield from _champions_files(champion, with_packages)


def _own_log(name: str, length: int) -> Iterator[Problem]:
    """What this home's own log tells, of before it shared a store, and the shared one does not."""
    try:
        own = audit_log.lines_of_its_own(name)
    except audit_log.AuditLogDamaged as error:
        what = f"{error}; the shared audit log counts: put this home's own file away"
        yield Problem(model=name, what=what, ways=())
        return
    if own:
        who = sorted({entry.who for entry in own})
        what = (
            f"{name}: this home has an audit log of its own, of which the shared one of {length}"
            f" lines lacks those from {own[0].number} to {own[-1].number} ({own[0].at[:10]} to"
            f" {own[-1].at[:10]}, by {', '.join(who[:3])}); the shared one counts"
        )
        yield Problem(model=name, what=what, ways=("join",))


def _champions_files(champion: RegisteredVersion, are_compared: bool) -> Iterator[Problem]:
    try:
        if are_compared:
            with verified_copy(champion.name, str(champion.version)):
                pass
        else:
            check_stored(champion)
    except UNVERIFIED as error:
        yield Problem(model=champion.name, what=str(error), ways=("discard",))


def _moved(entries: list[audit_log.Entry], champion: RegisteredVersion | None) -> str:
    """What happened to the alias without this program, in words, or nothing.

    Where this program moved it and was killed then, the next reader settles that.
    """
    intent = audit_history.unsettled(entries)
    if intent and champion and champion.version == intent.to_version:
        return ""
    return moved_outside(entries, champion) if entries else ""


def _left_by_hand(entries: list[audit_log.Entry], champion: RegisteredVersion | None) -> str:
    """That a person had left the version that is champion now, in words, or nothing."""
    if champion is None:
        return ""
    why = audit_history.withdrawal_reason(entries, champion.tags.get("content_digest", ""))
    return f"; the champion is version {champion.version}, left by hand: {why}" if why else ""


def _strangers(name: str, found: audit_log.Log, tags: dict[str, str]) -> Iterator[Problem]:
    """Anchors of logs that are not this one."""
    known = audit_anchor.anchors(tags)
    accepted = {log for e in found.entries for log in e.evidence.get("anchors", ())}
    if is_shared():
        with suppress(audit_log.AuditLogDamaged):
            accepted.add(audit_log.own_log(name).name)
    others = {log: each for log, each in known.items() if log not in {found.name, *accepted}}
    if not others:
        return
    lengths = " and ".join(f"{each.length} lines" for each in others.values())
    if found.entries:
        what = f"{name}: the registry is anchored to another audit log, too ({lengths}): another"
        what += " home's, or one that was replaced by this"
        yield Problem(model=name, what=what, ways=("accept",))
    else:
        what = f"{name}: the registry is anchored to an audit log of {lengths} that is not here: it"
        what += f" was lost ({audit_log.place_of(name)}), or is another home's"
        what += " that has not used the shared store yet" if is_shared() else ""
        yield Problem(model=name, what=what, ways=("begin",))


def _gone(
    name: str, entries: list[audit_log.Entry], versions: list[RegisteredVersion]
) -> Iterator[Problem]:
    """Versions of the log that the registry lacks, or has with another content."""
    contents = {v.version: v.tags.get("content_digest", "") for v in versions}
    live = audit_history.live_versions(entries)
    missing = sorted(number for number in live if number not in contents)
    others = sorted(n for n in live.keys() & contents.keys() if live[n] != contents[n])
    if missing:
        what = f"{name}: the registry lacks {_numbers(missing)} of the audit log: deleted in MLflow"
        yield Problem(model=name, what=what, ways=("accept",))
    if others:
        what = f"{name}: {_numbers(others)} has another content than the audit log tells: the tag"
        what += " content_digest was altered, or the version replaced"
        yield Problem(model=name, what=what, ways=("accept",))


def _unknown(
    name: str, entries: list[audit_log.Entry], versions: list[RegisteredVersion]
) -> Iterator[Problem]:
    """Versions of the registry whose packages the log does not tell of."""
    told, named, strange = audit_history.contents_by_number(entries), [], []
    registered = audit_history.registrations(entries)
    for version in versions:
        number = version.version
        if version.tags.get("state") != "complete":
            continue  # being made, or left pending by a kill: no reader sees it
        if number in registered:
            continue
        if told.get(number) == version.tags.get("content_digest"):
            named.append(number)
        else:
            strange.append(number)
    if named:
        what = (
            f"{name}: the audit log does not say what the package of {_numbers(named)} is, for an"
            " older program wrote it; nothing of it is loaded"
        )
        yield Problem(model=name, what=what, ways=("adopt",))
    for number in strange:
        what = f"{name}: version {number} stands in the registry and not in the audit log, and is"
        ways = (f"adopt:{number}", f"discard:{number}")
        yield Problem(model=name, what=f"{what} not loaded", ways=ways)


def _numbers(numbers: list[int]) -> str:
    return f"version{'s' if numbers[1:] else ''} {', '.join(map(str, numbers))}"
