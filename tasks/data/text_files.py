"""A person's own text: one file, or all files of a folder that hold text."""

import re
from collections.abc import Iterator, Sequence
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
from tasks.store.files import BadInput

MAX_BYTES = 2**31 - 1
"""More bytes than tokens that can be counted; what is read lies in memory several times."""
_BEGINNING = 1 << 16  # enough bytes to tell text from most other things

NOT_CHOSEN = "not named by the pattern"
NOT_UTF8 = "not UTF-8 text"
BINARY = "a binary file"
EMPTY = "an empty file"
_ABOUT_DATA = re.compile(r"(?i)(readme|licen[cs]e|copying|citation|notice|authors|changelog)\b")


@dataclass(kw_only=True, slots=True)
class RawText:
    """A text as a reader found it."""

    text: str
    files: list[tuple[str, int]] = field(default_factory=list)
    """The id of each file that is part of it, in order, with its number of characters."""
    set_aside: list[SetAside] = field(default_factory=list)
    parts: dict[Part, str] | None = None
    """The author's split, a training part and a held-out one at least, or None."""
    note: str = ""
    """What was decided of it, in a sentence."""


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
        files.append((file.id, len(text)))
        texts.append(text)
        names.append(file.parts)
    if not files:
        raise BadInput(_no_text(folder, pattern, set_aside))
    set_aside.sort(key=lambda each: each.id)
    split = split_by_names(names)
    if split is None:
        return RawText(text="\n".join(texts), files=files, set_aside=set_aside)
    return _split_text(files, texts, split, set_aside)


def _split_text(
    files: Sequence[tuple[str, int]],
    texts: Sequence[str],
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
    beside = [i for i, part in enumerate(split) if part is None]
    left_out = [SetAside(id=files[i][0], reason=NO_PART) for i in beside]
    return RawText(
        text="\n".join(text for i, text in enumerate(texts) if i not in beside),
        files=[file for i, file in enumerate(files) if i not in beside],
        set_aside=sorted([*set_aside, *left_out], key=lambda each: each.id),
        parts={part: "\n".join(texts[i] for i in inside) for part, inside in parts.items()},
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
) -> Iterator[tuple[OwnFile, str]]:
    from tasks.runtime.progress import (
        with_progress,  # imports Prefect: not before settings are made
    )

    num_bytes = 0
    for file in with_progress(files, "read texts"):
        try:
            text = _text_of(file.path)
        except OSError as error:
            set_aside.append(SetAside(id=file.id, reason=f"{CANNOT_OPEN}: {error.strerror}"))
            continue
        except NotText as error:
            set_aside.append(SetAside(id=file.id, reason=str(error)))
            continue
        if not text.strip():
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
    try:
        return _text_of(path)
    except OSError as error:
        raise BadInput(f"{readable(path)} cannot be read: {error.strerror}") from error
    except NotText as error:
        raise BadInput(
            f"{readable(path)} is {error}; convert it to UTF-8, or check that it is a text file"
            " at all"
        ) from error


def _text_of(path: Path) -> str:
    """Raises NotText, and for a file of more than MAX_BYTES BadInput, from its beginning alone."""
    with opened(path) as file:
        beginning = file.read(_BEGINNING)
        encoding = "utf-16" if beginning[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        if b"\0" in beginning and encoding != "utf-16":
            raise NotText(f"{BINARY}: it holds NUL bytes")
        _decoded(beginning, encoding, is_whole=len(beginning) < _BEGINNING)
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BadInput(_too_much(path, size))
        content = beginning + file.read()
    text = _decoded(content, encoding, is_whole=True)
    if "\0" in text:
        raise NotText(f"{BINARY}: it holds NUL bytes")
    return text


def _decoded(content: bytes, encoding: str, *, is_whole: bool) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if not is_whole and error.end == len(content):  # a character cut in two
            return ""
        raise NotText(f"{NOT_UTF8}: byte {error.start} is 0x{content[error.start]:02x}") from error
