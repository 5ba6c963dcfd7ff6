"""The one reader of records: JSON that may be damaged, as what it should be, or what is wrong.

A record is a line or a file that this project wrote for itself, or a tag of the registry. A bad
disk, a full one, a person or another version of this project may have left something else there:
no JSON, JSON of another shape, bytes of no text, a folder in its place. Whoever reads a record gets
a value of the wanted kind, or a DamagedRecord that says where and what; never another error.
"""

import json
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")

_WORDS: dict[Any, str] = {
    **{str: "a string", int: "a whole number", float: "a number", bool: "true or false"},
    **{list: "a list", dict: "an object", type(None): "null"},
}


class DamagedRecord(ValueError):
    """A record is not what was written; the message says which, what it is and what was wanted."""


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """A JSON file as a kind (see `shaped`).

    Raises FileNotFoundError where there is none, and DamagedRecord for all else.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedRecord(f"{path}: {told(error)}") from error
    return parsed(content, kind, str(path))


def parsed(content: bytes | str, kind: type[Kind], where: str) -> Kind:
    """JSON text as a kind (see `shaped`); where: what the message calls it.

    Raises DamagedRecord.
    """
    try:
        # Decoded here, for the parser would take other encodings, too.
        value = json.loads(content.decode() if isinstance(content, bytes) else content)
    except RecursionError as error:
        raise DamagedRecord(f"{where}: no JSON: nested too deeply") from error
    except UnicodeDecodeError as error:
        raise DamagedRecord(f"{where}: no JSON: not UTF-8 text") from error
    except ValueError as error:
        raise DamagedRecord(f"{where}: no JSON: {error}") from error
    made: Kind = shaped(value, kind, where)
    return made


def shaped(value: object, kind: Any, where: str) -> Any:
    """A JSON value as a kind; raises DamagedRecord that names the place within it.

    kind: str, int, float, bool, Any, a Literal, unions, lists, tuples and mappings of these, and
    dataclasses of such fields. Keys that a dataclass does not know are left out: a later version of
    this project may have written them.
    """
    try:
        return _reader_of(kind)(value)
    except _Wrong as error:
        raise DamagedRecord(": ".join([where, *error.places, error.what])) from None


class _Wrong(Exception):
    """What is wrong with a value, and where in it, from the outside in."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.places: list[str] = []

    def within(self, place: str) -> "_Wrong":
        self.places.insert(0, place)
        return self


@lru_cache(maxsize=1000)
def _reader_of(kind: Any) -> Callable[[Any], Any]:
    """The function that reads values of a kind: logs have ten thousand lines of one."""
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return _one_word(parts)
    if origin in (Union, types.UnionType):
        return _one_of([_reader_of(part) for part in parts])
    if origin in (dict, Mapping):
        return _mapping(*(parts or (Any, Any)))
    if origin in (list, tuple, Sequence):
        return _row_or_tuple(tuple if origin is tuple else list, parts)
    return _dataclass(kind) if is_dataclass(kind) else _plain(kind)


def _row_or_tuple(origin: Any, parts: tuple[Any, ...]) -> Callable[[Any], Any]:
    if origin is tuple and parts[1:] != (...,):
        return _tuple([_reader_of(part) for part in parts])
    return _row(origin, parts[0] if parts else Any)


def _plain(kind: Any) -> Callable[[Any], Any]:
    if kind is float:
        return _number

    def read(value: Any) -> Any:
        if kind is not Any and type(value) is not kind:
            raise _other(value, _WORDS.get(kind, str(kind)))
        return value

    return read


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise _other(value, _WORDS[float])
    try:
        return float(value)
    except OverflowError:
        raise _other(value, "a number of this machine") from None


def _one_word(words: tuple[Any, ...]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, str) and value in words:
            return value
        raise _other(value, " or ".join(map(json.dumps, words)))

    return read


def _one_of(readers: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        first = None
        for reader in readers:
            try:
                return reader(value)
            except _Wrong as error:
                first = first or error
        assert first is not None, "a union has parts"
        raise first

    return read


def _dataclass(kind: Any) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)
    wanted = [
        (
            each.name,
            _reader_of(hints[each.name]),
            each.default is MISSING and each.default_factory is MISSING,
        )
        for each in fields(kind)
    ]

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _other(value, _WORDS[dict])
        found = {}
        for name, reader, is_needed in wanted:
            if name in value:
                try:
                    found[name] = reader(value[name])
                except _Wrong as error:
                    raise error.within(name) from None
            elif is_needed:
                raise _Wrong(f"{name} is missing")
        return kind(**found)

    return read


def _mapping(keys: Any, values: Any) -> Callable[[Any], Any]:
    of_keys, of_values = _reader_of(keys), _reader_of(values)

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _other(value, _WORDS[dict])
        if _are_plainly(keys, value) and _are_plainly(values, value.values()):
            return dict(value)
        found = {}
        for key, part in value.items():
            try:
                found[of_keys(key)] = of_values(part)
            except _Wrong as error:
                raise error.within(_quoted(key)) from None
        return found

    return read


def _are_plainly(kind: Any, parts: Iterable[Any]) -> bool:
    """Whether parts are of a kind as they stand, seen at once: logs hold a hundred thousand."""
    return kind is Any or (kind is str and {str}.issuperset(map(type, parts)))


def _row(kind: Any, part: Any) -> Callable[[Any], Any]:
    reader = _reader_of(part)

    def read(value: Any) -> Any:
        if not isinstance(value, list):
            raise _other(value, _WORDS[list])
        if _are_plainly(part, value):
            return kind(value)
        return kind(_at(index, reader, each) for index, each in enumerate(value))

    return read


def _tuple(readers: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(readers):
            raise _other(value, f"a list of {len(readers)}")
        pairs = enumerate(zip(readers, value, strict=True))
        return tuple(_at(index, reader, part) for index, (reader, part) in pairs)

    return read


def _at(index: int, reader: Callable[[Any], Any], part: Any) -> Any:
    try:
        return reader(part)
    except _Wrong as error:
        raise error.within(f"[{index}]") from None


def _other(value: object, wanted: str) -> _Wrong:
    got = _WORDS.get(type(value), type(value).__name__)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        got += f" ({_quoted(value)})"
    return _Wrong(f"wanted {wanted}, got {got}")


def _quoted(value: object) -> str:
    """A value in a message: one line, a few characters, whatever it holds."""
    try:
        text = json.dumps(value)
    except ValueError:  # a whole number of thousands of digits
        text = "a huge number"
    return text if len(text) <= 40 else f"{text[:36]} ..."


def told(error: OSError) -> str:
    """What an error of the file system says, without the path that it repeats."""
    return error.strerror or type(error).__name__
