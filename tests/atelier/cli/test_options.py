"""What all commands share: how they refuse what they are given."""

import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from atelier.__main__ import COMMANDS, main
from atelier.cli.help import GROUPS
from atelier.cli.options import Parser, find_registry, registry_environment
from atelier.services import local_servers
from atelier.services.server_records import Server

ROOT = Path(__file__).resolve().parents[3]
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


def test_the_version_is_that_of_pyproject(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"atelier {stated}\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("histroy", "history"), ("shw", "show"), ("model", "models")]
)
def test_a_misspelt_command_is_answered_by_what_was_meant_in_one_line(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([typed])

    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert f"{typed!r} is no command; did you mean {meant!r}?" in said.err


def test_a_word_that_is_like_no_command_points_to_the_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["xyzzy"]) == 2

    said = capsys.readouterr().err
    assert said == "atelier: 'xyzzy' is no command; `atelier --help` lists them\n"


def test_the_table_of_commands_says_which_module_adds_which() -> None:
    for module, names in COMMANDS.items():
        commands = Parser().add_subparsers()
        import_module(f"atelier.cli.{module}").add(commands)
        assert tuple(commands.choices) == names, module


@pytest.mark.parametrize("command", ["history", "models"])
def test_a_command_is_parsed_without_the_modules_of_the_others(command: str) -> None:
    """Importing all of them takes half a second."""
    code = (
        "import sys; from atelier.__main__ import _parser; "
        f"_parser({command!r}).parse_args([{command!r}]); "
        "print([n for n in sys.modules if n in ('numpy', 'prefect', 'torch', 'atelier.cli.run')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_the_help_has_every_command_under_one_heading(capsys: pytest.CaptureFixture[str]) -> None:
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted(name for names in COMMANDS.values() for name in names)

    with pytest.raises(SystemExit):
        main(["--help"])
    page = capsys.readouterr().out
    for heading, names in GROUPS.items():
        section = page.partition(f"\n{heading}:\n")[2].partition("\n\n")[0]
        shown = [line.split()[0] for line in section.splitlines() if line[2] != " "]
        assert tuple(shown) == names


def test_the_registry_is_asked_through_its_server_while_that_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    server = Server("mlflow", "http://127.0.0.1:5000", 5000, 1)
    for found, environment in (
        ([(server, True)], {"MLFLOW_TRACKING_URI": server.url}),
        ([(server, False)], {}),
        ([], {}),
    ):
        monkeypatch.setattr(local_servers, "servers", lambda found=found: found)
        assert registry_environment() == environment
    assert not find_registry()
    (tmp_path / "mlflow.db").touch()
    assert find_registry()
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setattr(local_servers, "servers", lambda: [(server, True)])
    assert find_registry()
    assert os.environ["MLFLOW_TRACKING_URI"] == server.url
