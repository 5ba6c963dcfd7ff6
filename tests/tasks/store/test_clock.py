"""A clock that jumps makes nothing look old, until it has kept to its word for an hour."""

import os
import time
from pathlib import Path

import pytest

from tasks.maintenance.garbage_collection import find_garbage
from tasks.store import clock
from tasks.store.artifacts import opened
from tasks.store.clock import steady_now
from tasks.store.steps import history, recorded

HOUR = 3600.0
STEPS = [5.0, 5 * HOUR, 40 * 86_400.0]


class Clocks:
    """The two clocks of a machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told, self.up = 1_800_000_000.0, 1000.0
        monkeypatch.setattr("time.time", lambda: self.told)
        for module in ("store.clock", "store.steps"):
            monkeypatch.setattr(f"tasks.{module}.seconds_up", lambda: self.up)

    def passes(self, seconds: float) -> None:
        self.told += seconds
        self.up += seconds


@pytest.fixture
def clocks(atelier_home: Path, monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


@pytest.mark.parametrize("step", STEPS)
def test_a_jump_ahead_is_believed_after_an_hour(step: float, clocks: Clocks) -> None:
    assert steady_now() == clocks.told
    clocks.passes(60)
    clocks.told += step

    assert steady_now() == clocks.told - step
    clocks.passes(0.9 * HOUR)
    assert steady_now() == pytest.approx(clocks.told - step)
    clocks.passes(0.2 * HOUR)
    assert steady_now() == pytest.approx(clocks.told)


def test_a_jump_ahead_and_back_leaves_no_trace(clocks: Clocks) -> None:
    for step in (0.0, 500 * HOUR, -500 * HOUR, 0.0):
        clocks.told += step
        clocks.passes(0.6 * HOUR)
        told = clocks.told if step <= 0 else clocks.told - step
        assert steady_now() == pytest.approx(told)


@pytest.mark.parametrize("step", [-5.0, -5 * HOUR, -1_790_000_000.0])
def test_a_jump_back_is_believed_at_once(step: float, clocks: Clocks) -> None:
    steady_now()
    clocks.told += step

    assert steady_now() == pytest.approx(clocks.told)


def test_a_restart_of_the_machine_takes_the_clock_as_it_is(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady_now()
    clocks.told += 400 * HOUR
    clocks.up = 5.0
    monkeypatch.setattr("tasks.store.clock.this_start", lambda: "another")

    assert steady_now() == clocks.told


@pytest.mark.parametrize("content", ["", "{", "[]", '{"start": 1, "never": 2}', '{"start": "x"}'])
def test_a_damaged_memory_of_the_clock_counts_as_none(content: str, clocks: Clocks) -> None:
    clock._path().parent.mkdir(parents=True)
    clock._path().write_text(content)

    assert steady_now() == clocks.told


def test_a_home_that_cannot_be_written_to_still_knows_the_time(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tasks.store.clock.write_json", refuse)

    assert steady_now() == clocks.told


def test_what_a_rival_may_be_judging_is_kept_when_the_clock_jumps(clocks: Clocks) -> None:
    """The second time that a step ran makes the first one's result an earlier one."""
    for key in ("one", "two"):
        with opened("models", "digits-vae", {"key": key}) as place:
            place.folder.mkdir(parents=True)
            place.commit({}, digest=key)
    first, _ = history("digits-vae")
    folder = clock.home() / "artifacts" / "models" / "digits-vae" / first.key[:16]
    clocks.passes(60)
    clocks.told += 5 * HOUR

    assert find_garbage([]) == []
    clocks.passes(0.9 * HOUR)
    assert find_garbage([]) == []
    clocks.passes(0.2 * HOUR)
    assert [each.path for each in find_garbage([])] == [folder]


@pytest.mark.parametrize("step", [*STEPS, -5 * HOUR, -1_790_000_000.0])
def test_an_interrupted_fit_is_kept_when_the_clock_jumps(step: float, clocks: Clocks) -> None:
    steady_now()
    folder = clock.home() / "artifacts" / "models" / "vae" / "0123456789abcdef"
    folder.mkdir(parents=True)
    for path in (folder / "checkpoint.safetensors", folder):
        path.touch()
        os.utime(path, (time.time(),) * 2)
    clocks.told += step

    assert find_garbage([]) == []


def test_the_seconds_of_a_step_are_those_that_passed(clocks: Clocks) -> None:
    with recorded("digits-vae", {}) as record:
        clocks.passes(7)
        clocks.told -= 5 * HOUR

    assert record.seconds == pytest.approx(7.0)
