"""What a page shows, as its address says it: so that every state can be kept and sent.

What an address says wrongly is told, and the default stands: addresses are typed, cut and mended by
hand. Only what differs from the defaults is written.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar
from urllib.parse import urlencode

from tasks.runtime.messages import shortened
from tasks.store.files import BadInput
from tasks.store.names import version_address

MAX_SEED = 2**31 - 1
MAX_PROMPT, MAX_TOKENS, MAX_SAMPLES = 4000, 1000, 64
REACH = 40.0
"""How far from the middle a coordinate may lie, in sigma; those of samples may be unusual."""

Value = TypeVar("Value")
State = TypeVar("State", "TextState", "ImageState")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextState:
    """What the page of text shows."""

    a: str = ""
    """MODEL, MODEL@ALIAS or MODEL/N; empty is the first that there is."""
    b: str = ""
    """The version beside it; empty is none."""
    prompt: str = ""
    """Empty is the version's own."""
    seed: int = 0
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    tokens: int = 300
    chosen_a: Mapping[int, int] = field(default_factory=dict)
    """Tokens that the person chose, by their place in what a writes."""
    chosen_b: Mapping[int, int] = field(default_factory=dict)
    at: str = ""
    """The token whose rivals are shown: a:12 or b:12."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageState:
    """What the page of images shows."""

    a: str = ""
    b: str = ""
    seed: int = 0
    temperature: float = 1.0
    samples: int = 16
    label: int = -1
    """A class's index; -1 takes each in turn."""
    start: int = -1
    """The sample of a where the walk begins; -1 is the middle of what it draws."""
    at: tuple[float, ...] = ()
    """How far along each axis, in sigma; those that are not given are the start's."""
    first: int = 0
    """The held-out pictures between which the way leads."""
    last: int = 1
    from_seed: int = 0
    """The seeds between whose first samples the way leads, where pictures have no points."""
    to_seed: int = 1


def text_state(query: Mapping[str, str]) -> tuple[TextState, list[str]]:
    """The state that an address asks for, and what of it cannot be, in lines."""
    return _read(TextState(), query, _TEXT)


def image_state(query: Mapping[str, str]) -> tuple[ImageState, list[str]]:
    """The same of the page of images."""
    return _read(ImageState(), query, _IMAGES)


def query_of(state: TextState | ImageState) -> str:
    """What stands behind the question mark; empty for the defaults."""
    default = type(state)()
    said = {
        each.name: _written(getattr(state, each.name))
        for each in fields(state)
        if getattr(state, each.name) != getattr(default, each.name)
    }
    return urlencode(said, safe="/@:,")


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{place}:{token}" for place, token in sorted(value.items()))
    if isinstance(value, tuple):
        return ",".join(f"{each:g}" for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _read(
    default: State, query: Mapping[str, str], readers: Mapping[str, Callable[[str], Any]]
) -> tuple[State, list[str]]:
    found: dict[str, Any] = {}
    remarks = []
    for name, text in query.items():
        if name not in readers:
            known = ", ".join(readers)
            remarks.append(f"{_quoted(name)} is not known here; known are {known}")
            continue
        try:
            found[name] = readers[name](text)
        except ValueError as error:
            remarks.append(f"{name} is {_quoted(text)}: {error}; the default is taken")
    return replace(default, **found), remarks


def _quoted(text: str) -> str:
    return repr(shortened(text) if len(text) <= 60 else f"{text[:57]}...")


def _version(text: str) -> str:
    if text:
        try:
            version_address(text)
        except BadInput as error:
            raise ValueError(str(error)) from error
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch("-?[0-9]{1,10}", text) or not low <= int(text) <= high:
            raise ValueError(f"wanted is a whole number from {low} to {high}")
        return int(text)

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text) if len(text) < 40 else math.nan
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise ValueError(f"wanted is a number from {low:g} to {high:g}")
        return number

    return read


def _prompt(text: str) -> str:
    if len(text) > MAX_PROMPT:
        raise ValueError(f"wanted are {MAX_PROMPT} characters at most, got {len(text)}")
    return text.replace("\r\n", "\n")


def _tokens_by_place(text: str) -> dict[int, int]:
    place, token = _whole(0, MAX_TOKENS - 1), _whole(0, 10**9)
    found = {}
    for part in _parts(text):
        before, mark, behind = part.partition(":")
        if not mark:
            raise ValueError("wanted are pairs of a place and a token, such as 12:345,40:7")
        found[place(before)] = token(behind)
    return found


def _coordinates(text: str) -> tuple[float, ...]:
    return tuple(map(_number(-REACH, REACH), _parts(text)))


def _parts(text: str) -> Iterable[str]:
    parts = text.split(",") if text else []
    if len(parts) > MAX_TOKENS:
        raise ValueError(f"wanted are {MAX_TOKENS} parts at most")
    return parts


def _place(text: str) -> str:
    if text and not re.fullmatch("[ab]:[0-9]{1,4}", text):
        raise ValueError("wanted is a token such as a:12")
    return text


_TEXT: dict[str, Callable[[str], Any]] = {
    "a": _version,
    "b": _version,
    "prompt": _prompt,
    "seed": _whole(0, MAX_SEED),
    "temperature": _number(0.05, 5.0),
    "top_k": _whole(0, 10**9),
    "top_p": _number(0.01, 1.0),
    "min_p": _number(0.0, 1.0),
    "tokens": _whole(1, MAX_TOKENS),
    "chosen_a": _tokens_by_place,
    "chosen_b": _tokens_by_place,
    "at": _place,
}
_IMAGES: dict[str, Callable[[str], Any]] = {
    "a": _version,
    "b": _version,
    "seed": _whole(0, MAX_SEED),
    "temperature": _number(0.05, 5.0),
    "samples": _whole(1, MAX_SAMPLES),
    "label": _whole(-1, 10**6),
    "start": _whole(-1, MAX_SAMPLES - 1),
    "at": _coordinates,
    "first": _whole(0, 10**6),
    "last": _whole(0, 10**6),
    "from_seed": _whole(0, MAX_SEED),
    "to_seed": _whole(0, MAX_SEED),
}
