"""The ledger: who moved which alias, when, from where to where, and why.

MLflow keeps no history of aliases. Each model has a file of JSON lines that is only ever appended
to, flushed to the disk line by line. A line holds the sha256 of the line before it, so that a
change of what was written shows; a change of the last lines, or of all, shows by the anchor that
the registry keeps (`tasks/registry/audit_anchor.py`).

A move has two lines: `intent` before the alias moves, `done` after. A kill between the two leaves
an intent without an outcome, and the next reader settles it by looking where the alias is.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from platform import node
from typing import Any, Literal

from tasks.runtime.progress import log
from tasks.store.files import BadInput, home, inside, keep_aside, write_bytes
from tasks.store.names import is_name
from tasks.store.records import DamagedRecord, parsed, shaped
from tasks.store.records import told as told_by

Kind = Literal["intent", "done", "void", "refused", "outside", "registered", "repair"]
Action = Literal[
    "promote", "rollback", "override", "refuse", "decline", "outside", "register", "adopt", "lost",
    "restore", "accept", "begin", "discard", "prune", "",
]  # fmt: skip

_BEGINNING = "0" * 64
_DIGITS_OF_A_NAME = 12


class LedgerDamaged(BadInput):
    """A line of the ledger is not what was written; the message says which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line."""

    number: int
    kind: Kind
    at: str
    """UTC, ISO 8601."""
    model: str
    action: Action = ""
    settles: int | None = None
    """The intent whose outcome this is."""
    who: str = ""
    from_version: int | None = None
    to_version: int | None = None
    why: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Metrics and the interval of the comparison."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of content, package, data, code and judge."""
    files: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Of a registered version: the size in bytes and the sha256 of each file of its package."""
    previous: str = _BEGINNING
    """sha256 of the line before."""


def ledger_path(model: str) -> Path:
    """The file of a model's entries."""
    return inside(home() / "ledger", f"{model}.jsonl")


def known_models() -> list[str]:
    """The models that have a ledger; a file that no model can be named after is a person's copy."""
    names = (path.stem for path in (home() / "ledger").glob("*.jsonl"))
    return sorted(name for name in names if is_name(name))


def lasting_contents() -> set[str]:
    """The content digests of all versions that were champion, or that a person named."""
    found = set()
    for model in known_models():
        entries = entries_of(model)
        lasting = lasting_versions(entries)
        told = [entry for entry in entries if entry.to_version in lasting]
        found |= {e.digests["content"] for e in told if e.digests.get("content")}
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """The entries of a model, and the sha256 of the line that each stands in."""

    entries: tuple[Entry, ...]
    heads: tuple[str, ...]
    num_anchored: int
    """How many lines were written since each is anchored in the registry."""

    @property
    def name(self) -> str:
        """What tells this log from any other: the beginning of its first line's sha256."""
        return self.heads[0][:_DIGITS_OF_A_NAME] if self.heads else ""


def entries_of(model: str) -> list[Entry]:
    """All entries of a model, oldest first; raises LedgerDamaged if one was altered."""
    return list(read(model).entries)


def read(model: str) -> Log:
    """The log of a model; raises LedgerDamaged if its lines do not follow from each other.

    A last line without its end was being written when its process was killed. Nothing had followed
    from it, so it does not count.
    """
    path = ledger_path(model)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise damaged(model, f"it cannot be read ({told_by(error)})") from error
    content = content[: content.rfind(b"\n") + 1]
    known, before = _known.get(path, (b"", Log(entries=(), heads=(), num_anchored=0)))
    if not content.startswith(known):
        known, before = b"", Log(entries=(), heads=(), num_anchored=0)
    entries, heads, num_anchored = list(before.entries), list(before.heads), before.num_anchored
    for number, line in enumerate(content[len(known) :].split(b"\n")[:-1], len(entries) + 1):
        try:
            facts = parsed(line, dict[str, Any], "")
            entry = _entry(facts)
            Entry(**facts)  # no key more: a line is as it was written, or it was altered
        except (ValueError, TypeError) as error:
            raise damaged(model, f"line {number} cannot be read") from error
        if entry.previous != (heads[-1] if heads else _BEGINNING) or entry.number != number:
            what = f"line {max(1, number - 1)} or the one after it was altered"
            raise damaged(model, what)
        if entry.model != model:
            what = f"it is the log of {entry.model!r}; a copy of that one belongs elsewhere"
            raise damaged(model, what)
        entries.append(entry)
        heads.append(hashlib.sha256(line).hexdigest())
        num_anchored += "files" in facts
    found = Log(entries=tuple(entries), heads=tuple(heads), num_anchored=num_anchored)
    _known[path] = (content, found)
    return found


def _entry(facts: dict[str, Any]) -> Entry:
    """A line as what it tells; raises DamagedRecord where it is, or holds, something else."""
    entry: Entry = shaped(facts, Entry, "")
    if entry.evidence.keys() & _NOTES.keys():
        for name, kind in _NOTES.items():
            if name in entry.evidence:
                shaped(entry.evidence[name], kind, name)
    return entry


_NOTES: dict[str, Any] = {"gone": list[int], "anchors": list[str], "withdrawn": dict[str, str]}
"""What this project itself reads of an entry's evidence."""

_known: dict[Path, tuple[bytes, Log]] = {}
"""What this process has read and checked of each file: only what was added is read again."""


def _sha256_of_last(lines: bytes) -> str:
    last = lines[lines.rfind(b"\n", 0, -1) + 1 : -1]
    return hashlib.sha256(last).hexdigest() if lines else _BEGINNING


def damaged(model: str, what: str) -> LedgerDamaged:
    """The error for a log that cannot be relied on, with the way out."""
    return LedgerDamaged(
        f"the audit log {ledger_path(model)}: {what}; put the file back from a copy, or"
        f" `atelier doctor --repair {model}=begin` keeps it aside and begins a new one"
    )


def append(model: str, kind: Kind, **facts: Any) -> Entry:
    """Add an entry and flush it to the disk; the caller holds the model's lock.

    facts: the other fields of an Entry; who is found out unless given.
    """
    entries = entries_of(model)
    path = ledger_path(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = _new_entry(model, kind, len(entries) + 1, _last_digest(path), facts)
    _cut_off_torn_line(path)
    with path.open("ab") as file:
        file.write(_line(entry))
        file.flush()
        os.fsync(file.fileno())
    _flush_folder(path.parent)
    return entry


def begin_anew(model: str, kind: Kind, **facts: Any) -> Entry:
    """Let a log begin with an entry, in the place of one that was kept aside before, at one stroke.

    A kill leaves the one before or the new one, which tells what is to go on.
    """
    entry = _new_entry(model, kind, 1, _BEGINNING, facts)
    write_bytes(ledger_path(model), _line(entry))
    return entry


def _new_entry(model: str, kind: Kind, number: int, previous: str, facts: dict[str, Any]) -> Entry:
    return Entry(
        number=number,
        kind=kind,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model,
        previous=previous,
        **{"who": f"{getuser()}@{node()}", **facts},
    )


def _line(entry: Entry) -> bytes:
    return json.dumps(asdict(entry), sort_keys=True).encode() + b"\n"


def _last_digest(path: Path) -> str:
    content = path.read_bytes() if path.exists() else b""
    return _sha256_of_last(content[: content.rfind(b"\n") + 1])


def _cut_off_torn_line(path: Path) -> None:
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        log(f"{path.name}: the last line was cut off by a kill, and is dropped")
        os.truncate(path, whole)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unsettled(entries: list[Entry]) -> Entry | None:
    """The intent whose outcome is not known, if there is one."""
    settled = {entry.settles for entry in entries}
    waiting = [e for e in entries if e.kind == "intent" and e.number not in settled]
    return waiting[-1] if waiting else None


def moves(entries: list[Entry]) -> list[Entry]:
    """What happened, oldest first: moves that took effect, and refusals."""
    done = {entry.settles for entry in entries if entry.kind == "done"}
    return [
        entry
        for entry in entries
        if entry.kind in ("refused", "outside") or (entry.kind == "intent" and entry.number in done)
    ]


def told(entries: list[Entry]) -> list[Entry]:
    """What a reader of the history wants to know: moves, refusals, and repairs of the records.

    Not that versions were removed which were never champion: that happens every night.
    """
    shown = {entry.number for entry in moves(entries)}
    return [
        entry
        for entry in entries
        if entry.number in shown
        or entry.action == "adopt"
        or (entry.kind == "repair" and entry.action != "prune")
    ]


def live_versions(entries: Sequence[Entry]) -> dict[int, str]:
    """The versions that the registry must have by the log, and the content digest of each."""
    found: dict[int, str] = {}
    for entry in entries:
        found |= contents_by_number([entry])
        for number in entry.evidence.get("gone", ()):
            found.pop(number, None)
    return found


def champion_by(entries: list[Entry]) -> int | None:
    """The version that the last move made champion."""
    champions = [entry.to_version for entry in moves(entries) if entry.kind != "refused"]
    return champions[-1] if champions else None


def lasting_versions(entries: list[Entry]) -> set[int]:
    """The versions that were champion, and those that a person named: kept as long as the log.

    One that the gate refused is not among them.
    """
    kept = [e for e in moves(entries) if e.kind != "refused" or e.action == "decline"]
    return {v for entry in kept for v in (entry.from_version, entry.to_version) if v is not None}


def refused_in_a_row(entries: list[Entry]) -> int:
    """How many versions were refused since the champion last changed."""
    versions = set()
    for entry in reversed(moves(entries)):
        if entry.kind != "refused":
            break
        versions.add(entry.to_version)
    return len(versions)


def contents_by_number(entries: Sequence[Entry]) -> dict[int, str]:
    """The content digest of each version, as the log last told it."""
    return {
        entry.to_version: entry.digests["content"]
        for entry in entries
        if entry.to_version is not None and entry.digests.get("content")
    }


def withdrawn(
    entries: list[Entry], content: str, elsewhere: Mapping[int, str] | None = None
) -> str:
    """Why a person left or declined a content, unless it was made champion again; or nothing.

    A move without this program counts as a person's, whoever made it: what lost the name there
    shall not take it back by itself. What was lost with its database was not left by anybody.
    Versions are told apart by content: after a loss their numbers begin again.
    elsewhere: the contents of versions, by number, of which the log never told.
    """
    contents, why = dict(elsewhere or {}), ""
    taking_effect = {(entry.number, entry.kind) for entry in moves(entries)}
    for entry in entries:
        left = contents.get(entry.from_version or 0)
        contents |= contents_by_number([entry])
        if (entry.number, entry.kind) not in taking_effect:
            if entry.action == "begin":
                why = entry.evidence.get("withdrawn", {}).get(content, why)
            continue
        arrived = contents.get(entry.to_version or 0)
        if entry.kind != "refused" and arrived == content:
            why = ""
        by_hand = entry.action in ("rollback", "override", "outside", "restore")
        if by_hand and left == content and arrived != content:
            why = entry.why
        if entry.action == "decline" and arrived == content:
            why = entry.why
    return why


def withdrawn_contents(entries: list[Entry]) -> dict[str, str]:
    """All contents that persons left or declined, and why."""
    begun = [entry.evidence.get("withdrawn", {}) for entry in entries if entry.action == "begin"]
    contents = {*contents_by_number(entries).values(), *(c for each in begun for c in each)}
    contents |= {e.digests["content"] for e in entries if e.digests.get("content")}
    found = {content: withdrawn(entries, content) for content in contents}
    return {content: why for content, why in found.items() if why}


def readable_entries(model: str) -> list[Entry]:
    """Whatever can be read of a damaged log; nothing of it is proven."""
    try:
        content = ledger_path(model).read_bytes()
    except OSError:  # none, a folder, or a bad disk
        return []
    entries = []
    for line in content.split(b"\n"):
        with suppress(DamagedRecord):
            entries.append(_entry(parsed(line, dict[str, Any], "")))
    return entries


def answered(entries: list[Entry]) -> list[Entry]:
    """The entries up to the last decision of this program or of a person."""
    for index in range(len(entries), 0, -1):
        last = entries[index - 1]
        gave_up = last.kind == "outside" and last.action == "discard"  # the champion
        if last.kind == "done" or last.action in ("accept", "begin") or gave_up:
            return entries[:index]
    return []


def last_move_without_us(entries: list[Entry]) -> Entry | None:
    """A move that this program did not make, or a loss, if nobody has answered it since."""
    later = entries[len(answered(entries)) :]
    found = [e for e in later if e.kind == "outside" and e.action in ("outside", "lost")]
    return found[-1] if found else None


def registration_of(entries: Sequence[Entry], number: int) -> Entry | None:
    """The entry that tells what the package of a version is; the latest, for a number again."""
    told = [e for e in entries if e.kind == "registered" and e.to_version == number]
    return told[-1] if told else None


def set_aside(model: str) -> Path | None:
    """Keep a copy of a log that cannot be relied on; None where there is none.

    The log itself stays until `begin_anew` takes its place; what cannot be read gives way now.
    """
    path = ledger_path(model)
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
    except OSError:  # such as a folder
        return keep_aside(path)
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    aside = path.with_name(f"{path.name}.aside-{moment}")
    write_bytes(aside, content)
    return aside
