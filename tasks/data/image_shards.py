"""What was read of a folder's pictures, and where it waits until it is stored.

A few pictures are read here and wait in memory. Many are read by several processes, and wait in
shards in the home (`tasks.data.picture_processes`), of which memory holds one at a time: a run that
was killed finds them, and goes on. The pixels are the same.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tasks.data import picture_processes
from tasks.data.folder_fingerprint import is_fresh, readers_digest
from tasks.data.image_pixels import Size, as_grey
from tasks.data.kinds import SHARDS
from tasks.data.own_files import OwnFile
from tasks.data.picture_processes import (
    Readers,
    picture_or_reason,
    pictures_of,
    shard_record,
    size_or_reason,
)
from tasks.store.files import BadInput, digest_of, home, remove, remove_orphaned_temp_files
from tasks.store.locks import file_lock

"""The folder of a home, below `data`, in which they wait."""
MANY_FILES, MANY_BYTES = 2000, 64 << 20
"""From so many on, processes are started: below, they take longer to start than to read."""
SHARD_FILES, SHARD_BYTES = 1024, 64 << 20
"""What is read for one shard at most, but for a larger file, which is one alone."""
COLOUR_FROM = 0.1
"""A set is in colour where at least this share of its pictures is; else all become grey."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one file: a reason why it is not read, or the shape of its picture."""

    reason: str = ""
    shape: tuple[int, ...] = ()
    """(H, W, 1 or 3)."""
    remarks: tuple[str, ...] = ()


class Decoded(Protocol):
    """Pictures that were read."""

    outcomes: list[Outcome]
    """Of each file."""

    def pictures(self) -> Iterator[np.ndarray]:
        """Those that could be read, in order: (H, W, 1 or 3) uint8; as often as asked."""
        ...


class Reader(Protocol):
    """Who reads files."""

    def sizes(self, files: Sequence[OwnFile]) -> list[Size | str]:
        """Width and height of each from its header, or why it is no picture."""
        ...

    def decoded(
        self, files: Sequence[OwnFile], sizes: Sequence[Size], image_size: int | None
    ) -> Decoded:
        """The pictures of files. sizes: what their headers say."""
        ...


class FolderPixels:
    """The pixels of a folder's pictures, all grey or all in colour, read where they wait.

    Like an array (N, C, H, W) uint8 it has a shape and gives its images in order, (C, H, W) each.
    """

    def __init__(self, decoded: Decoded) -> None:
        self._decoded = decoded
        shapes = [each.shape for each in decoded.outcomes if not each.reason]
        number, (height, width, _) = len(shapes), shapes[0]
        self.num_coloured = sum(shape[2] == 3 for shape in shapes)
        is_coloured = self.num_coloured and self.num_coloured >= COLOUR_FROM * number
        self.shape = (number, 3 if is_coloured else 1, height, width)

    @property
    def note(self) -> str:
        """The decision between grey and colour, where there was one to take."""
        if not 0 < self.num_coloured < self.shape[0]:
            return ""
        is_coloured = self.shape[1] == 3
        done = "the others are kept as colour too" if is_coloured else "they became grey"
        return f"{self.num_coloured} of {self.shape[0]} pictures have colour: {done}"

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for picture in self._decoded.pictures():
            image = np.empty(self.shape[1:], dtype=np.uint8)
            image[:] = (picture if self.shape[1] == 3 else as_grey(picture)).transpose(2, 0, 1)
            yield image


@contextmanager
def reader_of(folder: Path, files: Sequence[OwnFile], image_size: int | None) -> Iterator["Reader"]:
    """Who reads the files of a folder; what waits in shards goes at the end of the block.

    It stays where that is ended by anything but a refusal of the data: the next run goes on there.
    """
    if len(files) < MANY_FILES and sum(file.size for file in files) < MANY_BYTES:
        yield _ReaderHere()
        return
    from tasks.runtime.progress import log  # imports Prefect: not before settings are made

    key = digest_of([str(folder.resolve()), image_size])[:16]
    place = home() / "data" / SHARDS / key

    def waiting() -> None:
        log("another run reads these pictures; waiting for its end")

    with file_lock(f"{SHARDS}-{key}", waiting):
        remove_orphaned_temp_files(place)
        try:
            yield _ReaderInProcesses(place)
        except BadInput:
            remove(place)
            raise
        remove(place)


class _ReaderHere:
    """Reads in this process, into memory."""

    def sizes(self, files: Sequence[OwnFile]) -> list[Size | str]:
        from tasks.runtime.progress import with_progress  # see above

        return [size_or_reason(file.path) for file in with_progress(files, "look at files")]

    def decoded(
        self, files: Sequence[OwnFile], sizes: Sequence[Size], image_size: int | None
    ) -> Decoded:
        from tasks.runtime.progress import with_progress  # see above

        read = _DecodedHere()
        for file, size in zip(with_progress(files, "read pictures"), sizes, strict=True):
            found = picture_or_reason(file.path, size, image_size)
            if isinstance(found, str):
                read.outcomes.append(Outcome(reason=found))
            else:
                told = Outcome(shape=found.pixels.shape, remarks=found.remarks)
                read.outcomes.append(told)
                read.held.append(found.pixels)
        return read


class _DecodedHere:
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.held: list[np.ndarray] = []

    def pictures(self) -> Iterator[np.ndarray]:
        return iter(self.held)


class _ReaderInProcesses:
    """Has others read, into shards in a folder."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def sizes(self, files: Sequence[OwnFile]) -> list[Size | str]:
        parts = _parts(files)
        requests: list[dict[str, Any]] = [
            {"locations": [files[index].location for index in part]} for part in parts
        ]
        found: list[Size | str] = [""] * len(files)
        for number, answer in _answers(requests, "look at files"):
            for index, told in zip(parts[number], answer, strict=True):
                found[index] = told if isinstance(told, str) else (told[0], told[1])
        return found

    def decoded(
        self, files: Sequence[OwnFile], sizes: Sequence[Size], image_size: int | None
    ) -> Decoded:
        self._place.mkdir(parents=True, exist_ok=True)
        parts, readers = _parts(files), readers_digest()
        told: list[list[Outcome] | None] = []
        requests: list[dict[str, Any]] = []
        numbers: list[int] = []
        for number, part in enumerate(parts):
            of_part = [files[index] for index in part]
            states = [[each.parts, each.size, each.changed_at, each.identity] for each in of_part]
            wanted = [sizes[index] for index in part]
            request: dict[str, Any] = {
                "shard": str(self._path(number)),
                "key": digest_of([readers, image_size, states, wanted]),
                "locations": [each.location for each in of_part],
                "sizes": wanted,
                "fresh": [place for place, each in enumerate(of_part) if is_fresh(each)],
                "image_size": image_size,
            }
            told.append(self._outcomes(request))
            if told[-1] is None:
                requests.append(request)
                numbers.append(number)
        self._tell_of_earlier(len(parts), len(requests))
        for place, _ in _answers(requests, "read pictures"):
            told[numbers[place]] = self._outcomes(requests[place])
        lost = [number for number, each in enumerate(told) if each is None]
        if lost:
            raise OSError(
                f"{self._path(lost[0])}: it was written, and cannot be read again; check the disk,"
                " then run the same command again"
            )
        outcomes = [each for of_part in told for each in of_part or []]
        return _DecodedInShards(outcomes, [self._path(number) for number in range(len(parts))])

    def _path(self, number: int) -> Path:
        return self._place / f"{number:06d}.shard"

    def _outcomes(self, request: Mapping[str, Any]) -> list[Outcome] | None:
        """What a shard tells of its files; None where it is not there, or not theirs."""
        record = shard_record(Path(request["shard"]), request["key"], request["locations"])
        if record is None:
            return None
        return [
            Outcome(reason=each)
            if isinstance(each, str)
            else Outcome(shape=tuple(each[:3]), remarks=tuple(each[3]))
            for each in record
        ]

    def _tell_of_earlier(self, number: int, missing: int) -> None:
        from tasks.runtime.progress import log  # see above

        if missing < number:
            log(f"{number - missing} of {number} parts of the pictures were read by an earlier run")


class _DecodedInShards:
    def __init__(self, outcomes: list[Outcome], paths: list[Path]) -> None:
        self.outcomes, self._paths = outcomes, paths

    def pictures(self) -> Iterator[np.ndarray]:
        for path in self._paths:
            yield from pictures_of(path)


def _answers(requests: Sequence[Mapping[str, Any]], what: str) -> Iterator[tuple[int, Any]]:
    """The answers of several processes to requests about files, as they come."""
    from tasks.runtime.progress import with_progress  # see above

    number = min(picture_processes.num_processes(), len(requests))
    if number == 0:
        return
    sizes = [len(each["locations"]) for each in requests]
    with Readers(number) as readers, closing(readers.answers(requests)) as answers:
        num_told = 0
        for _ in with_progress(range(sum(sizes)), what):
            if num_told == 0:
                place, answer = next(answers)
                yield place, answer
                num_told = sizes[place]
            num_told -= 1


def _parts(files: Sequence[OwnFile]) -> list[range]:
    """Which files are read for each shard: neighbours, in order."""
    parts, first, num_bytes = [], 0, 0
    for index, file in enumerate(files):
        is_full = index - first == SHARD_FILES or num_bytes + file.size > SHARD_BYTES
        if index > first and is_full:
            parts.append(range(first, index))
            first, num_bytes = index, 0
        num_bytes += file.size
    return [*parts, range(first, len(files))] if len(files) else []


def remarks_of(outcomes: Sequence[Outcome]) -> list[str]:
    """What was done to pictures that were read, with their numbers."""
    remarks = Counter(remark for each in outcomes for remark in each.remarks)
    return [f"{number} {remark}" for remark, number in sorted(remarks.items())]
