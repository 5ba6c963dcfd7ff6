"""Servers of this home and of others: which are used, and what they allow."""

import os
import platform
import socket
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from atelier.cli.options import find_registry
from atelier.services import background_processes, local_servers, server_records
from atelier.services.background_processes import StackError
from atelier.services.server_records import Server
from tasks.runtime.processes import name_of
from tasks.tracking.home_database import is_at_hand


def test_a_server_of_another_machine_is_neither_used_nor_started_a_second_time(
    living: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(living, process=f"another-{living.process}", url="http://127.0.0.1:1")
    server_records.record({"mlflow": elsewhere})
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(local_servers, "is_healthy", lambda name, _: name == "prefect")

    with pytest.raises(
        background_processes.StackError, match=f"another-{platform.node()}.*atelier down"
    ):
        local_servers.ensure_servers()


def test_a_strangers_answer_at_our_port_is_not_taken_for_our_servers(
    living: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two homes that are started at once find the same port free."""
    monkeypatch.setattr(local_servers, "is_healthy", lambda *_: True)  # the other home's answers
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        mine = Server("mlflow", "url", port, os.getpid(), process=name_of(os.getpid()))
        local_servers._wait_until_healthy(mine)

        psutil.Process(living.pid).kill()
        with pytest.raises(
            background_processes.StackError, match=f"took port {port}.*run the same"
        ):
            local_servers._wait_until_healthy(replace(living, port=port))


def allowed_origins(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Prefect's server reads from an environment, and as it reads it."""
    from prefect.settings.models.server.api import ServerAPISettings

    for name, value in environment.items():
        if "_CORS_" in name:
            monkeypatch.setenv(name, value)
    return ServerAPISettings().cors_allowed_origins.split(",")


def test_only_the_pages_of_prefect_itself_may_ask_its_server(
    started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    local_servers._start("prefect", 4321)

    (environment,) = started
    expected = ["http://127.0.0.1:4321", "http://[::1]:4321", "http://localhost:4321"]
    assert allowed_origins(environment, monkeypatch) == expected


@pytest.mark.parametrize(
    "name", ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"]
)
def test_the_origins_that_a_person_allows_stay(
    name: str, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "https://atelier.example.org")
    local_servers._start("prefect", 4321)

    (environment,) = started
    assert allowed_origins(environment, monkeypatch) == ["https://atelier.example.org"]


def test_a_stranger_that_answers_at_our_port_is_not_our_server(
    atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that took the port while the server started would be told its secret."""
    asked: list[str] = []

    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"OK")

        def log_message(self, *_: object) -> None:
            """Be silent."""

    monkeypatch.setattr(local_servers, "SECONDS_TO_BECOME_HEALTHY", 1.0)
    with (
        HTTPServer(("127.0.0.1", 0), Stranger) as stranger,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as ours,
    ):
        Thread(target=stranger.serve_forever, daemon=True).start()
        port, url = stranger.server_port, f"http://127.0.0.1:{stranger.server_port}"
        created_at = psutil.Process(ours.pid).create_time()
        own = psutil.Process().create_time()
        try:
            local_servers._wait_until_healthy(Server("mlflow", url, port, os.getpid(), own))
            assert asked == ["/health"]
            with pytest.raises(StackError, match="is not healthy after 1 s"):
                local_servers._wait_until_healthy(Server("mlflow", url, port, ours.pid, created_at))
            assert asked == ["/health"]
        finally:
            ours.kill()
            stranger.shutdown()
    with pytest.raises(StackError, match="ended at once"):
        local_servers._wait_until_healthy(Server("mlflow", url, port, ours.pid, created_at))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("", ""),
        ("MLFLOW_BACKEND_STORE_URI", "postgresql://me@there/mlflow"),
        ("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket/atelier"),
    ],
)
def test_a_server_keeps_this_home_unless_a_person_named_another_place(
    variable: str, value: str, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then is what it tells read from the database and the files of the home."""
    if variable:
        monkeypatch.setenv(variable, value)

    assert local_servers._start("mlflow", 4321).keeps_home == (not variable)
    assert not local_servers._start("prefect", 4322).keeps_home


@pytest.mark.parametrize(("keeps_home", "machine"), [(True, ""), (False, ""), (True, "another-")])
def test_what_a_server_of_this_home_and_machine_tells_is_read_at_home(
    keeps_home: bool, machine: str, living: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://127.0.0.1:1"
    process = machine + living.process
    server = replace(living, url=url, keeps_home=keeps_home, process=process)
    server_records.record({"mlflow": server})
    monkeypatch.setattr(server_records.Server, "is_running", lambda _: True)
    monkeypatch.setattr(local_servers, "is_healthy", lambda *_: True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    (local_servers.home() / "mlflow.db").write_bytes(b"")

    assert find_registry()

    assert os.environ["MLFLOW_TRACKING_URI"] == url
    assert is_at_hand() == (keeps_home and not machine)
