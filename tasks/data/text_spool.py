"""Text on its way from a person's files to a data set: on the disk, and read a part at a time.

Texts may be larger than memory. What is read goes to a file without a name in the home, which
vanishes with its process, and comes back in pieces of some hundred thousand characters.
"""

import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tasks.store.files import home, write_errors_named

BYTES_AT_ONCE = 1 << 20


class TextSpool:
    """Texts, one after the other, as UTF-8 in a file without a name."""

    def __init__(self) -> None:
        self._path = home() / "data" / "text.partial"
        with write_errors_named(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115 - by __del__
        self._size = 0

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def append(self, pieces: Iterable[str]) -> "SpooledText":
        """Take a text in; nothing of it where its pieces end with an error.

        Raises DiskFull when the disk is full.
        """
        start, length, is_blank = self._size, 0, True
        with write_errors_named(self._path):
            self._file.seek(start)
        for piece in pieces:
            length += len(piece)
            is_blank = is_blank and not piece.strip()
            with write_errors_named(self._path):
                self._file.write(piece.encode("utf-8"))
        with write_errors_named(self._path):
            self._file.flush()  # a disk that is full is no fault of the next text
            self._size = self._file.tell()
        return SpooledText(self, start, self._size, length, is_blank)

    def read(self, start: int, end: int) -> Iterator[str]:
        """What lies between two bytes that begin characters, in pieces."""
        with write_errors_named(self._path):
            self._file.flush()
        yield from decoded_range(self._file, start, end)


@dataclass(frozen=True, slots=True)
class SpooledText:
    """One text of a spool; its pieces, as often as asked."""

    spool: TextSpool
    start: int
    end: int
    length: int
    """In characters."""
    is_blank: bool

    def __iter__(self) -> Iterator[str]:
        return self.spool.read(self.start, self.end)


@dataclass(frozen=True, slots=True)
class JoinedText:
    """Texts with a newline between each two; their pieces, as often as asked."""

    texts: tuple[Iterable[str], ...]

    def __iter__(self) -> Iterator[str]:
        for index, text in enumerate(self.texts):
            if index:
                yield "\n"
            yield from text


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRange:
    """A part of a UTF-8 file, from the first byte of a character to that of another."""

    path: Path
    start: int
    end: int
    length: int
    """In characters."""

    @property
    def num_bytes(self) -> int:
        """Of the part."""
        return self.end - self.start

    def blocks(self) -> Iterator[bytes]:
        """The bytes, a part at a time."""
        with self.path.open("rb") as file:
            yield from _blocks(file, self.start, self.end)

    def pieces(self) -> Iterator[str]:
        """The text, a part at a time."""
        with self.path.open("rb") as file:
            yield from decoded_range(file, self.start, self.end)

    def cut(self, place: int) -> "tuple[TextRange, TextRange]":
        """The first `place` characters, and the others."""
        at, missing = self.start, place
        for block in self.blocks():
            # A character begins with any byte but 10xxxxxx.
            begins = np.flatnonzero(np.frombuffer(block, np.int8) >= -64)
            if missing < len(begins):
                at += int(begins[missing])
                break
            missing -= len(begins)
            at += len(block)
        first = TextRange(path=self.path, start=self.start, end=at, length=place)
        rest = TextRange(path=self.path, start=at, end=self.end, length=self.length - place)
        return first, rest


def written(path: Path, pieces: Iterable[str]) -> TextRange:
    """Write a text to a file; the whole of it. Raises DiskFull when the disk is full."""
    length = 0
    with write_errors_named(path), path.open("wb") as file:
        for piece in pieces:
            length += len(piece)
            file.write(piece.encode("utf-8"))
        end = file.tell()
    return TextRange(path=path, start=0, end=end, length=length)


def normalised_pieces(pieces: Iterable[str]) -> Iterator[str]:
    r"""A text with `\n` line ends and a final newline, in pieces."""
    decoder = io.IncrementalNewlineDecoder(None, translate=True)
    last = ""
    for piece in pieces:
        if text := decoder.decode(piece):
            last = text[-1]
            yield text
    if text := decoder.decode("", final=True):
        last = text[-1]
        yield text
    if last not in ("", "\n"):
        yield "\n"


def digest_of_texts(texts: dict[str, TextRange]) -> str:
    """What `tasks.store.files.digest_of` gives for the same texts as strings, by name."""
    digest, mark = sha256(), "{"
    for name in sorted(texts):
        digest.update(f"{mark}{json.dumps(name)}:".encode("ascii") + b'"')
        for piece in texts[name].pieces():
            digest.update(json.dumps(piece)[1:-1].encode("ascii"))
        digest.update(b'"')
        mark = ","
    digest.update(b"}")
    return digest.hexdigest()


def shared_lines(train: TextRange, test: TextRange, min_length: int) -> float:
    """The share of a text's lines of so many characters that are also lines of another one."""
    wanted: dict[bytes, int] = {}
    for lines in _lines(test, test.num_bytes):
        for line in lines:
            if len(line) >= min_length and len(line.decode("utf-8")) >= min_length:
                wanted[line] = wanted.get(line, 0) + 1
    found: set[bytes] = set()
    for lines in _lines(train, max(map(len, wanted), default=0)):
        found.update(wanted.keys() & lines)
    return sum(wanted[line] for line in found) / max(1, sum(wanted.values()))


def _lines(text: TextRange, longest: int) -> Iterator[list[bytes]]:
    """The lines of a text without their ends, many at a time; those above `longest` cut short."""
    begun: list[bytes] = []
    num_begun = 0
    for block in text.blocks():
        first, *others = block.split(b"\n")
        if num_begun <= longest:
            begun.append(first)
            num_begun += len(first)
        if others:
            yield [b"".join(begun), *others[:-1]]
            begun, num_begun = [others[-1]], len(others[-1])
    yield [b"".join(begun)]


def decoded_range(file: BinaryIO, start: int, end: int) -> Iterator[str]:
    """The text between two bytes of a UTF-8 file that begin characters, in pieces."""
    rest = b""
    for block in _blocks(file, start, end):
        content = rest + block
        whole = _whole_characters(content)
        rest = content[whole:]
        yield content[:whole].decode("utf-8")


def _whole_characters(content: bytes) -> int:
    """So many bytes end with a whole character."""
    for back in range(1, min(4, len(content)) + 1):
        byte = content[-back]
        if byte < 0x80:
            return len(content)
        if byte >= 0xC0:  # it begins a character of two, three or four bytes
            size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(content) if back == size else len(content) - back
    return len(content)


def _blocks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    place = start
    while place < end:
        file.seek(place)  # others may read it meanwhile
        block = file.read(min(BYTES_AT_ONCE, end - place))
        if not block:
            raise OSError(f"{file.name}: ends at byte {place}, wanted {end}: it was cut short")
        place += len(block)
        yield block
