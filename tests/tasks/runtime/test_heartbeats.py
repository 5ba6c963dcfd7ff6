"""How flows end: nobody waits for the heartbeats of one inside another."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prefect import flow, flow_engine

import flows
from tasks.runtime import heartbeats


def test_prefects_heartbeats_are_those_that_are_wrapped() -> None:
    """Another Prefect may wait otherwise; then the wrapper is to be looked at again."""
    assert flows
    assert flow_engine._send_heartbeats is heartbeats._sent
    assert list(inspect.signature(heartbeats._prefects).parameters) == ["engine", "join_on_exit"]


def test_only_the_outermost_flow_waits_for_its_heartbeats(
    prefect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: dict[str, bool] = {}

    @contextmanager
    def sent(engine: Any, join_on_exit: bool) -> Iterator[None]:
        waits[engine.flow.name] = join_on_exit
        yield

    monkeypatch.setattr(heartbeats, "_prefects", sent)

    @flow(name="inner")
    def inner() -> int:
        return 1

    @flow(name="outer")
    def outer() -> int:
        return inner() + 1

    assert outer() == 2
    assert waits == {"outer": True, "inner": False}
