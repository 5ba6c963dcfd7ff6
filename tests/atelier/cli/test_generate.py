"""`atelier generate`: what it refuses before it loads anything, and what it writes where."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from atelier.__main__ import main
from atelier.cli import generate
from tasks.registry import loading
from tasks.registry.listing import ListedModel, ListedVersion
from tests.tasks.samples.untrained import TEXT, untrained

ROOT = Path(__file__).resolve().parents[3]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A registry of one untrained model of each family, and which versions were loaded of it."""
    asked: list[tuple[str, str]] = []

    def listed_model(name: str) -> ListedModel:
        family = name.rpartition("-")[2]
        versions = {n: ListedVersion(number=n, tags={"content_digest": "d" * 64}) for n in (1, 2)}
        aliases = {"champion": 2}
        return ListedModel(name=name, tags={"family": family}, aliases=aliases, versions=versions)

    @contextmanager
    def loaded(name: str, which: str) -> Iterator[Any]:
        asked.append((name, which))
        yield untrained(name.rpartition("-")[2], tmp_path / name)

    monkeypatch.setattr(generate, "check_registry", lambda: None)
    monkeypatch.setattr(generate, "find_registry", lambda: True)
    monkeypatch.setattr(generate, "listed_model", listed_model)
    monkeypatch.setattr(loading, "loaded", loaded)
    return asked


@pytest.mark.parametrize("family", ["vae", "gan", "diffusion"])
def test_pictures_go_to_a_folder_and_to_a_sheet(
    family: str, studio: list[tuple[str, str]], tmp_path: Path, call: Command
) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"

    done = call(
        tmp_path, "generate", f"tale-{family}",
        "--number", "3", "--out", str(out), "--grid", str(sheet), "--seed", "5",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"tale-{family} version 2: 3 pictures on {sheet}\n"
        f"tale-{family} version 2: 3 pictures in {out}\n"
    )
    assert studio == [(f"tale-{family}", "2")]
    manifest = json.loads((out / "manifest.json").read_text())
    facts = {"model": f"tale-{family}", "version": 2, "family": family, "digest": "d" * 64}
    assert manifest.items() >= {**facts, "seed": 5, "number": 3}.items()
    assert len(list(out.glob("*.png"))) == 3
    assert sheet.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("family", TEXT)
def test_text_goes_to_standard_output_and_is_the_same_again(
    family: str, studio: list[tuple[str, str]], tmp_path: Path, call: Command
) -> None:
    arguments = ("generate", f"tale-{family}/1", "--prompt", "ὁ λόγος 🦉", "--tokens", "60")

    first, again = (call(tmp_path, *arguments, "--seed", "1") for _ in range(2))
    other = call(tmp_path, *arguments, "--seed", "2")

    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout != other.stdout
    assert first.stdout.startswith("ὁ λόγος 🦉")
    assert first.stdout.endswith("\n")
    assert studio[0] == (f"tale-{family}", "1")


def test_text_ends_before_the_stop(
    studio: list[tuple[str, str]], tmp_path: Path, call: Command
) -> None:
    whole = call(tmp_path, "generate", "tale-ngram", "--tokens", "200").stdout
    stopped = call(tmp_path, "generate", "tale-ngram", "--tokens", "200", "--stop", "λ").stdout

    assert "λ" in whole
    assert stopped.rstrip("\n") == whole.partition("λ")[0].rstrip("\n")


def test_the_likeliest_token_alone_writes_the_same_with_any_seed(
    studio: list[tuple[str, str]], tmp_path: Path, call: Command
) -> None:
    arguments = ("generate", "tale-gpt", "--tokens", "30", "--top-k", "1", "--seed")

    assert call(tmp_path, *arguments, "1").stdout == call(tmp_path, *arguments, "2").stdout


def test_a_terminal_is_not_steered_and_a_pipe_gets_the_text_as_it_is(
    studio: list[tuple[str, str]],
    tmp_path: Path,
    call: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tasks.samples import text_stream

    monkeypatch.setattr(text_stream, "written", lambda *_: iter(["a\x1b[2J\tb\n", "c"]))
    assert call(tmp_path, "generate", "tale-gpt").stdout == "a\x1b[2J\tb\nc\n"

    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda _: True, raising=False)
    assert call(tmp_path, "generate", "tale-gpt").stdout == "a\\x1b[2J\tb\nc\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["tale-vae", "--prompt", "x", "--top-k", "3"],
            "tale-vae draws images, got --prompt, --top-k; wanted any of --number, --label, --out,"
            " --grid, --seed, --temperature",
        ),
        (
            ["tale-gpt", "--grid", "a.png", "--number", "3"],
            "tale-gpt writes text, got --number, --grid; wanted any of --prompt, --tokens, --top-k,"
            " --top-p, --stop, --seed, --temperature",
        ),
        (["tale-gan"], "got no place for them; wanted --out FOLDER or --grid FILE.png"),
        (["tale-gan", "--out", "."], "holds files already"),
        (["tale-gan/7", "--grid", "a.png"], "no version '7'; there are: @champion, /1, /2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_before_anything_is_loaded(
    arguments: list[str],
    said: str,
    studio: list[tuple[str, str]],
    tmp_path: Path,
    call: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()

    done = call(tmp_path, "generate", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert studio == []


def test_an_unknown_class_leaves_no_file(
    studio: list[tuple[str, str]], tmp_path: Path, call: Command
) -> None:
    done = call(
        tmp_path, "generate", "tale-gan", "--label", "elf", "--grid", str(tmp_path / "a.png")
    )

    assert done.returncode == 2
    assert "label 'elf' is not known; this model knows the classes cat, dog, bird" in done.stderr
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--number", "0", "a whole number from 1 to 10000000, got '0'"),
        ("--tokens", "many", "a whole number from 1 to 1000000, got 'many'"),
        ("--temperature", "nan", "a number from 0.01 to 10, got 'nan'"),
        ("--top-p", "1.5", "a number from 0.01 to 1, got '1.5'"),
        ("--top-k", "-1", "a whole number from 1 to 1000000000, got '-1'"),
        ("--grid", "a.jpg", "a sheet is a PNG file, FILE.png, got 'a.jpg'"),
        ("--seed", "-1", "a whole number from 0 to 2147483647, got '-1'"),
    ],
)
def test_values_out_of_range_are_refused(
    option: str, value: str, said: str, tmp_path: Path, call: Command
) -> None:
    done = call(tmp_path, "generate", "tale-gpt", f"{option}={value}")

    assert done.returncode == 2
    assert said in re.sub(r"\s+", " ", done.stderr)


PIPE = """
import sys
from atelier.cli import models
from atelier.__main__ import main
def write(options):
    while True:
        print("line")
models._models = write
sys.exit(main(["models"]))
"""


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PIPE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "ATELIER_HOME": str(tmp_path)},
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()

    complained = process.stderr.read()
    process.stderr.close()

    assert (process.wait(60), complained) == (0, b"")


def test_a_server_that_leaves_is_no_reader_that_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise BrokenPipeError(errno.EPIPE, "the server closed the connection")

    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    monkeypatch.setattr("atelier.cli.models._models", fail)

    assert main(["models"]) == 1
    assert "the server closed the connection" in capsys.readouterr().err


def test_a_full_disk_behind_standard_output_is_named(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        code = PIPE.replace("while True:", "if True:").replace(
            'print("line")', "print(1); return 0"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "ATELIER_HOME": str(tmp_path), "PYTHONUNBUFFERED": ""},
        )

    assert done.returncode == 2
    assert done.stderr.startswith("atelier: cannot write to standard output: ")
