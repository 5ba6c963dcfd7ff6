"""The worker: its name, when it counts as online, and when it is started anew."""

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from atelier.services import local_worker, server_records
from atelier.services.local_worker import ensure_worker, worker_name
from atelier.services.server_records import Server
from tasks.runtime.processes import name_of
from tasks.store.files import home, write_json

PREFECT = "http://127.0.0.1:4200"


def test_a_worker_is_online_once_the_server_heard_from_it_and_whenever_that_was(
    atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = {"name": worker_name(), "status": "ONLINE", "last_heartbeat_time": "the one before"}
    monkeypatch.setattr(local_worker, "ask_prefect", lambda *_: [heard])
    mine = name_of(os.getpid())
    worker = Server("worker", PREFECT, 1, os.getpid(), process=mine, heard_before="the one before")

    assert not local_worker.is_online(worker)
    heard["last_heartbeat_time"] = "1970-01-01T00:00:00Z"
    assert local_worker.is_online(worker)
    heard["status"] = "OFFLINE"
    assert not local_worker.is_online(worker)


def test_two_homes_on_one_machine_have_workers_of_different_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    for name in ("one", "two"):
        monkeypatch.setenv("ATELIER_HOME", str(tmp_path / name))
        names.add(worker_name())

    assert len(names) == 2


def test_a_worker_whose_runs_would_look_for_mlflow_elsewhere_is_restarted(
    started: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for port in ("5000", "5000", "5055", "5055"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{port}")
        ensure_worker(PREFECT, said.append)

    assert [each["MLFLOW_TRACKING_URI"][-4:] for each in started] == ["5000", "5055"]
    assert said == [
        "starting the worker",
        "restarting the worker, so that its runs find MLflow, and the store, where they are",
    ]
    assert "secret" not in (home() / "servers.json").read_text()


def test_a_worker_whose_runs_would_use_another_store_is_restarted(
    started: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    for store in ("", "file:///a", "file:///a", "file:///b", ""):
        monkeypatch.setenv("ATELIER_STORE", store)
        ensure_worker(PREFECT)

    assert [each["ATELIER_STORE"] for each in started] == ["", "file:///a", "file:///b", ""]


def test_a_worker_of_a_record_without_that_address_is_known_and_restarted(
    started: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    ensure_worker(PREFECT)
    fields = asdict(server_records.recorded()["worker"])
    del fields["tracking_digest"]
    write_json(home() / "servers.json", {"worker": fields})

    assert server_records.recorded()["worker"].pid == os.getpid()
    assert ensure_worker(PREFECT)
    assert not ensure_worker(PREFECT)
