"""Records of processes after a reboot, and what the worker inherits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows import local_stack
from flows.local_stack import Server
from flows.local_worker import worker_name


def this_process(name: str, created_at: float) -> Server:
    return Server(name, "http://127.0.0.1:1", 1, os.getpid(), created_at)


def test_records_of_another_boot_are_dropped(atelier_home: Path) -> None:
    """The same process id, but a process that began at another time."""
    created_at = psutil.Process().create_time()
    alive, stale = this_process("prefect", created_at), this_process("mlflow", created_at - 3600)

    local_stack.record({"prefect": alive, "mlflow": stale})

    assert local_stack.recorded() == {"prefect": alive}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"prefect": {"pid": 1}}'])
def test_a_damaged_record_counts_as_none(atelier_home: Path, content: str) -> None:
    atelier_home.mkdir()
    (atelier_home / "servers.json").write_text(content)

    assert local_stack.recorded() == {}


def test_a_started_process_can_be_interrupted_although_its_starter_ignores_that(
    atelier_home: Path,
) -> None:
    """Prefect's worker stops by an interrupt, which a shell's background jobs ignore."""
    atelier_home.mkdir()
    asks = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from flows import local_stack\n"
        f"print(local_stack.start('worker', ['-c', {asks!r}], '', 0, None).pid)"
    )

    subprocess.run(
        [sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": "."}
    )

    log = local_stack.log_path("worker")
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
