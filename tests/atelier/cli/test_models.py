"""`atelier models` and `show`: what is registered, told at once."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.tracking.mlflow_client import client
from tests.imports import imported_by

Command = Callable[..., "subprocess.CompletedProcess[str]"]
CARD = "A table of counts.\n\n**bits per byte: 1.9**\n"


@pytest.fixture
def stocked(migrated_database: Path, atelier_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose registry has a model with a champion, and one without."""
    atelier_home.mkdir()
    shutil.copy(migrated_database, atelier_home / "mlflow.db")
    monkeypatch.chdir(atelier_home)
    registry = client()
    for name, value in (("tale-ngram", "1.86371"), ("tale-gpt", "2.5")):
        registry.create_registered_model(name, tags={"family": name.partition("-")[2]})
        tags = {"state": "complete", "main_metric": "test_bits_per_byte", "main_value": value}
        tags["metrics"] = json.dumps({"test_bits_per_byte": float(value)})
        registry.create_model_version(name, "s3://nowhere/1", tags=tags, description=CARD)
    registry.set_registered_model_alias("tale-ngram", "champion", "1")
    registry.set_registered_model_tag("tale-ngram", "champion_version", "1")
    registry.set_registered_model_tag("tale-ngram", "champion_since", "2026-01-02T03:04+00:00")
    return atelier_home


def test_models_are_listed_with_champion_metric_and_date(stocked: Path, call: Command) -> None:
    done = call(stocked, "models")

    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["tale-gpt", "none", "1"],
        *[["tale-ngram", "1", "bits", "per", "byte", "1.8637", "2026-01-02", "03:04", "UTC", "1"]],
    ]


def test_models_as_json(stocked: Path, call: Command) -> None:
    gpt, ngram = json.loads(call(stocked, "models", "--json").stdout)

    assert (gpt["model"], gpt["champion"], gpt["main_value"]) == ("tale-gpt", None, None)
    assert ngram == {
        "model": "tale-ngram",
        "family": "ngram",
        "champion": 1,
        "main_metric": "test_bits_per_byte",
        "main_value": 1.86371,
        "champion_since": "2026-01-02T03:04+00:00",
        "aliases": {"champion": 1},
        "versions": [1],
    }


def test_the_card_is_shown_below_what_the_version_is_called(stocked: Path, call: Command) -> None:
    done = call(stocked, "show", "tale-ngram")

    assert done.stdout == (
        "tale-ngram version 1, champion since 2026-01-02 03:04 UTC\n\n"
        "A table of counts.\n\nbits per byte: 1.9\n"
    )
    assert call(stocked, "show", "tale-gpt/1").stdout.startswith("tale-gpt version 1\n")


def test_a_version_as_json(stocked: Path, call: Command) -> None:
    told = json.loads(call(stocked, "show", "tale-ngram/1", "--json").stdout)

    assert (told["model"], told["version"], told["aliases"]) == ("tale-ngram", 1, ["champion"])
    assert told["card"] == CARD
    assert told["metrics"] == {"test_bits_per_byte": 1.86371}
    assert told["tags"]["main_value"] == "1.86371"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["show", "tale-ngrm"],
            "'tale-ngrm' (did you mean tale-ngram?); there are: tale-gpt, tale-ngram",
        ),
        (["show", "tale-gpt"], "tale-gpt has no version 'champion'; there are: /1"),
        (["show", "tale-ngram/3"], "tale-ngram has no version '3'; there are: @champion, /1"),
    ],
)
def test_what_is_not_there_is_refused_in_a_line(
    stocked: Path, call: Command, arguments: list[str], said: str
) -> None:
    done = call(stocked, *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize("arguments", [["models"], ["show", "tale-ngram"]])
def test_without_a_registry_the_way_to_one_is_told(
    tmp_path: Path, call: Command, arguments: list[str]
) -> None:
    done = call(tmp_path / "none", *arguments)

    assert done.returncode == 2
    assert "no model is registered yet: train some with `atelier run`" in done.stderr
    assert not (tmp_path / "none" / "mlflow.db").exists()


def test_no_library_is_imported_that_takes_seconds(stocked: Path) -> None:
    imported, done = imported_by(
        "from atelier.__main__ import main; main(['models']); main(['show', 'tale-ngram'])"
    )

    assert imported == []
    assert "tale-ngram" in done.stdout
