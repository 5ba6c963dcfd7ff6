"""Processes of other machines: alive while their lease moves, on the clock of who watches."""

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.runtime.processes import this_process
from tasks.store import leases
from tasks.store.claims import BEATS_OF_A_LEASE
from tasks.store.retention import lease_seconds
from tasks.store.shared import Entry, SharedStore, StoreAway, shared

THERE = f"machine-b:{this_process().partition(':')[2]}"


@pytest.fixture
def store(atelier_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedStore:
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("ATELIER_STORE", f"file://{tmp_path / 'store'}")
    monkeypatch.setattr(leases, "_seen", {})
    monkeypatch.setattr(leases, "_held_by", {})
    found = shared()
    assert found is not None
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that moves when somebody sleeps."""
    made = SimpleNamespace(now=0.0, monotonic=lambda: made.now, on_sleep=lambda: None)

    def sleep(seconds: float) -> None:
        made.now += seconds
        made.on_sleep()

    made.sleep = sleep
    monkeypatch.setattr(leases, "time", made)
    return made


@pytest.fixture
def beat(store: SharedStore) -> Callable[[], None]:
    """Moves the lease of the process that is elsewhere."""
    numbers = itertools.count()

    def move() -> None:
        number = next(numbers)
        what = f"{number:08d}" if number else "claim"
        assert store.create(f"{leases._folder(THERE)}/00000001.{what}", b"")

    return move


def test_a_process_elsewhere_lives_while_its_lease_moves(
    clock: Any, beat: Callable[[], None]
) -> None:
    beat()
    for _ in range(3):
        assert leases.lives(THERE)
        clock.now += lease_seconds() - 1
        assert leases.lives(THERE)
        beat()
    assert leases.lives(THERE)
    clock.now += lease_seconds()

    assert not leases.lives(THERE)
    beat()  # it had only been cut off
    assert leases.lives(THERE)


def test_a_watcher_that_looks_for_the_first_time_gives_it_the_time_of_a_lease(
    clock: Any, beat: Callable[[], None]
) -> None:
    beat()
    clock.now += 1e6

    assert leases.lives(THERE)


def test_of_a_process_that_never_had_a_lease_nothing_is_known(
    store: SharedStore, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        assert leases.lives(THERE)
        clock.now += 10 * lease_seconds()
    monkeypatch.delenv("ATELIER_STORE")
    assert leases.lives(THERE)


def test_processes_of_this_machine_need_no_lease(store: SharedStore, clock: Any) -> None:
    ended = f"{this_process()}9"

    assert leases.lives(this_process())
    assert not leases.lives(ended)


def test_while_the_store_is_away_nobodys_time_runs_out(
    store: SharedStore, clock: Any, beat: Callable[[], None]
) -> None:
    def away(*_: Any) -> Any:
        raise StoreAway("away")

    beat()
    assert leases.lives(THERE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedStore, "names", away)
        clock.now += lease_seconds()
        assert leases.lives(THERE)
    assert leases.lives(THERE)
    clock.now += lease_seconds()
    assert not leases.lives(THERE)


@pytest.mark.parametrize("moves", [True, False])
def test_to_observe_takes_the_time_of_a_lease_for_the_dead_and_less_for_the_living(
    clock: Any, beat: Callable[[], None], moves: bool
) -> None:
    beat()
    sleeps = itertools.count(1)
    clock.on_sleep = lambda: beat() if moves and next(sleeps) == 5 else None

    leases.observe([THERE, this_process(), "no name at all"])

    assert leases.lives(THERE) == moves
    assert clock.now == 5 if moves else lease_seconds() <= clock.now <= lease_seconds() + 2


def test_to_observe_does_not_wait_for_processes_that_hold_no_lease(
    store: SharedStore, clock: Any, beat: Callable[[], None]
) -> None:
    leases.observe([THERE])
    assert clock.now == 0.0
    assert leases.lives(THERE)

    beat()
    leases.observe([THERE, THERE.replace("machine-b", "machine-c")])
    assert clock.now >= lease_seconds()
    assert not leases.lives(THERE)


def test_to_observe_goes_on_once_a_store_that_was_away_answers(
    store: SharedStore, clock: Any, beat: Callable[[], None]
) -> None:
    def away(*_: Any) -> Any:
        raise StoreAway("away")

    beat()
    outage = pytest.MonkeyPatch()
    outage.setattr(SharedStore, "names", away)
    clock.on_sleep = outage.undo
    try:
        leases.observe([THERE])
    finally:
        outage.undo()

    assert clock.now > 0.0


def test_a_process_that_holds_a_lease_moves_it(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_LEASE_SECONDS", "1")
    leases.hold_lease()
    leases.hold_lease()
    seen: list[list[str]] = []
    deadline = time.monotonic() + 30
    while len(seen) < 3 and time.monotonic() < deadline:
        names = store.names(leases.FOLDER)
        if names and names not in seen:
            seen.append(names)
        time.sleep(1 / BEATS_OF_A_LEASE / 10)

    assert len(seen) == 3
    assert all(name.startswith(leases._folder(this_process())) for each in seen for name in each)
    assert max(len(each) for each in seen) <= 3  # what it no longer needs is removed


def test_leases_that_ended_long_ago_are_forgotten(
    store: SharedStore, beat: Callable[[], None]
) -> None:
    beat()
    names = store.names(leases.FOLDER)
    leases.forget_ended(1.0)
    assert store.names(leases.FOLDER) == names
    told = store.entries(leases.FOLDER)
    later = datetime(2999, 1, 1, tzinfo=UTC)
    newer = {"processes/other/00000001.claim": Entry(num_bytes=0, written_at=later)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedStore, "entries", lambda *_: {**told, **newer})
        leases.forget_ended(1.0)

    assert store.names(leases.FOLDER) == []
