"""Where trials are tried: what is refused before a cluster is asked."""

from typing import Any, get_args

import pytest

from atelier.cli import search as command
from tasks.search import runners
from tasks.search.runners import RUNNERS, RunnerName, checked_place, runner_at
from tasks.search.study import BATCH_SIZE
from tasks.search.workers import Workers
from tasks.store.files import BadInput


@pytest.fixture
def with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda _: object())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"runner": "processes", "trial_cpus": 2}, "--trial-cpus says what a trial takes of Ray's"),
        ({"runner": "processes", "trial_gpus": 0.0}, "--trial-gpus says what .* add --runner ray"),
        ({"runner": "ray", "trial_gpus": 1.5}, "a part of one GPU, such as 0.5, or whole ones"),
    ],
)
def test_what_a_runner_cannot_use_is_refused(
    given: dict[str, Any], said: str, with_ray: None
) -> None:
    with pytest.raises(BadInput, match=said):
        checked_place(threads=1, **given)


def test_ray_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda _: None)

    with pytest.raises(BadInput, match=r"`make setup` installs it, or pip install 'ray>="):
        checked_place("ray:auto", threads=1)
    assert checked_place("processes", threads=1).workers == 1


def test_what_is_not_said_follows_from_the_runner_and_the_threads(with_ray: None) -> None:
    place = checked_place("ray", threads=3)

    assert (place.workers, place.cpus, place.gpus) == (BATCH_SIZE, 3, None)
    assert place.is_of_this_machine
    assert place.wanted == "3 CPUs"
    asked = checked_place("ray:auto", threads=3, workers=2, trial_cpus=1, trial_gpus=0.5)
    assert (asked.workers, asked.cpus, asked.gpus) == (2, 1, 0.5)
    assert not asked.is_of_this_machine
    assert asked.wanted == "1 CPU and 0.5 GPUs"


def test_processes_are_what_they_were() -> None:
    runner = runner_at(checked_place("processes", threads=2, workers=3))

    assert isinstance(runner, Workers)
    assert (runner._number, runner._threads) == (3, 2)


def test_the_command_line_offers_what_there_is() -> None:
    assert command.RUNNERS == RUNNERS == get_args(RunnerName)
    assert command.MAX_GPUS == runners.MAX_GPUS
    assert command._LIMITS["trial_cpus"] == (1, runners.MAX_CPUS)
