import pytest
from pydantic import BaseModel, ValidationError

from tasks.runtime.messages import MAX_CHARACTERS, one_line


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
