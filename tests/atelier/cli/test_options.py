"""What all commands share: how they refuse what they are given."""

import pytest

from atelier.__main__ import main

LONG = "x" * 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--seed", LONG],
        ["run", "--models", LONG],
        ["run", "--images", LONG],
        ["run", "--text", f"file:/{LONG}"],
        ["run", "--preset", LONG],
        ["run", LONG],
        ["sample", LONG],
        ["explain", LONG],
        [LONG],
    ],
)
def test_a_value_of_any_length_is_refused_in_few_lines(
    arguments: list[str], capsys: pytest.CaptureFixture[str], atelier_home: object
) -> None:
    try:
        code = main(arguments)
    except SystemExit as ended:  # argparse's way
        code = int(str(ended.code))

    said = capsys.readouterr().err
    assert code == 2
    assert "xxx" in said
    assert len(said) < 1000
