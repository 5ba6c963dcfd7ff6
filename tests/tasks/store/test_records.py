"""A record is what it should be, or a DamagedRecord says what is wrong; nothing else happens."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.store.records import DamagedRecord, parsed, read_record, shaped


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    name: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    parts: tuple[Part, ...]
    pair: tuple[int, float]
    state: Literal["made", "killed"]
    seconds: float | None = None
    marks: Mapping[str, list[bool]] = field(default_factory=dict)
    anything: Any = None


GOOD: dict[str, Any] = {
    "parts": [{"name": "a", "size": 1}],
    "pair": [1, 2],
    "state": "made",
    "seconds": None,
    "marks": {"x": [True]},
    "anything": [1, "2"],
}


def test_a_good_record_becomes_its_dataclass_and_later_keys_are_left_out() -> None:
    made = parsed(json.dumps({**GOOD, "added_later": 1}), Whole, "here")

    assert made == Whole(
        parts=(Part(name="a", size=1),),
        pair=(1, 2.0),
        state="made",
        marks={"x": [True]},
        anything=[1, "2"],
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parts": None}, "here: parts: wanted a list, got null"),
        ({"parts": [{"name": 1, "size": 1}]}, "here: parts: [0]: name: wanted a string"),
        ({"parts": [{"name": "a"}]}, "here: parts: [0]: size is missing"),
        ({"parts": [{"name": "a", "size": True}]}, "size: wanted a whole number, got true or f"),
        ({"pair": [1]}, "here: pair: wanted a list of 2, got a list"),
        ({"state": ["made"]}, 'here: state: wanted "made" or "killed", got a list'),
        ({"state": "gone"}, 'got a string ("gone")'),
        ({"seconds": "3"}, 'here: seconds: wanted a number, got a string ("3")'),
        ({"seconds": 10**400}, "here: seconds: wanted a number of this machine"),
        ({"marks": {"x": [1]}}, 'here: marks: "x": [0]: wanted true or false'),
    ],
)
def test_what_is_wrong_is_named_by_its_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DamagedRecord) as raised:
        shaped({**GOOD, **change}, Whole, "here")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no JSON: Expecting value"),
        (b'{"parts": [', "no JSON"),
        (b"\x80\x81\xff\x00\x01", "no JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b"9" * 5000, "no JSON"),
        (b"[]", "wanted an object, got a list"),
        (b"null", "wanted an object, got null"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)

    with pytest.raises(DamagedRecord) as raised:
        read_record(path, Whole)
    assert str(path) in str(raised.value)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_record_is_missing_and_a_folder_is_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "none.json", Whole)
    with pytest.raises(DamagedRecord, match="Is a directory"):
        read_record(tmp_path, Whole)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@UNHURRIED
@given(JSON | st.fixed_dictionaries({name: JSON | st.just(value) for name, value in GOOD.items()}))
def test_any_json_is_the_kind_or_damaged(value: Any) -> None:
    try:
        assert isinstance(parsed(json.dumps(value), Whole, "here"), Whole)
    except DamagedRecord as error:
        assert str(error).startswith("here")


@UNHURRIED
@given(st.binary())
def test_any_bytes_are_the_kind_or_damaged(content: bytes) -> None:
    with pytest.raises(DamagedRecord):
        parsed(content, Whole, "here")
