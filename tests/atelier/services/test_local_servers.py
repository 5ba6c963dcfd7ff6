"""Records of processes after a reboot, and what the worker inherits."""

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from atelier.services import local_servers, local_worker
from atelier.services.local_servers import Server, StackError
from atelier.services.local_worker import ensure_worker, worker_name
from tasks.runtime import processes
from tasks.runtime.processes import name_of
from tasks.store.files import write_json


def this_process(name: str, process: str = "") -> Server:
    mine = process or processes.this_process()
    return Server(name, "http://127.0.0.1:1", 1, os.getpid(), process=mine)


def test_records_of_another_boot_are_dropped(atelier_home: Path) -> None:
    """The same process id, but a process that began at another time."""
    host, pid, mark = processes.this_process().rsplit(":", 2)
    alive = this_process("prefect")
    stale = this_process("mlflow", f"{host}:{pid}:{mark.replace(mark[:12], '0123456789ab')}")

    local_servers.record({"prefect": alive, "mlflow": stale})

    assert local_servers.recorded() == {"prefect": alive}


STEPS = [3.0, -3.0, 7200.0, -7200.0, -1.7e9]
"""Seconds by which the clock is set: a little, by hours, and back to 1970."""


def set_clock(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """What a process sees after the clock was set: other times of day, other starts."""
    told, began = time.time, psutil.Process.create_time
    monkeypatch.setattr("time.time", lambda: told() + step)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: began(self) + step)


@pytest.fixture
def living(atelier_home: Path) -> Iterator[Server]:
    """A process of the home that runs until its end; its command line is that of a server."""
    atelier_home.mkdir()
    begun: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        begun.append(subprocess_popen(*arguments, **options))
        return begun[-1]

    subprocess_popen = subprocess.Popen
    waits = "import signal; signal.pause()"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_servers.subprocess, "Popen", begin)
        server = local_servers.start("mlflow", ["-c", waits, "-m", "mlflow"], "url", 1, None)
    yield server
    begun[0].kill()
    begun[0].wait()


@pytest.mark.parametrize("step", STEPS)
def test_a_living_server_is_known_when_the_clock_is_set(
    step: float, living: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_servers.record({"mlflow": living})
    set_clock(monkeypatch, step)

    assert local_servers.recorded() == {"mlflow": living}


@pytest.mark.parametrize("step", [0.0, *STEPS])
def test_a_living_server_of_a_version_before_is_known_when_the_clock_is_set(
    step: float, living: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record names a time only; what it is and where it works says the rest."""
    began = psutil.Process(living.pid).create_time()
    before = replace(living, process="", created_at=began)
    fields = {k: v for k, v in asdict(before).items() if k not in ("process", "heard_before")}
    write_json(local_servers.home() / "servers.json", {"mlflow": fields, "prefect": fields})
    set_clock(monkeypatch, step)

    assert local_servers.recorded()["mlflow"].pid == living.pid
    assert not replace(before, name="prefect").is_running() or step == 0.0
    monkeypatch.setenv("ATELIER_HOME", "/somewhere/else")
    assert before.is_running() is (step == 0.0)


def test_a_second_process_on_the_same_data_is_refused_whatever_the_record_says(
    living: Server,
) -> None:
    """As after servers.json was lost, or was written in another container."""
    with pytest.raises(local_servers.StackError, match=r"which servers\.json does not tell of"):
        local_servers.start("mlflow", ["-c", ""], "url", 1, None)


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
    with pytest.raises(local_servers.StackError, match="stop it there"):
        local_servers.stop(elsewhere)
    assert replace(elsewhere, name="prefect").is_running() is False  # nobody holds that one
    assert psutil.pid_exists(living.pid)


def test_a_server_of_another_machine_is_neither_used_nor_started_a_second_time(
    living: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(living, process=f"another-{living.process}", url="http://127.0.0.1:1")
    local_servers.record({"mlflow": elsewhere})
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(local_servers, "is_healthy", lambda name, _: name == "prefect")

    with pytest.raises(local_servers.StackError, match=f"another-{platform.node()}.*atelier down"):
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
        with pytest.raises(local_servers.StackError, match=f"took port {port}.*run the same"):
            local_servers._wait_until_healthy(replace(living, port=port))


def test_a_worker_is_online_once_the_server_heard_from_it_and_whenever_that_was(
    atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = {"name": worker_name(), "status": "ONLINE", "last_heartbeat_time": "the one before"}
    monkeypatch.setattr(local_worker, "ask_prefect", lambda *_: [heard])
    worker = replace(this_process("worker"), heard_before="the one before")

    assert not local_worker.is_online(worker)
    heard["last_heartbeat_time"] = "1970-01-01T00:00:00Z"
    assert local_worker.is_online(worker)
    heard["status"] = "OFFLINE"
    assert not local_worker.is_online(worker)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"prefect": {"pid": 1}}'])
def test_a_damaged_record_counts_as_none(atelier_home: Path, content: str) -> None:
    atelier_home.mkdir()
    (atelier_home / "servers.json").write_text(content)

    assert local_servers.recorded() == {}


def test_a_started_process_can_be_interrupted_although_its_starter_ignores_that(
    atelier_home: Path,
) -> None:
    """Prefect's worker stops by an interrupt, which a shell's background jobs ignore."""
    atelier_home.mkdir()
    asks = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from atelier.services import local_servers\n"
        f"print(local_servers.start('worker', ['-c', {asks!r}], '', 0, None).pid)"
    )

    subprocess.run(
        [sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": "."}
    )

    log = local_servers.log_path("worker")
    for _ in range(200):
        if log.read_text():
            break
        signal.sigtimedwait([], 0.05)
    assert log.read_text() == "True\n"


def test_two_homes_on_one_machine_have_workers_of_different_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    for home in ("one", "two"):
        monkeypatch.setenv("ATELIER_HOME", str(tmp_path / home))
        names.add(worker_name())

    assert len(names) == 2


@pytest.fixture
def started(atelier_home: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The environments of workers that were started; none of them really is."""
    environments: list[dict[str, str]] = []

    def start(name: str, _: list[str], url: str, port: int, environment: dict[str, str]) -> Server:
        environments.append(environment)
        return Server(name, url, port, os.getpid(), process=name_of(os.getpid()))

    monkeypatch.setattr(local_servers, "start", start)
    monkeypatch.setattr(local_servers, "stop", lambda _: None)
    monkeypatch.setattr(local_worker, "is_online", lambda _: True)
    monkeypatch.setattr(local_worker, "_heard", lambda _: [])  # whoever listens at that port
    atelier_home.mkdir()
    return environments


PREFECT = "http://127.0.0.1:4200"


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
        "restarting the worker, so that its runs find MLflow at its present address",
    ]
    assert "secret" not in (local_servers.home() / "servers.json").read_text()


def test_a_worker_of_a_record_without_that_address_is_known_and_restarted(
    started: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    ensure_worker(PREFECT)
    fields = asdict(local_servers.recorded()["worker"])
    del fields["tracking_digest"]
    write_json(local_servers.home() / "servers.json", {"worker": fields})

    assert local_servers.recorded()["worker"].pid == os.getpid()
    assert ensure_worker(PREFECT)
    assert not ensure_worker(PREFECT)


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
