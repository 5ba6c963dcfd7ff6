"""What the documentation says of the code is so: commands, variables, settings, pages, links."""

import argparse
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image

from atelier.__main__ import _parser
from atelier.services.ambient_settings import DROPPED, SET
from tasks.families.table import FAMILIES
from tasks.settings.catalogue import settings_of

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
GENERATED = {"reference/cli.md", "reference/settings.md", "reference/deployments.md"}
WRITTEN = sorted({*DOCS.rglob("*.md")} - {DOCS / name for name in GENERATED})
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *WRITTEN]


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    before = list(sys.path)
    yield _reference()
    sys.path[:] = before


def _blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The language and the text of each fenced block."""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "fence":
            yield token.info.strip(), token.content


def _commands(page: Path) -> list[list[str]]:
    """The words of each command in the page's blocks, without comments and output."""
    lines = [
        line
        for language, text in _blocks(page)
        if language in ("", "sh")
        for line in text.replace("\\\n", " ").splitlines()
    ]
    return [words for line in lines if (words := _words(line))]


def _words(line: str) -> list[str]:
    is_command = line.startswith(("atelier ", "make", "python -m "))
    return shlex.split(line, comments=True) if is_command else []


def _called(page: Path) -> set[tuple[str, str]]:
    """What a page's prose calls by name: program, and command, target or module."""
    found = re.findall(r"`(atelier|make|python -m) ([a-z][a-z_.-]*)", page.read_text())
    return {(program, name) for program, name in found}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_prints_is_one(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = _parser()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in _commands(page):
        match words:
            case ["atelier", *arguments]:
                try:
                    _check(parser.parse_args(arguments))
                except SystemExit:
                    pytest.fail(f"{shlex.join(words)}: {capsys.readouterr().err}")
            case ["make", target]:
                assert target in targets, words
            case ["python", "-m", module, *_]:
                assert _is_module(module), words
    for program, name in _called(page):
        if program == "make":
            assert name in targets, name
        elif program == "atelier":
            assert name in parser.commands.choices, name  # type: ignore[attr-defined]
        else:
            assert _is_module(name), name


def _check(options: argparse.Namespace) -> None:
    """What parsing lets pass: names of settings and families, and a command in a schedule."""
    told = [*(getattr(options, "set", None) or ()), *(getattr(options, "vary", None) or ())]
    for setting in told:
        if setting == "...":
            continue
        name = setting.partition("=")[0]
        family = name.partition(".")[0]
        assert family in FAMILIES, name
        assert name in settings_of(FAMILIES[family]), name
    if isinstance(family := getattr(options, "family", None), str):
        assert family in FAMILIES, family
    if rest := getattr(options, "rest", None):
        _check(_parser().parse_args(rest))


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def test_the_pages_print_commands_at_all() -> None:
    found = [words for page in PAGES for words in _commands(page)]

    assert len([words for words in found if words[0] == "atelier"]) > 50
    assert ["make", "run"] in found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files_that_are_there(page: Path) -> None:
    """Anchors, and the links among pages of the site, `make docs` looks at besides."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith("http"):
            place = (page.parent / target).resolve()
            is_made = place.is_relative_to(DOCS) and place.relative_to(DOCS).as_posix() in GENERATED
            assert is_made or place.exists(), target


def test_every_variable_of_ours_is_documented_and_no_other() -> None:
    page = (DOCS / "reference" / "environment.md").read_text()
    code = [path for floor in ("atelier", "flows", "tasks", "models") for path in _sources(floor)]
    others = [ROOT / "Makefile", *(ROOT / "deploy").iterdir()]
    found = {
        name
        for path in [*code, *others]
        for name in re.findall(r"\bATELIER_[A-Z_]*[A-Z]\b", path.read_text())
    }

    assert set(re.findall(r"\bATELIER_[A-Z_]*[A-Z]\b", page)) == found
    assert {"ATELIER_HOME", "ATELIER_NOTIFY_BLOCK"} <= found
    for name in {*SET, *DROPPED}:
        assert f"`{name}`" in page, name


def _sources(floor: str) -> list[Path]:
    return [path for path in (ROOT / floor).rglob("*") if path.suffix in (".py", ".yml", ".html")]


def _nav(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else _nav(value)


def test_the_navigation_has_every_page() -> None:
    project = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    there = {page.relative_to(DOCS).as_posix() for page in WRITTEN} | GENERATED

    assert sorted(_nav(project["nav"])) == sorted(there)
    assert project["theme"]["font"] is False  # else every page asks a foreign host for fonts


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _parsers(each)


def test_the_page_of_commands_has_every_option(reference: ModuleType) -> None:
    page = reference.cli_page()
    sections = dict(re.findall(r"^#+ (atelier .*)\n((?:(?!#).*\n)*)", page, re.MULTILINE))
    commands = [each for each in _parsers(_parser()) if each.prog != "atelier"]

    assert {each.prog for each in commands} == set(sections)
    for parser in commands:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                continue
            assert action.help, f"{parser.prog} {action.dest}: wanted a help text, got none"
            for name in {*action.option_strings} - {"-h", "--help"}:
                assert re.search(rf"^\|.*`{name}\b", sections[parser.prog], re.MULTILINE), name
    assert _rows_are_whole(page)
    assert "%%" not in page
    assert "0 to 2147483647 (default: 0) |" in sections["atelier run"]


def test_the_page_of_settings_has_every_one_with_its_text(reference: ModuleType) -> None:
    page = reference.settings_page()

    for family in FAMILIES.values():
        for name, setting in settings_of(family).items():
            assert (f"| `{name}` |" in page) is not setting.is_fixed, name
    assert "| `vae.training.steps` | `400`, `2000`, `6000` | a whole number" in page
    assert _rows_are_whole(page)


def test_the_page_of_deployments_has_every_one(reference: ModuleType) -> None:
    page = reference.deployments_page()
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]

    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [each["name"] for each in declared]
    assert "| Runs | `0 3 * * *` (UTC) |" in page
    assert _rows_are_whole(page)


def _rows_are_whole(page: str) -> bool:
    """Whether all rows of each table have as many cells as its head."""
    cells = 0
    for line in page.splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        found = len(re.findall(r"(?<!\\)\|", re.sub("`[^`]*`", "", line)))
        cells = cells or found
        if found != cells:
            return False
    return True


def test_marks_in_texts_are_no_markup(reference: ModuleType) -> None:
    assert reference._text("'*.py' | `a_b` <x> [y] a_b") == (r"'\*.py' \| `a_b` &lt;x> \[y] a\_b")
    assert not _rows_are_whole("| a | b |\n|---|---|\n| a | b | c |")


def test_the_script_of_the_tutorial_draws_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = [text for language, text in _blocks(DOCS / "tutorial.md") if language == "python"]
    monkeypatch.chdir(tmp_path)

    exec(compile(script, "tutorial.md", "exec"), {})

    pictures = sorted(tmp_path.glob("shapes/*/*.png"))
    assert len(pictures) == 900
    assert {path.parent.name for path in pictures} == {"circle", "square", "triangle"}
    for path in pictures[::100]:
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == ("L", (16, 16))
            assert picture.getextrema()[1] > 200


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_asks_no_foreign_host(
    reference: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    for name in ("zensical.toml", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    for floor in ("atelier", "flows", "tasks", "models"):
        (tmp_path / floor).symlink_to(ROOT / floor)
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "docs" / "reference")
    reference.main()

    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) == len(WRITTEN) + len(GENERATED) + 1  # and the one for what is not found
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|link|iframe)[^>]*?(?:src|href)=\"?([^\" >]+)", text)
        assert loaded
        assert [each for each in loaded if re.match("(https?:)?//", each)] == []
    api = (tmp_path / "site" / "reference" / "api.html").read_text()
    assert 'id="models.training.protocol.Training"' in api
    assert not list((tmp_path / "site").rglob("*.py"))
