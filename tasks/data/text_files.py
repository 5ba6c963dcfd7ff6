"""A person's own text: one file, or all files of a folder that hold text."""

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tasks.data.image_layout import NO_PART, Part, part_named
from tasks.data.own_files import (
    CANNOT_OPEN,
    Listing,
    OwnFile,
    SetAside,
    counted,
    listed,
    once,
    opened,
    readable,
)
from tasks.data.text_spool import BYTES_AT_ONCE, JoinedText, SpooledText, TextSpool
from tasks.store.files import BadInput, CannotWrite

MAX_BYTES = 2**31 - 1
"""More bytes than tokens that can be counted."""
_BEGINNING = 1 << 16  # enough bytes to tell text from most other things

NOT_CHOSEN = "not named by the pattern"
NOT_UTF8 = "not UTF-8 text"
BINARY = "a binary file"
EMPTY = "an empty file"
_ABOUT_DATA = re.compile(r"(?i)(readme|licen[cs]e|copying|citation|notice|authors|changelog)\b")


@dataclass(kw_only=True, slots=True)
class RawText:
    """A text as a reader found it, in pieces that may be asked for as often as one likes."""

    whole: Iterable[str]
    files: list[tuple[str, int]] = field(default_factory=list)
    """The id of each file that is part of it, in order, with its number of characters."""
    set_aside: list[SetAside] = field(default_factory=list)
    parts: Mapping[Part, Iterable[str]] | None = None
    """The author's split, a training part and a held-out one at least, or None."""
    note: str = ""
    """What was decided of it, in a sentence."""

    @property
    def text(self) -> str:
        """All of it, in memory."""
        return "".join(self.whole)


class NotText(ValueError):
    """A file is not text; the message begins with the kind of thing it is."""


def read_text_folder(folder: Path, pattern: str | None = None) -> RawText:
    """All text below a folder, in the order of names, whatever the files are called.

    pattern: takes only files whose path or name fits, as a shell would: `*.py`, `src/**/*.md`.
    What is no UTF-8 text is set aside. An author's split is kept, see `split_by_names`. Raises
    BadInput for none at all, and for too much.
    """
    listing = once(_chosen(listed(folder), pattern))
    set_aside = list(listing.set_aside)
    files, texts, names = [], [], []
    for file, text in _texts(folder, listing.files, set_aside):
        files.append((file.id, text.length))
        texts.append(text)
        names.append(file.parts)
    if not files:
        raise BadInput(_no_text(folder, pattern, set_aside))
    set_aside.sort(key=lambda each: each.id)
    split = split_by_names(names)
    if split is None:
        return RawText(whole=JoinedText(tuple(texts)), files=files, set_aside=set_aside)
    return _split_text(files, texts, split, set_aside)


def _split_text(
    files: Sequence[tuple[str, int]],
    texts: Sequence[SpooledText],
    split: Sequence[Part | None],
    set_aside: Sequence[SetAside],
) -> RawText:
    """The text of an author's split."""
    parts: dict[Part, list[int]] = {}
    for index, part in enumerate(split):
        if part is not None:
            parts.setdefault(part, []).append(index)
    shown = ", ".join(
        files[inside[0]][0]
        if len(inside) == 1
        else f"{len(inside)} files like {files[inside[0]][0]}"
        for _, inside in sorted(parts.items())
    )
    beside = {i for i, part in enumerate(split) if part is None}
    left_out = [SetAside(id=files[i][0], reason=NO_PART) for i in sorted(beside)]
    return RawText(
        whole=JoinedText(tuple(text for i, text in enumerate(texts) if i not in beside)),
        files=[file for i, file in enumerate(files) if i not in beside],
        set_aside=sorted([*set_aside, *left_out], key=lambda each: each.id),
        parts={part: JoinedText(tuple(texts[i] for i in inside)) for part, inside in parts.items()},
        note=f"the author's split is used: {shown}",
    )


def split_by_names(files: Sequence[tuple[str, ...]]) -> list[Part | None] | None:
    """The part of the data that each file is, by its own name or that of its outermost folder.

    files: the names on each path. None unless every file is of a part, as in train/ beside test/,
    or wiki.train.tokens beside wiki.valid.tokens, and one is for training and one held out. A
    README and the like, which tell of the data, are of no part.
    """
    start = _shared([each[:-1] for each in files])
    split: list[Part | None] = []
    for each in files:
        if _ABOUT_DATA.match(each[-1]):
            split.append(None)
            continue
        is_within = len(each) > start + 1
        words = [each[start]] if is_within else re.split(r"[\W_]+", each[-1])
        named = {part for word in words if (part := part_named(word)) is not None}
        if len(named) != 1:
            return None
        split.append(named.pop())
    return split if {"train"} < set(split) - {None} else None


def _shared(folders: Sequence[tuple[str, ...]]) -> int:
    """How many folders all files lie in."""
    first, last = min(folders), max(folders)
    alike = (one == other for one, other in zip(first, last, strict=False))
    return next((i for i, same in enumerate(alike) if not same), min(len(first), len(last)))


def _chosen(listing: Listing, pattern: str | None) -> Listing:
    if pattern is None:
        return listing
    chosen = [file for file in listing.files if _fits(file, pattern)]
    others = [
        SetAside(id=file.id, reason=NOT_CHOSEN)
        for file in listing.files
        if not _fits(file, pattern)
    ]
    return Listing(files=chosen, set_aside=[*listing.set_aside, *others])


def _fits(file: OwnFile, pattern: str) -> bool:
    """A pattern without a slash is about names; `*` and `**` cross folders."""
    wanted = pattern.removeprefix("./")
    path = "/".join(file.parts)
    if "/" not in wanted:
        return fnmatchcase(file.parts[-1], wanted)
    return fnmatchcase(path, wanted) or fnmatchcase(path, wanted.replace("**/", ""))


def _texts(
    folder: Path, files: list[OwnFile], set_aside: list[SetAside]
) -> Iterator[tuple[OwnFile, SpooledText]]:
    from tasks.runtime.progress import (
        with_progress,  # imports Prefect: not before settings are made
    )

    spool, num_bytes = TextSpool(), 0
    for file in with_progress(files, "read texts"):
        try:
            text = spool.append(_pieces_of(file.path))
        except CannotWrite:
            raise
        except OSError as error:
            set_aside.append(SetAside(id=file.id, reason=f"{CANNOT_OPEN}: {error.strerror}"))
            continue
        except NotText as error:
            set_aside.append(SetAside(id=file.id, reason=str(error)))
            continue
        if text.is_blank:
            set_aside.append(SetAside(id=file.id, reason=EMPTY))
            continue
        num_bytes += file.size
        if num_bytes > MAX_BYTES:
            raise BadInput(_too_much(folder, num_bytes))
        yield file, text


def _no_text(folder: Path, pattern: str | None, set_aside: list[SetAside]) -> str:
    found = f" (found: {counted(set_aside)})" if set_aside else ""
    fitting = f" that fits {pattern!r}" if pattern is not None else ""
    return (
        f"{readable(folder)} holds no text file{fitting}{found}; put the corpus there as UTF-8 text"
        + (", or give another --glob" if pattern is not None else "")
    )


def _too_much(path: Path, num_bytes: int) -> str:
    return (
        f"{readable(path)} holds {num_bytes / 1e9:.1f} GB of text or more; wanted at most"
        f" {MAX_BYTES / 1e9:.1f} GB: give a part of it"
    )


def read_text_file(path: Path) -> str:
    """A text file as str; UTF-8, or UTF-16 with its byte-order mark. BadInput for anything else."""
    return "".join(_named(path))


def read_own_text_file(path: Path) -> RawText:
    """The same, as a text that may be larger than memory."""
    return RawText(whole=TextSpool().append(_named(path)))


def _named(path: Path) -> Iterator[str]:
    """The pieces of a file that a person named."""
    pieces = _pieces_of(path)
    while True:
        try:
            piece = next(pieces, None)
        except OSError as error:
            raise BadInput(f"{readable(path)} cannot be read: {error.strerror}") from error
        except NotText as error:
            raise BadInput(
                f"{readable(path)} is {error}; convert it to UTF-8, or check that it is a text file"
                " at all"
            ) from error
        if piece is None:
            return
        yield piece


def _pieces_of(path: Path) -> Iterator[str]:
    """The text of a file, a piece at a time; what is wrong with it comes after pieces, too.

    Raises NotText, and for a file of more than MAX_BYTES BadInput, from its beginning alone.
    """
    with opened(path) as file:
        beginning = file.read(_BEGINNING)
        encoding = "utf-16" if beginning[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        if b"\0" in beginning and encoding != "utf-16":
            raise NotText(f"{BINARY}: it holds NUL bytes")
        decoder, holds_nul, num_read = codecs.getincrementaldecoder(encoding)(), False, 0
        block = beginning
        while True:
            text = _decoded(decoder, block, num_read, is_last=not block)
            num_read += len(block)
            if block is beginning and (size := path.stat().st_size) > MAX_BYTES:
                raise BadInput(_too_much(path, size))
            holds_nul = holds_nul or "\0" in text
            if text:
                yield text
            if not block:
                break
            block = file.read(BYTES_AT_ONCE)
    if holds_nul:
        raise NotText(f"{BINARY}: it holds NUL bytes")


def _decoded(
    decoder: codecs.IncrementalDecoder, block: bytes, num_read: int, *, is_last: bool
) -> str:
    """The next piece; num_read: bytes that were given to the decoder before."""
    waiting = decoder.getstate()[0]
    try:
        return decoder.decode(block, final=is_last)
    except UnicodeDecodeError as error:
        skipped = len(waiting) + len(block) - len(error.object)  # a byte-order mark
        place = num_read - len(waiting) + skipped + error.start
        byte = error.object[error.start]
        raise NotText(f"{NOT_UTF8}: byte {place} is 0x{byte:02x}") from error
