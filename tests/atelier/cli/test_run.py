"""What `atelier run` prints at its end."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atelier.__main__ import main
from atelier.cli import run
from atelier.services import terminal
from flows.full_run import RunSummary
from tasks.registry.versions import Version

VERSION = Version(
    name="digits-vae",
    version=3,
    alias="champion",
    run_id="r" * 32,
    digest="d" * 64,
    main_metric="test_nll_nats",
    main_value=22.5,
    seconds=41.0,
    is_new=True,
)
URLS = {"prefect": "http://127.0.0.1:4200", "mlflow": "http://127.0.0.1:5000"}


@pytest.fixture
def finished(atelier_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that has one version to tell of; nothing is started."""
    page = atelier_home / "gallery" / "index.html"

    def result(flow: Any, **parameters: Any) -> RunSummary:
        terminal.say("12:00:00  digits-vae: trained in 41 s")
        return RunSummary(versions=(VERSION,), gallery=str(page))

    monkeypatch.setattr(run, "start_servers", lambda options: URLS)
    monkeypatch.setattr(run, "flow_result", result)
    return page


def test_a_program_gets_json_alone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["gallery"] == str(finished)
    assert told["servers"] == URLS
    (version,) = told["versions"]
    assert (version["name"], version["version"], version["main_value"]) == ("digits-vae", 3, 22.5)


def test_a_number_that_json_does_not_know_is_null(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    worst = replace(VERSION, main_value=float("nan"), references={"real data": float("inf")})
    made = RunSummary(versions=(worst,), gallery=str(finished))
    monkeypatch.setattr(run, "flow_result", lambda *_, **__: made)

    assert main(["run", "--json"]) == 0

    (version,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["versions"]
    assert (version["main_value"], version["references"]) == (None, {"real data": None})


def test_a_quiet_run_tells_its_result(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--quiet"]) == 0

    said = capsys.readouterr().out
    assert "trained in" not in said
    assert "digits-vae  3        champion" in said
    assert f"gallery     {finished.as_uri()}" in said


def test_another_run_tells_what_goes_on(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 0

    assert "12:00:00  digits-vae: trained in 41 s\n" in capsys.readouterr().out
