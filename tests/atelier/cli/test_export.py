"""`atelier export`: what it refuses, and what it says of what it wrote."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from atelier.cli import export
from tasks.registry import exporting
from tasks.registry.listing import ListedModel, ListedVersion

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Path]]:
    """What was exported, of a registry of one model."""
    asked: list[tuple[str, str, Path]] = []
    versions = {1: ListedVersion(number=1), 2: ListedVersion(number=2)}
    model = ListedModel(name="tale-gpt", aliases={"champion": 2}, versions=versions)

    def export_version(name: str, which: str, folder: Path) -> list[str]:
        asked.append((name, which, folder))
        return ["load.py", "weights.safetensors"]

    monkeypatch.setattr(export, "check_registry", lambda: None)
    monkeypatch.setattr(export, "find_registry", lambda: True)
    monkeypatch.setattr(export, "listed_model", lambda _: model)
    monkeypatch.setattr(exporting, "export_version", export_version)
    return asked


def test_the_champion_is_exported_unless_another_is_named(
    exported: list[tuple[str, str, Path]], tmp_path: Path, call: Command
) -> None:
    done = call(tmp_path, "export", "tale-gpt", str(tmp_path / "out"))
    call(tmp_path, "export", "tale-gpt/1", str(tmp_path / "one"))

    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"tale-gpt version 2 in {tmp_path / 'out'}: load.py, weights.safetensors\n"
        f"try it: python {tmp_path / 'out' / 'load.py'} --help\n"
    )
    assert exported == [
        ("tale-gpt", "2", tmp_path / "out"),
        ("tale-gpt", "1", tmp_path / "one"),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["tale-gpt", "."], "holds files already"), (["tale-gpt@best", "out"], "no version 'best'")],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    exported: list[tuple[str, str, Path]],
    tmp_path: Path,
    call: Command,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()

    done = call(tmp_path, "export", *arguments)

    assert (done.returncode, done.stdout, exported) == (2, "", [])
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_without_a_registry_nothing_is_exported(tmp_path: Path, call: Command) -> None:
    done = call(tmp_path / "home", "export", "tale-gpt", str(tmp_path / "out"))

    assert done.returncode == 2
    assert "no model is registered yet" in done.stderr
