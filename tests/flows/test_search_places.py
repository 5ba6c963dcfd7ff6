"""The flow of a search hands its trials to the runner that it was asked for, whichever that is."""

from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows import search as module
from flows.search import search
from tasks.search import runners
from tasks.search.outcome import Outcome
from tasks.search.records import Finding, outcomes_of, search_called
from tasks.search.runners import Place
from tasks.search.trial import TrialRequest, try_out
from tasks.store.files import BadInput
from tasks.training.device import computing_threads

pytestmark = pytest.mark.slow

VARY = {"ngram.model.order": "1..3"}


class Here:
    """A runner whose trials are tried in this process."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.labels: list[str] = []
        self.is_open = False

    def at(self, place: Place) -> "Here":
        self.places.append(place)
        return self

    def __enter__(self) -> "Here":
        self.is_open = True
        return self

    def __exit__(self, *_: Any) -> None:
        self.is_open = False

    def try_out(self, request: TrialRequest) -> Outcome:
        assert self.is_open
        self.labels.append(request.label)
        with computing_threads(request.threads):
            return try_out(request)


def found(text: Path, name: str, **asked: Any) -> Finding:
    return search(
        family="ngram",
        vary=VARY,
        text=f"file:{text}",
        preset="quick",
        trials=3,
        fresh_seeds=0,
        name=name,
        **asked,
    )


def test_the_runner_changes_nothing_of_what_is_found(
    prefect: SyncPrefectClient,
    tracking_database: str,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda _: object())
    here = Here()
    monkeypatch.setattr(module, "runner_at", here.at)

    plain = found(text_file, "plain")
    first = search_called("plain")
    outcomes = outcomes_of(first)
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "elsewhere"))
    on_ray = found(text_file, "on-ray", runner="ray:auto", trial_cpus=2, trial_gpus=0.5, threads=1)
    second = search_called("on-ray")

    assert here.places == [
        Place(runner="processes", workers=1, threads=1, cpus=1, gpus=None),
        Place(runner="ray:auto", workers=4, threads=1, cpus=2, gpus=0.5),
    ]
    assert not here.is_open
    labels = [f"trial {n}" for n in range(3)]
    assert here.labels[:3] == labels
    assert sorted(here.labels[3:]) == labels  # several at once end in any order
    assert on_ray == plain
    assert first.key == second.key
    assert [each.value for each in outcomes_of(second).values()] == [
        each.value for each in outcomes.values()
    ]


def test_what_cannot_be_is_refused_before_anything_is_read(
    prefect: SyncPrefectClient, tracking_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "recover_from_crashes", lambda: pytest.fail("it began"))

    with pytest.raises(BadInput, match="--trial-cpus says what a trial takes"):
        found(Path("nowhere"), "wrong", trial_cpus=2)
