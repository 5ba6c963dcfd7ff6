"""The processes that try trials out, one trial at a time each.

Threads of one process would disturb each other, for training seeds torch's one global generator
at each step. A worker is started once, since imports take seconds, is asked in lines of JSON, and
ends when nobody is there to ask it any more: then its MLflow run is closed as KILLED, and its
checkpoint stays.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tasks.runtime import stopping
from tasks.runtime.progress import log
from tasks.store.files import BadInput, home, project_root
from tasks.store.records import shaped

if TYPE_CHECKING:
    from tasks.search.outcome import Outcome
    from tasks.search.trial import TrialRequest

SECONDS_TO_CLOSE = 20.0
"""How long a worker may take to close what is open, before it is ended."""
_ERRORS: dict[str, type[Exception]] = {
    "BadInput": BadInput,
    "ConnectionError": ConnectionError,
    "TimeoutError": TimeoutError,
}


class WorkerDied(RuntimeError):
    """A worker process ended in the middle of a trial, twice."""


class TrialError(RuntimeError):
    """A trial could not be tried, for a reason that is not its settings'."""


class _Process:
    """One worker."""

    def __init__(self, number: int, threads: int) -> None:
        path = home() / "logs" / f"search-{number}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        paths = [str(project_root()), os.environ.get("PYTHONPATH", "")]
        with open(path, "ab", opener=_private_file) as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tasks.search.workers", str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": str(threads),
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                },
                start_new_session=True,  # Ctrl-C reaches the command, which stops its workers
            )

    def asked(self, request: str) -> str:
        """The line that it answers a line with; empty where it has died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
            return self.process.stdout.readline()
        except (OSError, ValueError):  # broken, or closed from outside
            return ""

    def end(self, *, now: bool) -> None:
        """now: in the middle of a trial, if there is one."""
        with suppress(OSError):
            if now:
                self.process.send_signal(signal.SIGTERM)
            if self.process.stdin is not None:
                self.process.stdin.close()

    def wait(self) -> None:
        """Wait for its end, and insist on it."""
        try:
            self.process.wait(SECONDS_TO_CLOSE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what was written to one that has died
                if stream is not None:
                    stream.close()


class Workers:
    """So many worker processes, for the time of a block; threads: of torch, in each of them."""

    def __init__(self, number: int, threads: int) -> None:
        self._number, self._threads = number, threads
        self._idle: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._processes: dict[int, _Process] = {}
        self._is_closing = False

    def __enter__(self) -> "Workers":
        for number in range(self._number):  # at once: they import while the data are prepared
            self._processes[number] = _Process(number, self._threads)
            self._idle.put(number)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_closing = True
        for process in self._processes.values():
            process.end(now=kind is not None)
        for process in self._processes.values():
            process.wait()

    def try_out(self, request: "TrialRequest") -> "Outcome":
        """A trial's outcome, from the next worker that has nothing to do.

        A worker that dies is replaced once, and the next one goes on from the checkpoint. Raises
        WorkerDied, ConnectionError where servers are away, and TrialError.
        """
        number = self._idle.get()
        try:
            line = json.dumps(asdict(request))
            for _ in range(2):
                answer = self._processes[number].asked(line)
                if answer or self._is_closing:
                    break
                log(f"{request.label}: its process died; another one goes on with it")
                self._processes[number].wait()
                self._processes[number] = _Process(number, self._threads)
        finally:
            self._idle.put(number)
        if not answer:
            raise WorkerDied(
                f"{request.label}: its process died; see logs/search-{number}.log in {home()}"
            )
        return outcome_from(request.label, json.loads(answer))


def outcome_from(label: str, answer: dict[str, Any]) -> "Outcome":
    """What a worker answered for a trial; raises what it could not be tried for."""
    from tasks.search.outcome import Outcome

    if "error" in answer:
        raise _ERRORS.get(answer["kind"], TrialError)(f"{label}: {answer['error']}")
    found: Outcome = shaped(answer, Outcome, "a worker's answer")
    return found


def _private_file(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


# In the worker --------------------------------------------------------------------------------


def answer_to(line: str) -> dict[str, Any]:
    """The outcome of what a line asks for, or an error that is not the settings', as JSON."""
    from tasks.runtime.messages import one_line
    from tasks.search.trial import TrialRequest, try_out

    try:
        request: TrialRequest = shaped(json.loads(line), TrialRequest, "a trial's request")
        return asdict(try_out(request))
    except Exception as error:
        stopping.raise_if_stopped()  # it may show as any error
        told = [name for name, kind in _ERRORS.items() if isinstance(error, kind)]
        kind = told[0] if told else type(error).__name__
        log(f"{kind}: {one_line(error)}")
        return {"error": f"{type(error).__name__}: {one_line(error)}", "kind": kind}


def _asked() -> "queue.SimpleQueue[str | None]":
    """Lines as they come; None, and a stop if a trial is under way, when nobody is there."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put(None)
        if _at_work.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=read, daemon=True, name="questions").start()
    return lines


_at_work = threading.Event()


def serve(threads: int) -> None:
    """Answer requests until the input ends."""
    lines = _asked()
    replies = os.fdopen(os.dup(1), "w")  # what libraries print must not mix with our answers
    os.dup2(2, 1)
    from tasks.search.trial import use_threads  # imports PyTorch, Prefect and MLflow

    use_threads(threads)
    while (line := lines.get()) is not None:
        _at_work.set()
        answer = answer_to(line)
        _at_work.clear()
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


def main() -> None:
    """A worker's life; argument: the number of its threads."""
    stopping.listen()
    try:
        serve(int(sys.argv[1]))
    except KeyboardInterrupt:
        os._exit(stopping.EXIT_CODE)  # no thread of a library keeps it
    except OSError:  # nobody reads what it answers
        os._exit(1)


if __name__ == "__main__":
    main()
