"""A page's state in its address: there and back, and whatever people make of one."""

from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.playground.address import (
    MAX_PROMPT,
    ImageState,
    TextState,
    image_state,
    query_of,
    text_state,
)

PLACES = st.dictionaries(st.integers(0, 999), st.integers(0, 10**6), max_size=5)
TEXT_STATES = st.builds(
    TextState,
    a=st.sampled_from(["", "tale-gpt/3", "tale-gpt@champion"]),
    b=st.sampled_from(["", "tale-ngram/1"]),
    prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=40),
    seed=st.integers(0, 2**31 - 1),
    temperature=st.integers(1, 40).map(lambda n: n / 20),
    top_k=st.integers(0, 500),
    top_p=st.integers(1, 100).map(lambda n: n / 100),
    min_p=st.integers(0, 100).map(lambda n: n / 100),
    tokens=st.integers(1, 1000),
    chosen_a=PLACES,
    chosen_b=PLACES,
    at=st.sampled_from(["", "a:0", "b:999"]),
)
IMAGE_STATES = st.builds(
    ImageState,
    a=st.sampled_from(["", "digits-vae/2"]),
    seed=st.integers(0, 2**31 - 1),
    label=st.integers(-1, 9),
    start=st.integers(-1, 63),
    at=st.lists(st.integers(-4000, 4000).map(lambda n: n / 100), max_size=8).map(tuple),
    first=st.integers(0, 99),
    last=st.integers(0, 99),
    from_seed=st.integers(0, 2**31 - 1),
    to_seed=st.integers(0, 2**31 - 1),
)


@given(TEXT_STATES)
def test_a_state_of_the_page_of_text_is_found_again(state: TextState) -> None:
    assert text_state(dict(parse_qsl(query_of(state), keep_blank_values=True))) == (state, [])


@given(IMAGE_STATES)
def test_a_state_of_the_page_of_images_is_found_again(state: ImageState) -> None:
    assert image_state(dict(parse_qsl(query_of(state)))) == (state, [])


def test_defaults_are_not_written() -> None:
    assert query_of(TextState()) == query_of(ImageState()) == ""
    assert query_of(TextState(a="tale-gpt/3", chosen_a={12: 7})) == "a=tale-gpt/3&chosen_a=12:7"


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("temperature", "warm", "a number from 0.05 to 5"),
        ("temperature", "nan", "a number from 0.05 to 5"),
        ("temperature", "inf", "a number from 0.05 to 5"),
        ("seed", "-1", "a whole number from 0 to 2147483647"),
        ("seed", "1e3", "a whole number"),
        ("seed", "9" * 5000, "a whole number"),
        ("seed", "٣", "a whole number"),
        ("a", "../../etc/passwd", "lower-case letters"),
        ("a", "<script>alert(1)</script>", "lower-case letters"),
        (
            "prompt",
            "x" * (MAX_PROMPT + 1),
            f"{MAX_PROMPT} characters at most, got {MAX_PROMPT + 1}",
        ),
        ("chosen_a", "12", "pairs of a place and a token"),
        ("chosen_a", "a:b", "a whole number"),
        ("chosen_a", ",".join(["1:1"] * 2000), "1000 parts at most"),
        ("at", "c:1", "a token such as a:12"),
        ("tokens", "0", "a whole number from 1 to 1000"),
    ],
)
def test_rubbish_is_told_and_the_default_stands(name: str, value: str, wanted: str) -> None:
    state, (remark,) = text_state({name: value, "top_k": "3"})
    assert state == TextState(top_k=3)
    assert remark.startswith(f"{name} is ") and wanted in remark
    assert remark.endswith("the default is taken") and len(remark) < 500


def test_an_unknown_word_is_told_with_the_known_ones() -> None:
    state, (remark,) = image_state({"temprature": "1"})
    assert state == ImageState()
    assert remark.startswith("'temprature' is not known here; known are a, b, seed, temperature")


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=30), max_size=5))
def test_no_query_is_an_error(query: dict[str, str]) -> None:
    for read in (text_state, image_state):
        found: Any = read(query)  # type: ignore[operator]
        assert isinstance(found[0], TextState | ImageState)
