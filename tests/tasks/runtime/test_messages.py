import pytest
from pydantic import BaseModel, ValidationError

from tasks.runtime.messages import (
    MAX_CHARACTERS,
    MAX_OF_A_MESSAGE,
    MAX_OF_A_WORD,
    one_line,
    shortened,
)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("no such file", "no such file"),
        ("no such file\nTraceback", "no such file"),
        ("cannot read:\n  - seed: too small\n  - more", "cannot read: - seed: too small"),
        ("a:\nb:\n\nc\nd", "a: b: c"),
        ("\n\n  first\nsecond", "first"),
        ("only this:", "only this"),
        ("", "ValueError"),
        (" \n ", "ValueError"),
        ("\r\na:\r\nb", "a: b"),
    ],
)
def test_a_line_that_opens_a_list_keeps_what_follows(message: str, said: str) -> None:
    assert one_line(ValueError(message)) == said


def test_a_long_message_is_cut() -> None:
    said = one_line(ValueError("x" * 5000))
    assert len(said) == MAX_CHARACTERS
    assert said.endswith(" ...")


def test_pydantic_says_which_field() -> None:
    class Form(BaseModel):
        seed: int

    with pytest.raises(ValidationError) as raised:
        Form.model_validate({"seed": "x"})
    assert "seed" in one_line(raised.value)
    assert "valid integer" in one_line(raised.value)


def test_a_long_value_keeps_its_ends_and_what_stands_around_it() -> None:
    said = shortened(f"a seed is a whole number, got '{'x' * 4998}'; leave it out")

    assert said.startswith("a seed is a whole number, got 'xxx")
    assert said.endswith("xxx'; leave it out")
    assert "[... 4,801 characters ...]" in said
    assert len(said) < MAX_OF_A_WORD


@pytest.mark.parametrize("message", ["", "a\n  b", "/" + "p" * (MAX_OF_A_WORD - 1), "word " * 400])
def test_a_message_of_usual_length_stays_as_it_is(message: str) -> None:
    assert shortened(message) == message


def test_a_message_of_many_words_keeps_its_beginning_and_its_end() -> None:
    said = shortened("first " + "word " * 2000 + "last")

    assert said.startswith("first word")
    assert said.endswith("word last")
    assert len(said) < MAX_OF_A_MESSAGE + 50
