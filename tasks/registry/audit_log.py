"""The audit log: who moved which alias, when, from where to where, and why.

MLflow keeps no history of aliases. Each model has a log of JSON lines that only grows
(`tasks/registry/log_storage.py` says where they lie). A line holds the sha256 of the line before
it, so that a change of what was written shows; a change of the last lines, or of all, shows by the
anchor that the registry keeps (`tasks/registry/audit_anchor.py`).

A move has two lines: `intent` before the alias moves, `done` after. A kill between the two leaves
an intent without an outcome, and the next reader settles it by looking where the alias is.

Where homes share a store, each may write to the log of a model. A decision is made within
`one_decision`: the log is what it was when the decision read it, and a line that another home wrote
meanwhile makes the next one of the decision raise `Overtaken`; it must be made anew then.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from platform import node
from typing import Any, Literal, TypeVar

from tasks.registry.log_storage import LocalFile, is_shared, lines_of
from tasks.runtime.processes import is_alive, is_elsewhere, this_process
from tasks.runtime.progress import log
from tasks.store.files import BadInput, digest_of, home
from tasks.store.records import DamagedRecord, parsed, shaped
from tasks.store.shared import StoreAway

Kind = Literal["intent", "done", "void", "refused", "outside", "registered", "repair"]
Action = Literal[
    "promote", "rollback", "override", "refuse", "decline", "outside", "register", "adopt", "lost",
    "restore", "accept", "begin", "join", "discard", "prune", "",
]  # fmt: skip

_BEGINNING = "0" * 64
_DIGITS_OF_A_NAME = 12
SECONDS_TO_WAIT_FOR_THE_STORE = 60.0
"""How long a line waits for a shared store that does not answer; the task is then tried again."""
SECONDS_OF_A_MOVE = 30.0
"""How long a move of a home that cannot be seen from here may take before another finishes it."""
_SECONDS_BETWEEN_LOOKS = 1.0

Result = TypeVar("Result")


class AuditLogDamaged(BadInput):
    """A line of the audit log is not what was written; the message says which."""


class Overtaken(BadInput):
    """Another home wrote to the log after it was read for a decision; nothing was decided."""


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
    writer: str = ""
    """In a shared log: the process and the home that wrote it, which tell equal lines apart."""


def log_path(model: str) -> Path:
    """The file of this home's own log of a model."""
    return LocalFile(model).path


def place_of(model: str) -> str:
    """Where the lines of a model's log lie, for messages."""
    return lines_of(model).place


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """The entries of a model, and the sha256 of the line that each stands in."""

    entries: tuple[Entry, ...]
    heads: tuple[str, ...]
    num_anchored: int
    """How many lines were written since each is anchored in the registry."""
    is_current: bool = True
    """Whether these are all: else they are this home's copy, while the shared store is away."""

    @property
    def name(self) -> str:
        """What tells this log from any other: the beginning of its first line's sha256."""
        return self.heads[0][:_DIGITS_OF_A_NAME] if self.heads else ""


_NOTHING = Log(entries=(), heads=(), num_anchored=0)


def entries_of(model: str) -> list[Entry]:
    """All entries of a model, oldest first; raises AuditLogDamaged if one was altered."""
    return list(read(model).entries)


def read(model: str) -> Log:
    """The log of a model; raises AuditLogDamaged if its lines do not follow from each other.

    Within `one_decision` it is as it was at the first reading, and what was appended since.
    """
    pins = _pins.get() or {}
    if model not in pins:
        return latest(model)
    if (pinned := pins[model]) is None:
        pins[model] = pinned = latest(model)
    return pinned


def read_again(model: str) -> Log:
    """A shared log, read from its store; raises Overtaken where a decision has read another."""
    found, before = latest(model, anew=True), (_pins.get() or {}).get(model)
    if before is not None and before.heads != found.heads:
        raise overtaken(model, len(before.heads) + 1)
    return found


def latest(model: str, *, anew: bool = False) -> Log:
    """The log of a model as it is now; raises what `read` does.

    anew: believe no copy that this home keeps of a shared log; raises StoreAway.
    """
    lines = lines_of(model)
    try:
        content = lines.read(anew=anew)
    except DamagedRecord as error:
        raise damaged(model, str(error)) from error
    try:
        found = _parsed(model, content, lines.place)
    except AuditLogDamaged:
        if anew or not is_shared() or not lines.is_current:
            raise
        return latest(model, anew=True)  # the copy may be damaged, and not the log
    if not lines.is_current:
        return replace(found, is_current=False)
    return found


def own_log(model: str) -> Log:
    """The log that this home had before it shared a store, which it keeps; raises what `read` does.

    Without a shared store: the log.
    """
    lines = LocalFile(model)
    try:
        return _parsed(model, lines.read(), lines.place)
    except DamagedRecord as error:
        raise damaged(model, str(error)) from error


def lines_of_its_own(model: str) -> list[Entry]:
    """What this home's own log tells and the shared one does not; nothing without a shared store.

    A file that is the beginning of the shared log was about to be set aside when a kill came.
    """
    if not is_shared():
        return []
    own, together = own_log(model), latest(model)
    pairs = zip(own.heads, together.heads, strict=False)
    num_same = next((n for n, (a, b) in enumerate(pairs) if a != b), len(together.heads))
    return list(own.entries[num_same:])


def _parsed(model: str, content: bytes, place: str) -> Log:
    """Lines as a log, once each is read and follows from the one before."""
    known, before = _known.get(place, (b"", _NOTHING))
    if not content.startswith(known):
        known, before = b"", _NOTHING
    entries, heads, num_anchored = list(before.entries), list(before.heads), before.num_anchored
    for number, line in enumerate(content[len(known) :].split(b"\n")[:-1], len(entries) + 1):
        try:
            facts = parsed(line, dict[str, Any], "")
            entry = _entry(facts)
            if not facts.keys() <= _FIELDS:  # a line is as it was written, or it was altered
                raise ValueError(f"{facts.keys() - _FIELDS}: no fields of an entry")
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
    _known[place] = (content, found)
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

_FIELDS = frozenset(each.name for each in fields(Entry))

_known: dict[str, tuple[bytes, Log]] = {}
"""What this process has read and checked of each log: only what was added is read again."""

_pins: ContextVar[dict[str, Log | None] | None] = ContextVar("pins", default=None)
"""The logs of the models that are being decided on, once they were read."""


def damaged(model: str, what: str) -> AuditLogDamaged:
    """The error for a log that cannot be relied on, with the way out."""
    return AuditLogDamaged(
        f"the audit log {place_of(model)}: {what}; put"
        f" {'its objects' if is_shared() else 'the file'} back from a copy, or"
        f" `atelier doctor --repair {model}=begin` keeps it aside and begins a new one"
    )


def overtaken(model: str, number: int) -> Overtaken:
    """The error for a decision that another home's line came before."""
    return Overtaken(
        f"{model}: another home wrote line {number} of the audit log meanwhile, so nothing was"
        f" decided here; see `atelier history {model}`, and say it again if it still holds"
    )


def check_newest(model: str) -> None:
    """Raise Overtaken where another home wrote since a decision read the log."""
    if is_shared():
        read_again(model)


def join(model: str) -> None:
    """Put the log that this home had before into a shared store that has none, if there is one."""
    with suppress(StoreAway):
        lines_of(model).join()


@contextmanager
def one_decision(model: str) -> Iterator[None]:
    """Let a log be what it was at its first reading in the block, and grow by the block alone.

    What the block appends where another home has written meanwhile raises Overtaken.
    """
    mark = _pins.set({**(_pins.get() or {}), model: None})
    try:
        yield
    finally:
        _pins.reset(mark)


def append(model: str, kind: Kind, **facts: Any) -> Entry:
    """Add an entry and flush it to the disk; the caller holds the model's lock.

    Within `one_decision` it raises Overtaken where another home was faster, and StoreAway; else it
    follows whatever stands there, and waits for a shared store for a while.
    facts: the other fields of an Entry; who is found out unless given.
    """
    if model in (_pins.get() or {}):
        return _append(model, kind, facts)
    return decided(model, lambda: _append(model, kind, facts))


def decided(model: str, decide: Callable[[], Result]) -> Result:
    """What a function decides on the log; it is called again whenever another home was faster.

    Raises StoreAway once a shared store has not answered for a while.
    """
    began: float | None = None
    while True:
        try:
            with one_decision(model):
                return decide()
        except Overtaken as error:
            log(str(error))
        except StoreAway as error:
            now = time.monotonic()
            if began is None:
                began = now
                log(f"WARNING: {error}; the audit log of {model} is in it: waiting")
            if now - began >= SECONDS_TO_WAIT_FOR_THE_STORE:
                raise StoreAway(
                    f"{error}; nobody is named champion of {model} without its audit log: run the"
                    " same command again when the store answers; what is done stays done"
                ) from error
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _append(model: str, kind: Kind, facts: dict[str, Any]) -> Entry:
    found = read(model)
    previous = found.heads[-1] if found.heads else _BEGINNING
    entry = _new_entry(model, kind, len(found.entries) + 1, previous, facts)
    line = _line(entry)
    try:
        is_ours = lines_of(model).add(entry.number, line, previous)
    except DamagedRecord as error:
        raise damaged(model, str(error)) from error
    if not is_ours:
        raise overtaken(model, entry.number)
    _keep(model, entry, line, found)
    return entry


def begin_anew(model: str, kind: Kind, **facts: Any) -> Entry:
    """Let a log begin with an entry, in the place of one that was kept aside before, at one stroke.

    A kill leaves the one before or the new one, which tells what is to go on. Raises Overtaken.
    """
    entry = _new_entry(model, kind, 1, _BEGINNING, facts)
    line = _line(entry)
    if not lines_of(model).begin(line):
        raise overtaken(model, 1)
    _keep(model, entry, line, _NOTHING)
    return entry


def _keep(model: str, entry: Entry, line: bytes, before: Log) -> None:
    """Let the decision that wrote an entry see it."""
    pins = _pins.get() or {}
    if model in pins:
        pins[model] = replace(
            before,
            entries=(*before.entries, entry),
            heads=(*before.heads, hashlib.sha256(line[:-1]).hexdigest()),
            num_anchored=before.num_anchored + 1,
        )


def _new_entry(model: str, kind: Kind, number: int, previous: str, facts: dict[str, Any]) -> Entry:
    return Entry(
        number=number,
        kind=kind,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model,
        previous=previous,
        writer=_this_writer() if is_shared() else "",
        **{"who": f"{getuser()}@{node()}", **facts},
    )


def _line(entry: Entry) -> bytes:
    facts = asdict(entry)
    if not entry.writer:
        del facts["writer"]
    return json.dumps(facts, sort_keys=True).encode() + b"\n"


def _this_writer() -> str:
    return f"{this_process()} {digest_of(str(home()))[:_DIGITS_OF_A_NAME]}"


def is_under_way(model: str, intent: Entry) -> bool:
    """Whether another home is about to settle an intent; the caller holds this home's lock.

    One whose process cannot be seen from here has some time for it, by the clock of this machine.
    A process of this home, which lives perhaps, has left the move: it would hold the lock.
    """
    process, _, home_of_it = intent.writer.partition(" ")
    is_ours = home_of_it == _this_writer().partition(" ")[2] and not is_elsewhere(process)
    if not is_shared() or is_ours or not is_alive(process):
        return False
    deadline = time.monotonic() + SECONDS_OF_A_MOVE
    while time.monotonic() < deadline:
        if len(latest(model).entries) > intent.number:
            return True
        time.sleep(min(_SECONDS_BETWEEN_LOOKS, SECONDS_OF_A_MOVE / 10))
    return False


def readable_entries(model: str) -> list[Entry]:
    """Whatever can be read of a damaged log; nothing of it is proven."""
    entries = []
    for line in lines_of(model).readable().split(b"\n"):
        with suppress(DamagedRecord):
            entries.append(_entry(parsed(line, dict[str, Any], "")))
    return entries


def set_aside(model: str) -> str:
    """Keep a log that cannot be relied on; returns its name, or nothing where there is none.

    It stays in its place until `begin_anew` puts a new one there.
    """
    return lines_of(model).set_aside()
