"""A turn of the training device: how it ends while Prefect's server is away."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from flows import device_slot as turns
from tasks.store.locks import file_lock


class Device:
    """Prefect's slot of the device, whose release may fail."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.is_held = False
        self.times_taken = 0

    @contextmanager
    def slot(self, *_: Any, **__: Any) -> Iterator[None]:
        self.is_held = True
        self.times_taken += 1
        try:
            yield
        finally:
            self.is_held = False
            if self.error is not None:
                raise self.error


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], Device]:
    """Makes a device that fails in a way, or does not."""

    def failing_with(error: Exception | None) -> Device:
        made = Device(error)
        monkeypatch.setattr(turns, "_ensure_limit", lambda: None)
        monkeypatch.setattr(turns, "concurrency", made.slot)
        return made

    return failing_with


def test_work_that_is_done_does_not_fail_because_its_slot_cannot_be_given_back(
    device: Callable[[Exception | None], Device],
) -> None:
    failing = device(httpx.ConnectError("away"))

    with turns.device_slot():
        assert failing.is_held

    assert not failing.is_held


def test_the_error_of_the_work_itself_is_the_one_that_is_raised(
    device: Callable[[Exception | None], Device],
) -> None:
    device(httpx.ConnectError("away"))

    with pytest.raises(ValueError, match="the loss"), turns.device_slot():
        raise ValueError("the loss is not a number")


def test_any_other_error_of_the_release_is_raised(
    device: Callable[[Exception | None], Device],
) -> None:
    device(TypeError("a bug"))

    with pytest.raises(TypeError, match="a bug"), turns.device_slot():
        pass


def test_others_may_work_while_a_person_is_waited_for(
    device: Callable[[Exception | None], Device],
) -> None:
    shared = device(None)

    with turns.device_slot():
        with turns.released_slot():
            assert not shared.is_held
        assert shared.is_held
    assert not shared.is_held


def test_a_run_that_is_cancelled_while_it_waits_does_not_ask_for_the_slot_again(
    device: Callable[[Exception | None], Device],
) -> None:
    shared = device(None)

    with pytest.raises(KeyboardInterrupt), turns.device_slot(), turns.released_slot():
        raise KeyboardInterrupt
    assert not shared.is_held


def test_a_run_without_a_slot_waits_for_a_person_as_it_is(
    device: Callable[[Exception | None], Device],
) -> None:
    shared = device(None)

    with turns.released_slot():
        pass
    assert shared.times_taken == 0


def test_nobody_waits_for_a_lock_with_the_slot_in_hand(
    device: Callable[[Exception | None], Device], atelier_home: Path
) -> None:
    """The holder of the lock may be waiting for the slot: both would wait for ever."""
    shared = device(None)
    is_locked, saw_the_slot_free = Event(), Event()

    def at_the_task() -> None:
        with file_lock("task-shared"):
            is_locked.set()
            for _ in range(500):
                if not shared.is_held:
                    saw_the_slot_free.set()
                    return
                time.sleep(0.02)

    with turns.device_slot():
        other = Thread(target=at_the_task)
        other.start()
        assert is_locked.wait(30)
        with file_lock("task-shared", while_waiting=turns.released_slot):
            assert saw_the_slot_free.is_set()
            assert shared.is_held
        other.join()
