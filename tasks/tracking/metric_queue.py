"""What a run tells the tracking server as it goes: first into a local file, then on its way.

A loop must not wait for a server, nor lose a number when the server is away. So numbers and
pictures are appended to a journal in the home folder, and a thread passes its lines on, in order.
What a killed process left there is sent by the next one. A line keeps its time stamp, by which the
server knows a number that it has already; steps that a resumed run does again are not added twice.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tasks.runtime.progress import log
from tasks.store.files import append_lines, home, inside, portable, remove, set_aside, write_json
from tasks.store.locks import file_lock
from tasks.store.records import DamagedRecord, parsed, read_record, shaped, told
from tasks.tracking.mlflow_client import (
    TrackingUnavailable,
    last_steps,
    log_file,
    log_picture,
    send_metrics,
)

SECONDS_BETWEEN_SENDINGS = 1.0
"""The server works on the processor that trains: many numbers at once cost it less."""
SECONDS_BETWEEN_TRIES = 2.0
SECONDS_TO_DELIVER = 15.0


@dataclass(frozen=True, slots=True)
class _Number:
    name: str
    value: float
    time: int
    step: int


@dataclass(frozen=True, slots=True)
class _Picture:
    name: str
    png: str
    folder: str
    step: int


@dataclass(frozen=True, slots=True)
class _Mark:
    bytes: int


class MetricQueue:
    """The numbers and pictures of one part of a run, kept until the tracking server has them."""

    def __init__(
        self, run_id: str, part: str = "training", prefix: str = "", *, may_stay_empty: bool = False
    ) -> None:
        """Open, or go on with, the journal of a part; prefix: put before each metric's name.

        may_stay_empty: there may be no numbers, as of a fit that is found; `get_ready` is called
        before the first one.
        """
        self.run_id = run_id
        self.prefix = prefix
        self._path = _folder(run_id) / f"{part}.jsonl"
        self._waiting: list[dict[str, Any]] = []
        self._last_step = _mended(self._path)
        self._knows_the_server = False
        if not may_stay_empty:
            self.get_ready()
        self._news = threading.Event()
        self._is_closing = threading.Event()
        self._is_given_up = False
        self._sender: threading.Thread | None = None

    def get_ready(self) -> None:
        """Ask the server which numbers the run has; raises TrackingUnavailable.

        A damaged result is made again in the run that has its numbers already.
        """
        if not self._knows_the_server:
            for name, step in last_steps(self.run_id).items():
                self._last_step[name] = max(step, self._last_step.get(name, -1))
            self._knows_the_server = True

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep some numbers of one step."""
        now = int(time.time() * 1000)
        for name, value in numbers.items():
            if self._is_new(self.prefix + name, step):
                line = {"name": self.prefix + name, "value": value, "time": now, "step": step}
                self._waiting.append(line)

    def add_picture(self, step: int, key: str, png: Path, folder: str) -> None:
        """Keep a picture of one step, to be stored in a folder and shown on the key's slider."""
        if self._is_new(f"picture {key}", step):
            self._waiting.append(
                {"name": f"picture {key}", "png": portable(png), "folder": folder, "step": step}
            )

    def flush(self) -> None:
        """Put what is waiting into the file, and the thread to work."""
        if self._waiting:
            append_lines(self._path, map(json.dumps, self._waiting))
            self._waiting.clear()
        if self._sender is None and self._path.exists():
            self._sender = threading.Thread(target=self._pass_on, daemon=True, name="journal")
            self._sender.start()
        self._news.set()

    def close(self) -> None:
        """Deliver everything; what the server cannot take now stays for `deliver`."""
        self.flush()
        self._is_closing.set()
        self._news.set()
        if self._sender is not None:
            self._sender.join(SECONDS_TO_DELIVER)
            self._is_given_up = True

    def _is_new(self, name: str, step: int) -> bool:
        self.get_ready()
        if step <= self._last_step.get(name, -1):
            return False
        self._last_step[name] = step
        return True

    def _pass_on(self) -> None:
        """Send line after line until the journal is closed and empty."""
        was_away = False
        while not self._is_given_up:
            self._news.wait()
            self._news.clear()
            is_last = self._is_closing.is_set()
            try:
                with _sending():
                    if self._is_given_up:  # `deliver` does it, or has done it
                        return
                    _send(self._path, self.run_id)
                    if is_last:
                        _drop(self._path)
            except FileNotFoundError:  # delivered by `deliver` in the meantime
                return
            except TrackingUnavailable as error:
                if not was_away:
                    log(f"numbers are kept here until MLflow takes them: {error}")
                was_away = True
                time.sleep(SECONDS_BETWEEN_TRIES)
                self._news.set()
                continue
            except Exception as error:  # `deliver` meets it again, at the run's end
                log(f"numbers are kept here until the run ends, for they cannot be sent: {error}")
                return
            if was_away:
                log("MLflow answers again and has all numbers")
                was_away = False
            if is_last:
                return
            self._is_closing.wait(SECONDS_BETWEEN_SENDINGS)


def flush_run(run_id: str) -> None:
    """Send what journals of a run still hold; raises TrackingUnavailable where that fails.

    What the server refuses would be refused for ever: it is set aside, so that the run can end.
    """
    with _sending():
        for path in sorted(_folder(run_id).glob("*.jsonl")):
            _mended(path)
            if not path.exists():  # it was set aside
                continue
            try:
                _send(path, run_id)
            except ValueError as error:
                _set_aside(path, error)
            _drop(path)
        _drop_folder(_folder(run_id))


def discard(run_id: str) -> None:
    """Drop the journals of a run."""
    remove(_folder(run_id))


def pending_runs() -> list[str]:
    """The ids of runs of which some numbers have not reached the tracking server."""
    return sorted({path.parent.name for path in (home() / "journals").glob("*/*.jsonl")})


def _folder(run_id: str) -> Path:
    return inside(home() / "journals", run_id)


def _mended(path: Path) -> dict[str, int]:
    """Cut a half-written line off a journal; returns the last step of each name in it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        set_aside(path, told(error))
        return {}
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    return {line.name: line.step for line in map(_parsed, whole.splitlines()) if line}


def _parsed(raw: bytes) -> _Number | _Picture | None:
    """A line, or None for one that a bad disk damaged: the others shall arrive all the same."""
    try:
        facts = parsed(raw, dict[str, Any], "a journal's line")
        line: _Number | _Picture = shaped(
            facts, _Picture if "png" in facts else _Number, "a journal's line"
        )
    except DamagedRecord:
        return None
    return line


def _send(path: Path, run_id: str) -> None:
    """Send the lines that are not marked as sent, marking as it goes.

    Only one thread of one process at a time may do this; see `_sending`.
    """
    mark = path.with_suffix(".sent")
    sent = _sent_bytes(mark, path)
    with path.open("rb") as file:
        file.seek(sent)
        content = file.read()
    content = content[: content.rfind(b"\n") + 1]
    numbers: list[dict[str, Any]] = []
    damaged: list[str] = []
    for raw in content.splitlines(keepends=True):
        line = _parsed(raw)
        sent += len(raw)
        if line is None:
            damaged.append(raw.decode(errors="replace").rstrip("\n"))
        elif isinstance(line, _Picture):
            send_metrics(run_id, numbers)
            numbers = []
            _send_picture(run_id, line)
            write_json(mark, {"bytes": sent})
        else:
            numbers.append(asdict(line))
    send_metrics(run_id, numbers)
    if damaged:
        aside = path.with_suffix(".damaged")
        append_lines(aside, damaged)
        log(f"{path}: {len(damaged)} damaged lines are left out; they are kept in {aside.name}")
    if content:
        write_json(mark, {"bytes": sent})


def _set_aside(path: Path, error: ValueError) -> None:
    aside = path.with_suffix(".refused")
    append_lines(aside, path.read_text(errors="replace").splitlines())
    remove(path)
    remove(path.with_suffix(".sent"))
    log(f"MLflow refused a run's numbers, they are in {aside}: {error}")


def _sent_bytes(mark: Path, path: Path) -> int:
    """How much of a journal was sent; nothing if a bad disk damaged the mark: the server knows."""
    try:
        sent = read_record(mark, _Mark).bytes
    except (FileNotFoundError, DamagedRecord):
        return 0
    return sent if 0 <= sent <= path.stat().st_size else 0


def _send_picture(run_id: str, line: _Picture) -> None:
    png = home() / line.png
    if not png.exists():  # a damaged result is removed with its pictures, and drawn again
        return
    try:
        with Image.open(png) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises for damaged files
        log(f"{png.name} is damaged and is left out: {error}")
        return
    log_file(run_id, png, line.folder)
    log_picture(run_id, png, line.name.removeprefix("picture "), line.step)


def _sending() -> AbstractContextManager[None]:
    """Let one sender of this home work at a time: marks and files must tell the same story."""
    return file_lock("journals")


def _drop(path: Path) -> None:
    """Remove a journal, unless some of it was not sent: somebody may have added to it."""
    mark = path.with_suffix(".sent")
    if path.exists() and path.stat().st_size > _sent_bytes(mark, path):
        return
    remove(path)
    remove(mark)
    _drop_folder(path.parent)


def _drop_folder(folder: Path) -> None:
    """Remove a run's folder if no journal is left in it."""
    if folder.exists() and all(path.suffix == ".sent" for path in folder.iterdir()):
        remove(folder)
