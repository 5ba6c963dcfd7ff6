"""What this home has started, after reboots, under other clocks, and out of sight."""

import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from atelier.services import background_processes, server_records
from atelier.services.server_records import Server
from tasks.runtime import processes
from tasks.store.files import home, write_json


def this_process(name: str, process: str = "") -> Server:
    mine = process or processes.this_process()
    return Server(name, "http://127.0.0.1:1", 1, os.getpid(), process=mine)


def test_records_of_another_boot_are_dropped(atelier_home: Path) -> None:
    """The same process id, but a process that began at another time."""
    host, pid, mark = processes.this_process().rsplit(":", 2)
    alive = this_process("prefect")
    stale = this_process("mlflow", f"{host}:{pid}:{mark.replace(mark[:12], '0123456789ab')}")

    server_records.record({"prefect": alive, "mlflow": stale})

    assert server_records.recorded() == {"prefect": alive}


STEPS = [3.0, -3.0, 7200.0, -7200.0, -1.7e9]
"""Seconds by which the clock is set: a little, by hours, and back to 1970."""


def set_clock(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """What a process sees after the clock was set: other times of day, other starts."""
    told, began = time.time, psutil.Process.create_time
    monkeypatch.setattr("time.time", lambda: told() + step)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: began(self) + step)


@pytest.mark.parametrize("step", STEPS)
def test_a_living_server_is_known_when_the_clock_is_set(
    step: float, living: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_records.record({"mlflow": living})
    set_clock(monkeypatch, step)

    assert server_records.recorded() == {"mlflow": living}


@pytest.mark.parametrize("step", [0.0, *STEPS])
def test_a_living_server_of_a_version_before_is_known_when_the_clock_is_set(
    step: float, living: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record names a time only; what it is and where it works says the rest."""
    began = psutil.Process(living.pid).create_time()
    before = replace(living, process="", created_at=began)
    fields = {k: v for k, v in asdict(before).items() if k not in ("process", "heard_before")}
    write_json(home() / "servers.json", {"mlflow": fields, "prefect": fields})
    set_clock(monkeypatch, step)

    assert server_records.recorded()["mlflow"].pid == living.pid
    assert not replace(before, name="prefect").is_running() or step == 0.0
    monkeypatch.setenv("ATELIER_HOME", "/somewhere/else")
    assert before.is_running() is (step == 0.0)


@pytest.mark.parametrize("of_another", ["machine", "container"])
def test_a_server_out_of_sight_counts_as_running_while_it_has_hold_of_the_home(
    of_another: str, living: Server
) -> None:
    host, pid, mark = living.process.rsplit(":", 2)
    boot, _, ticks = mark.split(".")
    name = {
        "machine": f"another-{living.process}",
        "container": f"{host}:{pid}:{boot}.1.{ticks}",
    }[of_another]
    elsewhere = replace(living, process=name)

    assert elsewhere.is_elsewhere
    assert elsewhere.is_running()
    with pytest.raises(background_processes.StackError, match="stop it there"):
        background_processes.stop(elsewhere)
    assert replace(elsewhere, name="prefect").is_running() is False  # nobody holds that one
    assert psutil.pid_exists(living.pid)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"prefect": {"pid": 1}}'])
def test_a_damaged_record_counts_as_none(atelier_home: Path, content: str) -> None:
    atelier_home.mkdir()
    (atelier_home / "servers.json").write_text(content)

    assert server_records.recorded() == {}
