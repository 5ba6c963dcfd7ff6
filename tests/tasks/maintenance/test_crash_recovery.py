"""Which flow runs count as dead; no server is asked here."""

import os
import platform
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from prefect.client.schemas.objects import StateType

from tasks.maintenance import crash_recovery
from tasks.maintenance.crash_recovery import HOST_LABEL, OWNER_LABEL, STATE_LABEL
from tasks.runtime.processes import name_of, this_process
from tasks.store import leases
from tasks.store.clock import steady_now

STEPS = [3.0, -3.0, 7200.0, -7200.0, -1.7e9]


def set_clock(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    told, began = time.time, psutil.Process.create_time
    monkeypatch.setattr("time.time", lambda: told() + step)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: began(self) + step)


def run_of(owner: str, kind: StateType = StateType.RUNNING, **extra: Any) -> Any:
    labels = {OWNER_LABEL: owner, HOST_LABEL: platform.node()} if owner else {}
    plain = {"labels": labels, "state_type": kind, "parent_task_run_id": None, "state": None}
    return SimpleNamespace(**{**plain, "deployment_id": "some", **extra})


def is_dead(run: Any) -> bool:
    return crash_recovery._is_dead(SimpleNamespace(), run)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", STEPS)
def test_a_run_of_a_living_process_is_not_dead_when_the_clock_is_set(
    step: float, atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = psutil.Process(child.pid).create_time()
    owners = [name_of(child.pid), f"{child.pid}@{began:.2f}"]  # of this version and of one before
    set_clock(monkeypatch, step)

    assert not any(is_dead(run_of(owner)) for owner in owners)
    assert not is_dead(run_of(this_process()))
    child.communicate(b"\n")
    assert all(is_dead(run_of(owner)) for owner in owners)


def test_a_run_of_another_machine_or_with_a_label_that_says_nothing_is_left_alone() -> None:
    assert not is_dead(run_of(f"another-{this_process()}"))
    assert not is_dead(run_of("edited by hand"))
    assert is_dead(run_of(f"{os.getpid()}@1.00"))


def test_a_run_of_another_machine_is_dead_once_its_lease_has_run_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = f"another-{this_process()}"
    monkeypatch.setattr(leases, "shared", lambda: "a store")
    monkeypatch.setattr(leases, "_has_vanished", lambda _, process: process == there)

    assert is_dead(run_of(there))
    assert not is_dead(run_of(f"a-third-{this_process()}"))
    assert not is_dead(run_of(there, StateType.PENDING))


def test_a_run_that_has_just_begun_again_is_not_dead_for_the_attempt_before(
    atelier_home: Path,
) -> None:
    now, long_ago = datetime.now(UTC), datetime.now(UTC) - timedelta(minutes=11)
    gone = f"{platform.node()}:1:0"

    def run(signed: str, since: datetime, kind: StateType = StateType.RUNNING) -> Any:
        made = run_of(gone, kind, state=SimpleNamespace(id="second", timestamp=since))
        made.labels[STATE_LABEL] = signed
        return made

    assert not is_dead(run("first", now))
    assert is_dead(run("second", now))
    assert is_dead(run("first", long_ago))  # it died before it could sign
    assert is_dead(run("first", now, StateType.CANCELLING))
    of_ours = run("first", long_ago)
    of_ours.labels[OWNER_LABEL] = this_process()  # Prefect itself tries a flow again
    assert not is_dead(of_ours)


@pytest.mark.parametrize("step", [0.0, *STEPS])
def test_a_run_that_was_just_handed_to_a_worker_is_not_lost_when_the_clock_is_set(
    step: float, atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady_now()
    handed, long_ago = datetime.now(UTC), datetime.now(UTC) - timedelta(minutes=11)
    set_clock(monkeypatch, step)

    just = run_of("", StateType.PENDING, state=SimpleNamespace(timestamp=handed))
    lost = run_of("", StateType.PENDING, state=SimpleNamespace(timestamp=long_ago))
    assert not is_dead(just)
    assert is_dead(lost) or step < 0  # a clock that was set back makes it younger


@pytest.mark.parametrize(
    ("ended_ago", "is_settled"), [(10, False), (90, True), (-5, False), (-3600, True)]
)
def test_a_crash_that_seems_yet_to_come_has_settled(
    ended_ago: float, is_settled: bool, atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set back after it."""
    end = datetime.now(UTC) - timedelta(seconds=ended_ago)
    plain = {"id": "r", "name": "crashed", "tags": [], "parameters": {}, "deployment_id": "d"}
    run = SimpleNamespace(**plain, end_time=end, state_type="CRASHED")
    form = SimpleNamespace(parameter_openapi_schema=None)
    asked = {"update_flow_run": lambda *_, **__: None, "read_deployment": lambda _: form}
    client = nullcontext(SimpleNamespace(**asked))
    monkeypatch.setattr(crash_recovery, "get_client", lambda sync_client: client)
    monkeypatch.setattr(crash_recovery, "_runs", lambda *_, **__: [run])
    monkeypatch.setattr(crash_recovery, "_again", lambda *_: None)

    assert crash_recovery.retry_crashed_runs() == (["crashed"] if is_settled else [])
