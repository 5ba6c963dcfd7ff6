"""Names: what a model, a data set or a step may be called, and what a file's own name becomes.

A name becomes part of paths, locks, addresses and questions to the registry. So whoever takes one
from outside checks it first (`checked_name`), before a lock or a file of that name is touched; and
a name that is made from a folder's or file's (`derived_name`) passes that check by itself.

Letters of every script are kept: MLflow, Prefect's run names and file systems take them. Only the
keys of Prefect's artifacts are lower-case ASCII; `artifact_key` makes those.
"""

import re
import unicodedata
from collections.abc import Collection
from typing import Literal

from tasks.store.files import BadInput, digest_of

What = Literal["model", "data set", "step", "alias", "experiment", "deployment", "search", "preset"]

MAX_NAME_BYTES = 180
"""In UTF-8. File systems take 255 bytes, and locks and steps put some before and behind a name."""
MAX_DERIVED_CHARACTERS, MAX_DERIVED_BYTES = 40, 120
"""Characters and bytes of a name that is made from another: families and schemes are put to it."""

_DIGEST_DIGITS = 6
_ALLOWED_MARKS = "-_"
_SHOWN = 60
_LOUD = frozenset("#%&@*")
"""Punctuation that tells names apart, unlike dots, brackets and quotation marks: C#, R&D."""
# Letters and marks that cannot be seen: fillers, joiners, selectors of variants.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# What Windows takes for a device, whatever its suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)")


def checked_name(what: What, name: object) -> str:
    """A name that came from outside, unchanged; BadInput says what is wrong with it.

    what: what bears the name, for the message. Allowed are lower-case letters and digits of any
    script, dashes and underscores; a letter or digit begins it; at most 180 bytes in UTF-8.
    """
    if not isinstance(name, str):
        raise BadInput(f"the name of a {what} is text, got {type(name).__name__} {_shown(name)}")
    if (fault := _fault(name)) is not None:
        raise BadInput(
            f"{_shown(name)} cannot be the name of a {what}: {fault}; wanted lower-case letters"
            f" and digits of any script, - and _, at most {MAX_NAME_BYTES} bytes"
        )
    return name


def version_address(text: str, default: str = "champion") -> tuple[str, str]:
    """MODEL, MODEL@ALIAS or MODEL/N: the name, and an alias or a version's number."""
    mark = "/" if "/" in text else "@"
    name, marked, which = text.partition(mark)
    return checked_name("model", name), checked_name("alias", which) if marked else default


def is_name(name: str) -> bool:
    """Whether `checked_name` lets a name pass."""
    return _fault(name) is None


def _fault(name: str) -> str | None:
    """What is wrong with a name, or None."""
    size = len(name.encode("utf-8", "surrogatepass"))
    odd = next((c for c in name if not (_is_kept(c) or c in _ALLOWED_MARKS)), "")
    faults = {
        "it is empty": not name,
        f"it is {size} bytes long": size > MAX_NAME_BYTES,
        f"it holds {_character(odd)}": odd != "",
        f"it begins with {_character(name[:1])}": not all(map(_is_base, name[:1])),
        # some file systems do not tell these apart
        f"it holds capitals ({_shown(name.lower())} would do)": name != name.lower(),
        "its accents stand apart from their letters (Unicode's form NFC would do)": (
            not unicodedata.is_normalized("NFC", name)
        ),
        "Windows keeps it for a device": _DEVICES.fullmatch(name) is not None,
    }
    return next((fault for fault, is_so in faults.items() if is_so), None)


def derived_name(original: str, taken: Collection[str] = ()) -> str:
    """A short name made from a folder's or file's: readable, bounded, the same on every system.

    Case, spaces, dashes, dots and brackets do not count. Where anything else is left out, or the
    end is cut off, a digest of the whole follows, so that two names stay two: `C#` and `C`.
    taken: names that mean something else; `own-` is put before one of those.
    """
    whole = unicodedata.normalize("NFC", original)
    lowered = unicodedata.normalize("NFC", whole.lower())
    parts: list[str] = []
    is_exact = True
    for character in lowered:
        # a mark without its letter shows nothing
        if _is_kept(character) and (_is_base(character) or (parts and parts[-1] != "-")):
            parts.append(character)
            continue
        is_exact = is_exact and _is_quiet(character)
        if parts and parts[-1] != "-":
            parts.append("-")
    name = "".join(parts).strip("-")
    short = _cut(name).rstrip("-")
    if not name:
        return f"data-{digest_of(whole)[:_DIGEST_DIGITS]}"
    if short != name or not is_exact:
        return f"{short}-{digest_of(whole)[:_DIGEST_DIGITS]}"
    return f"own-{name}" if name in taken or _DEVICES.fullmatch(name) else name


def artifact_key(name: str) -> str:
    """A name as Prefect's artifacts take it: a-z, 0-9 and dashes, a digest for what has no such."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    key = re.sub("[^a-z0-9]+", "-", plain).strip("-")
    return key if key and key == name else f"{key or 'name'}-{digest_of(name)[:_DIGEST_DIGITS]}"


def _is_kept(character: str) -> bool:
    """Letters, their marks, and digits, of any script."""
    return unicodedata.category(character)[0] in "LMN" and not _UNSEEN.match(character)


def _is_base(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN" and not _UNSEEN.match(character)


def _is_quiet(character: str) -> bool:
    """Whether two names that differ by such characters only may share a short name."""
    return unicodedata.category(character)[0] in "ZP" and character not in _LOUD


def _cut(name: str) -> str:
    short = name[:MAX_DERIVED_CHARACTERS]
    return short.encode()[:MAX_DERIVED_BYTES].decode("utf-8", "ignore")


def _character(character: str) -> str:
    if character.isascii() and character.isprintable():
        return repr(character)
    return f"{character!a} ({unicodedata.name(character, 'without a name')})" if character else ""


def _shown(name: object) -> str:
    """A name as a message may show it: cut, and without characters that steer a terminal."""
    text = ascii(name) if not isinstance(name, str) or not name.isprintable() else repr(name)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
