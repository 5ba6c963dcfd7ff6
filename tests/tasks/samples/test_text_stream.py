"""Texts as they are written: whole characters, the same text as ever, and an end where wanted."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.text.tokenizer import BpeTokenizer, CharacterTokenizer, Tokenizer
from tasks.registry.loading import loaded
from tasks.samples.text_stream import TextRequest, characters, until, written
from tests.tasks.conftest import Studio
from tests.tasks.samples.untrained import GREEK, TEXT, untrained

TOKENIZERS = [BpeTokenizer([]), BpeTokenizer.fit(GREEK, 300), CharacterTokenizer.fit("ab")]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bytes", "bpe", "characters"])
@given(text=st.text(alphabet="aλἦ🦉🏺\n\u200d"))
def test_a_character_comes_whole_once_its_last_byte_is_there(
    tokenizer: Tokenizer, text: str
) -> None:
    spelled = [tokenizer.token_bytes(int(token)) for token in tokenizer.encode(text)]

    pieces = list(characters(spelled))

    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    assert len(pieces) <= len(spelled)


def test_a_character_is_given_as_soon_as_it_is_whole() -> None:
    pieces = characters(iter([b"a\xf0", b"\x9f\xa6", b"\x89b", b"\xce"]))

    assert [next(pieces), next(pieces), next(pieces)] == ["a", "🦉b", "\ufffd"]
    assert list(pieces) == []


@given(st.lists(st.binary(max_size=3)))
def test_any_bytes_give_the_text_of_all_of_them(spelled: list[bytes]) -> None:
    assert "".join(characters(spelled)) == b"".join(spelled).decode("utf-8", "replace")


@given(st.lists(st.text(alphabet="ab", max_size=3)), st.text(alphabet="ab", max_size=4))
def test_the_text_ends_before_the_stop_wherever_pieces_are_cut(
    pieces: list[str], stop: str
) -> None:
    whole = "".join(pieces)

    assert "".join(until(pieces, stop)) == (whole.partition(stop)[0] if stop else whole)


def test_nothing_is_asked_of_a_model_after_the_stop() -> None:
    def endless() -> object:
        yield from ["one ", "tw", "o th"]
        raise AssertionError("asked again")

    assert list(until(endless(), "two")) == ["one "]  # type: ignore[arg-type]


def test_only_what_may_begin_the_stop_is_held_back() -> None:
    pieces = until(iter(["ab", "ac", "abab", "d"]), "abad")

    assert list(pieces) == ["abac", "ab", "abd"]


@pytest.mark.parametrize("family", TEXT)
@pytest.mark.parametrize("tokenizer", ["bpe", "characters"])
def test_the_text_is_the_one_that_the_version_writes(
    family: str, tokenizer: str, tmp_path: Path
) -> None:
    model = untrained(family, tmp_path, tokenizer)
    (text,) = model.write_texts(1, 7, 0.9, top_k=40, top_p=0.95, prompt="λόγ", num_tokens=60)
    request = TextRequest(
        prompt="λόγ", num_tokens=60, seed=7, temperature=0.9, top_k=40, top_p=0.95
    )

    pieces = list(written(model, request))

    assert pieces[0] == "λόγ"
    assert "".join(pieces[1:]) == text
    assert pieces == list(written(model, request))


def test_another_seed_writes_another_text_and_more_tokens_go_on(tmp_path: Path) -> None:
    model = untrained("ngram", tmp_path)
    one, other = ("".join(written(model, TextRequest(seed=seed))) for seed in (1, 2))
    short = "".join(written(model, TextRequest(seed=1, num_tokens=20))).rstrip("\ufffd")

    assert one != other
    assert one.startswith(short)
    assert len(short) < len(one)


def test_a_stop_is_looked_for_after_the_prompt(tmp_path: Path) -> None:
    model = untrained("ngram", tmp_path)
    whole = "".join(written(model, TextRequest(prompt="ὁ λόγος", num_tokens=200)))
    stopped = "".join(written(model, TextRequest(prompt="ὁ λόγος", num_tokens=200, stop="λό")))

    continuation = whole.removeprefix("ὁ λόγος")
    assert "λό" in continuation
    assert stopped == "ὁ λόγος" + continuation.partition("λό")[0]


def test_a_registered_version_writes_as_it_is_written(studio: Studio) -> None:
    with loaded(studio.name) as model:
        (text,) = model.write_texts(1, 3, prompt="the", num_tokens=50)
        pieces = list(written(model, TextRequest(prompt="the", num_tokens=50, seed=3)))

    assert "".join(pieces) == "the" + text
    assert len(pieces) > 20
