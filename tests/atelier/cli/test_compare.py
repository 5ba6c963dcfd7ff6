"""`atelier compare`: the table, the verdict and the JSON of what was found."""

import json
import math
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.registry import version_comparison
from tasks.registry.version_comparison import (
    Change,
    MetricPair,
    PairedDifference,
    Side,
    VersionComparison,
)

Command = Callable[..., "subprocess.CompletedProcess[str]"]

PAIR = PairedDifference(
    metric="test_nll_nats",
    title="negative log-likelihood, nats per image",
    first=22.5,
    second=22.0,
    difference=-0.5,
    low=-0.7,
    high=-0.3,
    num_scores=1234,
    are_resamples=False,
)
FOUND = VersionComparison(
    name="digits-vae",
    first=Side(version=3, aliases=("champion",), run_id="a", digest="b"),
    second=Side(version=7, aliases=(), run_id="c", digest="d"),
    is_same_content=False,
    changes=(
        Change(section="settings", what="vae.model.latent_size", first="8", second="16"),
        Change(section="code", what="models.vae.model", first="", second="0123"),
    ),
    metrics=(
        MetricPair(name="test_nll_nats", title="nats", first=22.5, second=22.0),
        MetricPair(name="test_new", title="new", first=None, second=math.inf),
    ),
    paired=PAIR,
)


@pytest.fixture
def compared(
    tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """What the command prints of a comparison."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").touch()

    def run(found: VersionComparison, *arguments: str) -> "subprocess.CompletedProcess[str]":
        monkeypatch.setattr(version_comparison, "compare_versions", lambda *_: found)
        return call(home, "compare", "digits-vae", *arguments)

    return run


def test_the_table_shows_what_differs_and_the_line_below_what_that_means(compared: Command) -> None:
    done = compared(FOUND, "3", "7")

    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert lines == [
        "digits-vae version 3 (champion) version 7",
        "settings",
        "vae.model.latent_size 8 16",
        "code",
        "models.vae.model takes no part 0123",
        "metrics, of held-out data difference",
        "nats 22.5 22 -0.5",
        "new inf",
        "the same in both: data, libraries",
        "negative log-likelihood, nats per image: -0.5000 (-0.7000 to -0.3000, 95 %, paired over"
        " 1,234 held-out items): version 7 is better on items like these",
    ]


@pytest.mark.parametrize(
    ("pair", "verdict"),
    [
        (replace(PAIR, low=0.1, high=0.2), "version 3 is better on items like these"),
        (replace(PAIR, high=0.1), "these items cannot tell them apart"),
        (replace(PAIR, low=math.nan, high=math.nan), "these items cannot tell them apart"),
        (replace(PAIR, are_resamples=True), "resamples of the held-out images): version 7 is"),
    ],
)
def test_the_verdict_is_the_intervals(
    compared: Command, pair: PairedDifference, verdict: str
) -> None:
    assert verdict in compared(replace(FOUND, paired=pair)).stdout


def test_without_an_interval_or_a_record_the_reason_stands_there(compared: Command) -> None:
    bare = replace(FOUND, changes=(), paired=None, unpaired="why", unknown="no record")

    told = compared(replace(bare, is_same_content=True)).stdout.splitlines()

    assert told[-3:] == [
        "both are the same weights and settings",
        "what made them cannot be compared: no record",
        "no paired interval: why",
    ]


def test_json_holds_all_of_it_and_no_number_that_json_does_not_know(compared: Command) -> None:
    told = json.loads(compared(FOUND, "--json").stdout)

    assert told["paired"]["low"] == -0.7
    assert told["changes"][0]["what"] == "vae.model.latent_size"
    assert told["metrics"][1]["second"] is None
    assert told.keys() == set(VersionComparison.__slots__)


def test_without_a_registry_and_with_three_versions_it_is_refused(
    tmp_path: Path, call: Command
) -> None:
    for arguments, message in (
        (("digits-vae",), "no model is registered yet"),
        (("digits-vae", "1", "2", "3"), "two versions are compared, got 3"),
        (("No!",), "cannot be the name of a model"),
        (("digits-vae", "../x"), "cannot be the name of a alias"),
    ):
        done = call(tmp_path / "home", "compare", *arguments)

        assert done.returncode == 2
        assert message in done.stderr
