"""Processes that live, and processes that are only said to."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atelier.services import background_processes, local_worker
from atelier.services.server_records import Server
from tasks.runtime.processes import name_of


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
        patch.setattr(subprocess, "Popen", begin)
        server = background_processes.start("mlflow", ["-c", waits, "-m", "mlflow"], "url", 1, None)
    yield server
    begun[0].kill()
    begun[0].wait()


@pytest.fixture
def started(atelier_home: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The environments of workers that were started; none of them really is."""
    environments: list[dict[str, str]] = []

    def start(name: str, _: list[str], url: str, port: int, environment: dict[str, str]) -> Server:
        environments.append(environment)
        return Server(name, url, port, os.getpid(), process=name_of(os.getpid()))

    monkeypatch.setattr(background_processes, "start", start)
    monkeypatch.setattr(background_processes, "stop", lambda _: None)
    monkeypatch.setattr(local_worker, "is_online", lambda _: True)
    monkeypatch.setattr(local_worker, "_heard", lambda _: [])  # whoever listens at that port
    atelier_home.mkdir()
    return environments
