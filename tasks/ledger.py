"""The ledger: who moved which alias, when, from where to where, and why.

MLflow keeps no history of aliases. Each model has a file of JSON lines that is only ever appended
to, flushed to the disk line by line. A line holds the sha256 of the line before it, so that a
change of what was written shows; whoever rewrites all later lines as well leaves no trace in it.

A move has two lines: `intent` before the alias moves, `done` after. A kill between the two leaves
an intent without an outcome, and the next reader settles it by looking where the alias is.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from platform import node
from typing import Any, Literal

from tasks.records import parsed, shaped, told
from tasks.reporting import log
from tasks.storage import BadInput, home

Kind = Literal["intent", "done", "void", "refused", "outside"]
Action = Literal["promote", "rollback", "override", "refuse", "decline", "outside", ""]

_BEGINNING = "0" * 64


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
    """Of content, data, code and judge."""
    previous: str = _BEGINNING
    """sha256 of the line before."""


def ledger_path(model: str) -> Path:
    """The file of a model's entries."""
    return home() / "ledger" / f"{model}.jsonl"


def known_models() -> list[str]:
    """The models that have a ledger."""
    return sorted(path.stem for path in (home() / "ledger").glob("*.jsonl"))


def lasting_contents() -> set[str]:
    """The content digests of all versions that were champion, or that a person named."""
    found = set()
    for model in known_models():
        entries = entries_of(model)
        lasting = lasting_versions(entries)
        found |= {e.digests["content"] for e in entries if e.to_version in lasting and e.digests}
    return found


def entries_of(model: str) -> list[Entry]:
    """All entries of a model, oldest first; raises LedgerDamaged if one was altered.

    A last line without its end was being written when its process was killed. Nothing had followed
    from it, so it does not count.
    """
    path = ledger_path(model)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise _damaged(path, 1, f"cannot be read ({told(error)})") from error
    content = content[: content.rfind(b"\n") + 1]
    known, read = _known.get(path, (b"", ()))
    if not content.startswith(known):
        known, read = b"", ()
    entries = list(read)
    previous = _sha256_of_last(known)
    for number, line in enumerate(content[len(known) :].split(b"\n")[:-1], len(entries) + 1):
        try:
            facts = parsed(line, dict[str, Any], "")
            entry = shaped(facts, Entry, "")
            Entry(**facts)  # no key more: a line is as it was written, or it was altered
        except (ValueError, TypeError) as error:
            raise _damaged(path, number, "cannot be read") from error
        if entry.previous != previous or entry.number != number:
            raise _damaged(path, max(1, number - 1), "or the one after it was altered")
        entries.append(entry)
        previous = hashlib.sha256(line).hexdigest()
    _known[path] = (content, tuple(entries))
    return entries


_known: dict[Path, tuple[bytes, tuple["Entry", ...]]] = {}
"""What this process has read and checked of each file: only what was added is read again."""


def _sha256_of_last(lines: bytes) -> str:
    last = lines[lines.rfind(b"\n", 0, -1) + 1 : -1]
    return hashlib.sha256(last).hexdigest() if lines else _BEGINNING


def _damaged(path: Path, number: int, what: str) -> LedgerDamaged:
    return LedgerDamaged(
        f"{path}: line {number} {what}; restore the file from a copy, or move it aside to begin a"
        " new one"
    )


def append(model: str, kind: Kind, **facts: Any) -> Entry:
    """Add an entry and flush it to the disk; the caller holds the model's lock.

    facts: the other fields of an Entry; who is found out unless given.
    """
    entries = entries_of(model)
    path = ledger_path(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = Entry(
        number=len(entries) + 1,
        kind=kind,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model,
        previous=_last_digest(path),
        **{"who": f"{getuser()}@{node()}", **facts},
    )
    _cut_off_torn_line(path)
    with path.open("ab") as file:
        file.write(json.dumps(asdict(entry), sort_keys=True).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    _flush_folder(path.parent)
    return entry


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


def withdrawn(entries: list[Entry], version: int) -> str:
    """Why a person left or declined a version, unless it was made champion again; or nothing.

    A move without this program counts as a person's, whoever made it: what lost the name there
    shall not take it back by itself.
    """
    why = ""
    for entry in moves(entries):
        if entry.kind != "refused" and entry.to_version == version:
            why = ""
        is_left = entry.from_version == version and entry.to_version != version
        by_hand = is_left and entry.action in ("rollback", "override", "outside")
        if by_hand or (entry.action == "decline" and entry.to_version == version):
            why = entry.why
    return why
