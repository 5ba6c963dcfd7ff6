"""The project's own manifest of states: which step ran when, from what, and how it ended.

One file per step below `steps/` in the home folder, a JSON line when the step begins and one when
it ends. Nothing here depends on Prefect, whose task states travel as events and can get lost.
"""

import json
import re
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tasks.runtime.messages import one_line
from tasks.runtime.processes import is_alive, seconds_up, this_process, this_start
from tasks.store.clock import steady_now
from tasks.store.files import append_lines, digest_of, home, inside, write_text
from tasks.store.locks import file_lock
from tasks.store.records import DamagedRecord, parsed, shaped, told

State = Literal["running", "made", "unchanged", "failed", "killed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Beginning:
    """The line of a step that begins."""

    mark: str
    key: str
    parts: dict[str, Any]
    owner: str
    started_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ending:
    """The line of a step that ended."""

    mark: str
    state: State
    reasons: list[str]
    seconds: float


@dataclass(kw_only=True, slots=True)
class StepRecord:
    """One time that a step ran; a step that finds its result sets `state` to "unchanged"."""

    step: str
    key: str
    parts: dict[str, Any]
    """What the key is made of, as JSON."""
    owner: str
    """The process that does it."""
    started_at: float
    """Seconds since 1970, as the clock told it: for people."""
    started_up: float | None = None
    """How many seconds the machine had been up then, which no setting of the clock moves."""
    state: State = "running"
    reasons: list[str] = field(default_factory=list)
    """Why it ended so, or why a stored result was not taken."""
    seconds: float | None = None
    """How long it took; None while it runs, or when its process died."""

    def seconds_since_its_end(self, now: float) -> float:
        """How long ago it ended, or began if that is not known; now: see `steady_now`."""
        since_start = now - self.started_at
        if self.started_up is not None and this_start() and f":{this_start()}." in self.owner:
            since_start = seconds_up() - self.started_up + (now - steady_now())
        return since_start - (self.seconds or 0.0)


@contextmanager
def recorded(step: str, parts: Mapping[str, Any], key: str = "") -> Iterator[StepRecord]:
    """Record that a step runs while the block does, and how it ended.

    key: what its result is found by, where that is not the digest of the parts.
    """
    record = StepRecord(
        step=step,
        key=key or digest_of(dict(parts)),
        parts=dict(parts),
        owner=this_process(),
        started_at=time.time(),
        started_up=seconds_up(),
    )
    steady_now()  # before anybody sets the clock
    mark = uuid.uuid4().hex
    noted = ("key", "parts", "owner", "started_at", "started_up")
    beginning = {name: getattr(record, name) for name in noted}
    _append(step, {"mark": mark, **beginning})
    state: State = "killed"
    try:
        yield record
        state = "unchanged" if record.state == "unchanged" else "made"
    except Exception as error:
        state = "failed"
        record.reasons.append(f"{type(error).__name__}: {one_line(error)}")
        raise
    finally:
        record.state, record.seconds = state, seconds_up() - (record.started_up or 0.0)
        ending = {name: getattr(record, name) for name in ("state", "reasons", "seconds")}
        _append(step, {"mark": mark, **ending})


def history(step: str) -> list[StepRecord]:
    """Every time that a step ran, oldest first; one whose process died is "killed".

    A damaged line counts as not written: `damages` names it.
    """
    found: dict[str, StepRecord] = {}
    for line in _lines(step):
        if isinstance(line, _Beginning):
            found[line.mark] = StepRecord(
                step=step,
                key=line.key,
                parts=line.parts,
                owner=line.owner,
                started_at=line.started_at,
            )
        elif isinstance(line, _Ending) and line.mark in found:  # else its beginning was lost
            record = found[line.mark]
            record.state, record.reasons, record.seconds = line.state, line.reasons, line.seconds
    for record in found.values():
        if record.state == "running" and not _is_at_work(record):
            record.state = "killed"
    return list(found.values())


def damages(step: str) -> list[str]:
    """What cannot be read in a step's record, one line of words for each damaged line."""
    return [str(line) for line in _lines(step) if isinstance(line, DamagedRecord)]


def _is_at_work(record: StepRecord) -> bool:
    try:
        return is_alive(record.owner)
    except (ValueError, OverflowError):  # no name of a process
        return False


def steps() -> list[str]:
    """The names of all steps that ever ran in this home."""
    return sorted(path.stem for path in (home() / "steps").glob("*.jsonl"))


def running() -> list[StepRecord]:
    """The steps that some living process is doing now."""
    return [record for step in steps() for record in history(step) if record.state == "running"]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Which parts of a key differ, one line each: "settings.fit.steps: 1500, was 900"."""
    old, new = _flat(before), _flat(after)
    lines = []
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        if name.startswith("code."):
            lines.append(f"{name}: {_of_code(name in old, name in new)}")
        else:
            lines.append(f"{name}: {_short(new, name)}, was {_short(old, name)}")
    return lines


def _short(parts: Mapping[str, Any], name: str) -> str:
    """A part in words; of a sha256 twelve digits."""
    word = str(parts.get(name, "nothing"))
    return word[:12] if re.fullmatch("[0-9a-f]{64}", word) else word


def _of_code(was_there: bool, is_there: bool) -> str:
    if was_there and is_there:
        return "edited"
    return "added" if is_there else "removed"


def _flat(value: object, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(str(name), part) for name, part in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(index), part) for index, part in enumerate(value)]
    else:
        return {prefix.removesuffix("."): value}
    if prefix == "code.":  # module names have dots of their own
        return {f"code.{name}": part for name, part in items}
    flat: dict[str, Any] = {}
    for name, part in items:
        flat.update(_flat(part, f"{prefix}{name}."))
    return flat


def _path(step: str) -> Path:
    return inside(home() / "steps", f"{step}.jsonl")


def _append(step: str, line: Mapping[str, Any]) -> None:
    with file_lock(f"steps-{step}"):
        append_lines(_path(step), [json.dumps(line, sort_keys=True)])


def forget_older(step: str, before: float, min_kept: int, keys: Collection[str]) -> int:
    """Drop the lines of times before a moment; returns how many times were dropped.

    before: seconds since 1970; min_kept: so many of the latest stay whatever their age; keys: the
    first 16 digits of keys whose latest time stays. Damaged lines go with the first that are
    dropped.
    """
    with file_lock(f"steps-{step}"):
        lines = [line for line in _lines(step) if not isinstance(line, DamagedRecord)]
        begun = [line for line in lines if isinstance(line, _Beginning)]
        latest = {line.key[:16]: line.mark for line in begun if line.key[:16] in keys}
        kept = {line.mark for line in begun[-min_kept:]} | set(latest.values())
        kept |= {line.mark for line in begun if line.started_at >= before}
        if len(kept) == len(begun):
            return 0
        rows = [json.dumps(asdict(line), sort_keys=True) for line in lines if line.mark in kept]
        write_text(_path(step), "".join(f"{row}\n" for row in rows))
        return len(begun) - len(kept)


def _lines(step: str) -> Iterator[_Beginning | _Ending | DamagedRecord]:
    """The lines of a step's record; a last one without its end was being written."""
    path = _path(step)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        yield DamagedRecord(f"{path}: {told(error)}")
        return
    whole, _, torn = content.rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
        try:
            yield _read(line, f"{path}: line {number}")
        except DamagedRecord as error:
            yield error
    if torn.strip():
        yield DamagedRecord(f"{path}: the last line was cut short")


def _read(line: bytes, where: str) -> _Beginning | _Ending:
    facts = parsed(line, dict[str, Any], where)
    made: _Beginning | _Ending = shaped(facts, _Ending if "state" in facts else _Beginning, where)
    if isinstance(made, _Beginning):
        shaped(made.parts.get("inputs", []), list[str], f"{where}: parts: inputs")
    return made
