"""Many pictures, read by several processes at once, a shard at a time.

A process is given the names of some files and writes what it read of them as one shard: a line of
JSON, then the pixels. So no process holds more than the picture that it decodes and one shard, a
run that was killed goes on with the shards that it finds whole, and what comes out depends neither
on the number of processes nor on who read what. A process ends when the pipe from the one that
started it does, however that ended.
"""

import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.image_pixels import (
    CANNOT_DECODE,
    NOT_A_PICTURE,
    NotAPicture,
    Picture,
    Size,
    decoded,
    size_of,
)
from tasks.data.own_files import CANNOT_OPEN, content_digest, readable
from tasks.store.files import CannotWrite, DiskFull, atomic_file, project_root

_MARK_BYTES = 8
SECONDS_TO_END = 5.0
_ERRORS: dict[str, type[OSError]] = {"CannotWrite": CannotWrite, "DiskFull": DiskFull}


class ReaderDied(RuntimeError):
    """A process that reads pictures ended in the middle of one, twice."""


def num_processes() -> int:
    """How many read pictures at once: as many as there are cores for this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# What is read of one file -----------------------------------------------------------------------


def size_or_reason(path: Path) -> Size | str:
    """Width and height of a picture from its header, or why it is none."""
    try:
        return size_of(path)
    except Exception as error:  # decoders of damaged files raise almost anything
        return _reason(error, path)


def picture_or_reason(path: Path, size: Size, image_size: int | Size | None) -> Picture | str:
    """A picture, or why it cannot be read.

    size: what its header says; image_size: see `decoded`.
    """
    try:
        picture = decoded(path, image_size)
        height, width = picture.pixels.shape[:2]
        if image_size is None and (width, height) != tuple(size):
            raise ValueError(f"is {width}x{height}, its header says otherwise")
    except Exception as error:  # see above
        return _reason(error, path)
    return picture


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"{CANNOT_OPEN}: {error.strerror}"
    words = (str(error) or type(error).__name__).splitlines()[0]
    kind = NOT_A_PICTURE if isinstance(error, NotAPicture) else CANNOT_DECODE
    return f"{kind}: {readable(words.replace(str(path), path.name))}"


# Shards -----------------------------------------------------------------------------------------


def write_shard(path: Path, request: Mapping[str, Any], begin: Callable[[int], None]) -> None:
    """Read the pictures of a request and write them as a shard, whole or not at all."""
    told: list[str | list[Any]] = []
    parts: list[bytes] = []
    contents = {}
    for index, location in enumerate(request["locations"]):
        begin(index)
        file = Path(location)
        if index in request["fresh"]:
            contents[str(index)] = content_digest(file)
        found = picture_or_reason(file, request["sizes"][index], request["image_size"])
        if isinstance(found, str):
            told.append(found)
        else:
            told.append([*found.pixels.shape, list(found.remarks)])
            parts.append(found.pixels.tobytes())
    pixels = hashlib.sha256()
    for part in parts:
        pixels.update(part)
    record = {"key": request["key"], "contents": contents, "pictures": told}
    record["sha256"] = pixels.hexdigest()
    with atomic_file(path) as temporary, temporary.open("wb") as file_of_shard:
        file_of_shard.write(json.dumps(record).encode("ascii") + b"\n")
        file_of_shard.writelines(parts)


def shard_record(path: Path, key: str, locations: Sequence[str]) -> list[str | list[Any]] | None:
    """What a whole shard of these files tells of each: a reason, or shape and remarks.

    None for none, one of other files, one that is damaged, and where a file that had just been
    written when it was read is another one now.
    """
    try:
        with path.open("rb") as file:
            record = json.loads(file.readline())
            if record["key"] != key:
                return None
            if hashlib.file_digest(file, "sha256").hexdigest() != record["sha256"]:
                return None
        for index, digest in record["contents"].items():
            if content_digest(Path(locations[int(index)])) != digest:
                return None
        told: list[str | list[Any]] = record["pictures"]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return told if len(told) == len(locations) else None


def pictures_of(path: Path) -> Iterator[np.ndarray]:
    """The pictures of a shard in order: (H, W, 1 or 3) uint8 each."""
    with path.open("rb") as file:
        for each in json.loads(file.readline())["pictures"]:
            if not isinstance(each, str):
                shape = tuple(each[:3])
                content = file.read(int(np.prod(shape)))
                yield np.frombuffer(content, np.uint8).reshape(shape)


# The processes ----------------------------------------------------------------------------------


class _Mark:
    """Which file of its request a process has begun with, where the one that asks can see it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __call__(self, index: int) -> None:
        os.pwrite(self._handle, index.to_bytes(_MARK_BYTES, "little"), 0)

    def read(self) -> int:
        return int.from_bytes(os.pread(self._handle, _MARK_BYTES, 0), "little")


class _Reader:
    """One process."""

    def __init__(self) -> None:
        self._marked = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
        self.mark = _Mark(self._marked.fileno())
        paths = [str(project_root()), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tasks.data.picture_processes", str(self._marked.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[self._marked.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,  # Ctrl-C reaches the command, which ends its readers
        )

    def asked(self, line: str) -> str:
        """The line that it answers a line with; empty where it has died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.mark(0)
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            return self.process.stdout.readline()
        except (OSError, ValueError):  # broken, or closed from outside
            return ""

    def how_it_ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self.process.wait(SECONDS_TO_END)
            return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return "it does not answer"

    def end(self) -> None:
        """Now, whatever it does; a shard that it had not finished has no name."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """When nobody asks it any more."""
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what was written to one that has died
                if stream is not None:
                    stream.close()
        self._marked.close()


class Readers:
    """So many processes that read pictures, for the time of a block."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._idle: queue.SimpleQueue[_Reader] = queue.SimpleQueue()
        self._readers: list[_Reader] = []
        self._is_closing = False
        self._changing = threading.Lock()

    def __enter__(self) -> "Readers":
        try:
            for _ in range(self._number):
                self._idle.put(self._started())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        for reader in self._readers:
            reader.close()

    def answers(
        self, requests: Sequence[Mapping[str, Any]]
    ) -> Generator[tuple[int, Any], None, None]:
        """The answers as they come, each with its request's place; to be closed.

        Raises ReaderDied, with the file that was being read, and OSError for what a process could
        not write.
        """
        pool = ThreadPoolExecutor(self._number, thread_name_prefix="pictures")
        try:
            waiting = {pool.submit(self._ask, each): i for i, each in enumerate(requests)}
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BaseException:
            self._end()  # or the threads would wait for them
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, request: Mapping[str, Any]) -> Any:
        line = json.dumps(dict(request))
        reader = self._idle.get()
        try:
            for attempt in range(2):  # the second one by another process
                answer = reader.asked(line)
                if answer or self._is_closing:
                    break
                place, how = reader.mark.read(), reader.how_it_ended()
                if attempt == 0:
                    reader = self._started()
        finally:
            self._idle.put(reader)
        if answer:
            return _checked(json.loads(answer))
        if self._is_closing:
            return None
        raise ReaderDied(
            f"{readable(request['locations'][place])}: the process that reads it died twice ({how})"
            " with that file in its hands; take the file out, or give the machine more memory, and"
            " run the same command again: what was read is kept"
        )

    def _started(self) -> _Reader:
        with self._changing:
            if self._is_closing:
                raise ReaderDied("no process is started any more")
            reader = _Reader()
            self._readers.append(reader)
        return reader

    def _end(self) -> None:
        with self._changing:
            self._is_closing = True
        for reader in self._readers:
            reader.end()


def _checked(answer: dict[str, Any]) -> Any:
    if "errno" in answer:
        kind = _ERRORS.get(answer["kind"], OSError)
        raise kind(answer["errno"], answer["error"], answer["path"])
    return answer["answer"]


# In such a process ------------------------------------------------------------------------------


def _answer(request: dict[str, Any], mark: _Mark) -> dict[str, Any]:
    try:
        if "shard" in request:
            write_shard(Path(request["shard"]), request, mark)
            return {"answer": None}
        found = []
        for index, location in enumerate(request["locations"]):
            mark(index)
            found.append(size_or_reason(Path(location)))
        return {"answer": found}
    except OSError as error:  # of a shard: its disk is full, or its folder gone
        kind = type(error).__name__
        told = {"error": error.strerror, "path": str(error.filename)}
        return {"errno": error.errno, "kind": kind, **told}


def serve(handle: int) -> None:
    """Answer requests until the input ends; then at once, whatever is being read."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "w")  # what libraries print must not mix with our answers
    os.dup2(2, 1)
    threading.Thread(target=read, daemon=True, name="requests").start()
    mark = _Mark(handle)
    while True:
        replies.write(json.dumps(_answer(json.loads(lines.get()), mark)) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
