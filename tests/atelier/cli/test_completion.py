"""A shell is told what may come next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atelier.__main__ import main
from atelier.cli import completion
from atelier.cli.completion import SHELLS


def offered(line: str, home: Path) -> list[str]:
    """What a bash would offer at the end of a line."""
    code = "import os, sys; from atelier.__main__ import main; sys.argv = ['atelier']; main()"
    environment = {
        **os.environ,
        **{"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\013", "_ARGCOMPLETE_SHELL": "bash"},
        **{"COMP_LINE": line, "COMP_POINT": str(len(line)), "ATELIER_HOME": str(home)},
        "_ARGCOMPLETE_STDOUT_FILENAME": str(home / "offered"),
    }
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=False
    )
    assert done.stderr == b""
    return [each.strip() for each in (home / "offered").read_text().split("\013") if each]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("atelier se", ["settings", "search"]),
        ("atelier run --pre", ["--preset", "--prefect-port"]),
        ("atelier run --preset ", ["quick", "standard", "full"]),
        ("atelier show ", []),
        ("atelier run --text ", ["pydocs", "tinyshakespeare"]),
    ],
)
def test_commands_options_and_choices_are_offered(
    tmp_path: Path, line: str, expected: list[str]
) -> None:
    assert sorted(offered(line, tmp_path / "home")) == sorted(expected)


def test_models_are_offered_where_one_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    from atelier.__main__ import _parser

    monkeypatch.setattr(completion, "listed_models", lambda: {"b-vae": 1, "a-vae": 2})
    commands = _parser("export")._subparsers
    assert commands is not None
    actions = commands._group_actions[0].choices["export"]._actions  # type: ignore[index]
    by_name = {action.dest: action for action in actions}

    assert completion.completed(action=by_name["model"], prefix="") == ["a-vae", "b-vae"]


def test_a_registry_that_cannot_be_read_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from argparse import ArgumentParser

    def broken() -> None:
        raise OSError("database is locked")

    monkeypatch.setattr(completion, "listed_models", broken)
    action = ArgumentParser().add_argument("model", metavar="MODEL")

    assert completion.completed(action=action, prefix="") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_its_lines(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    assert "_ARGCOMPLETE" in capsys.readouterr().out


def test_no_key_waits_for_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from argparse import ArgumentParser

    def asked() -> None:
        raise AssertionError("the server was asked")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setattr(completion, "listed_models", asked)
    monkeypatch.setattr(completion, "logged_models", lambda: ["tale-gpt"])
    action = ArgumentParser().add_argument("model", metavar="MODEL")

    assert completion.completed(action=action, prefix="") == ["tale-gpt"]
