"""The audit log: who moved which alias, when, from where to where, and why.

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
_FOLDER = "ledger"  # the name in homes and backups of every version


class AuditLogDamaged(BadInput):
    """A line of the audit log is not what was written; the message says which."""


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


def log_path(model: str) -> Path:
    """The file of a model's entries."""
    return inside(home() / _FOLDER, f"{model}.jsonl")


def known_models() -> list[str]:
    """The models that have a log; a file that no model can be named after is a person's copy."""
    names = (path.stem for path in (home() / _FOLDER).glob("*.jsonl"))
    return sorted(name for name in names if is_name(name))


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
    """All entries of a model, oldest first; raises AuditLogDamaged if one was altered."""
    return list(read(model).entries)


def read(model: str) -> Log:
    """The log of a model; raises AuditLogDamaged if its lines do not follow from each other.

    A last line without its end was being written when its process was killed. Nothing had followed
    from it, so it does not count.
    """
    path = log_path(model)
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


def damaged(model: str, what: str) -> AuditLogDamaged:
    """The error for a log that cannot be relied on, with the way out."""
    return AuditLogDamaged(
        f"the audit log {log_path(model)}: {what}; put the file back from a copy, or"
        f" `atelier doctor --repair {model}=begin` keeps it aside and begins a new one"
    )


def append(model: str, kind: Kind, **facts: Any) -> Entry:
    """Add an entry and flush it to the disk; the caller holds the model's lock.

    facts: the other fields of an Entry; who is found out unless given.
    """
    entries = entries_of(model)
    path = log_path(model)
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
    write_bytes(log_path(model), _line(entry))
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


def readable_entries(model: str) -> list[Entry]:
    """Whatever can be read of a damaged log; nothing of it is proven."""
    try:
        content = log_path(model).read_bytes()
    except OSError:  # none, a folder, or a bad disk
        return []
    entries = []
    for line in content.split(b"\n"):
        with suppress(DamagedRecord):
            entries.append(_entry(parsed(line, dict[str, Any], "")))
    return entries


def set_aside(model: str) -> Path | None:
    """Keep a copy of a log that cannot be relied on; None where there is none.

    The log itself stays until `begin_anew` takes its place; what cannot be read gives way now.
    """
    path = log_path(model)
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
