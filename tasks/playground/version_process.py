"""The processes that hold loaded versions, one each, and what they are asked.

Imports neither torch nor MLflow: whoever serves pages holds no weights.
"""

import itertools
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from tasks.runtime.messages import one_line
from tasks.store.files import home, project_root

SECONDS_TO_LOAD, SECONDS_FOR_AN_ANSWER = 300.0, 300.0
_SECONDS_TO_END = 3.0
MAX_PROCESSES = 4
"""Versions that are held at a time; each takes 0.7 GB, nearly all of it libraries."""
Answer = dict[str, Any]


class VersionFailed(RuntimeError):
    """A version does not load, or a request was refused; the message is for a person."""


class ProcessEnded(VersionFailed):
    """The process of a version is gone; the next request starts another one."""


class VersionProcess:
    """A version that is loading, or loaded, in a process of its own. Any thread may ask it."""

    def __init__(
        self, name: str, number: int, environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Start the process; it loads while others do something else.

        environment: what it finds besides that of this process.
        """
        self.name, self.number = name, number
        self.last_used = time.monotonic()
        self._ids = itertools.count()
        self._waiting: dict[int, queue.SimpleQueue[Answer]] = {}
        self._lock = threading.Lock()
        self._has_begun = threading.Event()
        self._facts: Answer | None = None
        self._failure = ""
        log = home() / "logs" / "play.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        paths = [str(project_root()), *filter(None, [os.environ.get("PYTHONPATH")])]
        with open(log, "a", opener=lambda path, flags: os.open(path, flags, 0o600)) as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.playground.version_worker", name, str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=home(),
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C is for whoever serves, who then ends this
            )
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether it runs still."""
        return self.process.poll() is None

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits for an answer, or it is loading."""
        return self.is_alive and (bool(self._waiting) or not self._has_begun.is_set())

    def facts(self) -> Answer:
        """What the version says of itself, once it is loaded; raises VersionFailed."""
        if not self._has_begun.wait(SECONDS_TO_LOAD):
            self.close()
            raise VersionFailed(
                f"{self.name} version {self.number} has not loaded in {SECONDS_TO_LOAD:.0f} s"
            )
        if self._facts is None:
            raise VersionFailed(self._failure)
        return self._facts

    def ask(self, what: str, **arguments: Any) -> Iterator[Answer]:
        """What is asked, answer by answer; ends early where the iterator is closed.

        Raises VersionFailed for what the version refuses, and ProcessEnded.
        """
        self.facts()
        self.last_used = time.monotonic()
        number, answers = next(self._ids), queue.SimpleQueue[Answer]()
        self._waiting[number] = answers
        try:
            self._send({"id": number, "ask": what, **arguments})
            while True:
                if not self.is_alive and answers.empty():
                    raise self._ended()
                try:
                    message = answers.get(timeout=SECONDS_FOR_AN_ANSWER)
                except queue.Empty:
                    raise VersionFailed(
                        f"{self.name} version {self.number} has not answered in"
                        f" {SECONDS_FOR_AN_ANSWER:.0f} s"
                    ) from None
                if "answer" not in message:
                    break
                yield message["answer"]
            if "ended" in message:
                raise self._ended()
            if "error" in message:
                raise VersionFailed(str(message["error"]))
        finally:
            self.last_used = time.monotonic()
            del self._waiting[number]
            with suppress(ProcessEnded):
                self._send({"stop": number})

    def answer(self, what: str, **arguments: Any) -> Answer:
        """The only answer to what is asked."""
        (found,) = self.ask(what, **arguments)
        return found

    def close(self) -> None:
        """End the process."""
        self._close_input()
        try:
            self.process.wait(_SECONDS_TO_END if self._has_begun.is_set() else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _close_input(self) -> None:
        with suppress(OSError), self._lock:  # a broken pipe
            assert self.process.stdin is not None, "it was asked for"
            self.process.stdin.close()

    def _send(self, message: Answer) -> None:
        assert self.process.stdin is not None, "it was asked for"
        try:
            with self._lock:
                self.process.stdin.write(json.dumps(message) + "\n")
                self.process.stdin.flush()
        except (OSError, ValueError):  # a broken pipe, or one that was closed
            raise self._ended() from None

    def _ended(self) -> ProcessEnded:
        return ProcessEnded(
            f"the process that held {self.name} version {self.number} has ended; ask again, and"
            " another one loads it"
        )

    def _read(self) -> None:
        """Hand each line to whoever waits for it, until the process ends."""
        assert self.process.stdout is not None, "it was asked for"
        with self.process.stdout as lines:
            for line in lines:
                message = json.loads(line)
                if "facts" in message:
                    self._facts = message["facts"]
                    self._has_begun.set()
                elif "failed" in message:
                    self._failure = message["failed"]
                elif (waiting := self._waiting.get(message["id"])) is not None:
                    waiting.put(message)
        code = self.process.wait()
        self._close_input()
        if not self._failure:
            self._failure = (
                f"the process that loads {self.name} version {self.number} ended with exit code"
                f" {code}; see {home() / 'logs' / 'play.log'}"
            )
        self._has_begun.set()
        for waiting in list(self._waiting.values()):
            waiting.put({"ended": True})


class Versions:
    """The loaded versions of one server; those that were not asked for longest make room."""

    def __init__(
        self,
        max_processes: int = MAX_PROCESSES,
        environment: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """environment: what a process that begins now finds besides that of this one."""
        self._max_processes, self._environment = max_processes, environment
        self._held: dict[tuple[str, int], VersionProcess] = {}
        self._lock = threading.Lock()

    def get(self, name: str, number: int) -> VersionProcess:
        """The process of a version, which may be loading still; one that has ended is replaced.

        Raises VersionFailed where all that may be held are at work, and where it does not start.
        """
        with self._lock:
            found = self._held.get((name, number))
            if found is not None and found.is_alive:
                found.last_used = time.monotonic()
                return found
            self._make_room()
            try:
                started = VersionProcess(name, number, self._environment())
            except (OSError, ValueError) as error:  # BadInput and DamagedRecord are ValueErrors
                raise VersionFailed(
                    f"{name} version {number} cannot be started: {one_line(error)}"
                ) from error
            self._held[name, number] = started
            return started

    def close(self) -> None:
        """End them all."""
        with self._lock:
            for each in self._held.values():
                each.close()
            self._held.clear()

    def _make_room(self) -> None:
        self._held = {key: each for key, each in self._held.items() if each.is_alive}
        idle = [(each.last_used, key) for key, each in self._held.items() if not each.is_busy]
        for _, key in sorted(idle)[: max(0, len(self._held) + 1 - self._max_processes)]:
            self._held.pop(key).close()
        if len(self._held) >= self._max_processes:
            raise VersionFailed(
                f"{len(self._held)} versions are at work, and no more are held at a time; try"
                " again when one of them has finished"
            )
