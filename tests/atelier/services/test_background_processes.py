"""Processes that outlive their command: what they inherit, and that there is one of each."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from atelier.services import background_processes
from atelier.services.server_records import Server


def test_a_second_process_on_the_same_data_is_refused_whatever_the_record_says(
    living: Server,
) -> None:
    """As after servers.json was lost, or was written in another container."""
    with pytest.raises(background_processes.StackError, match=r"that servers\.json does not list"):
        background_processes.start("mlflow", ["-c", ""], "url", 1, None)


def test_a_started_process_can_be_interrupted_although_its_starter_ignores_that(
    atelier_home: Path,
) -> None:
    """Prefect's worker stops by an interrupt, which a shell's background jobs ignore."""
    atelier_home.mkdir()
    asks = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from atelier.services import background_processes\n"
        f"print(background_processes.start('worker', ['-c', {asks!r}], '', 0, None).pid)"
    )

    subprocess.run(
        [sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": "."}
    )

    log = background_processes.log_path("worker")
    for _ in range(200):
        if log.read_text():
            break
        signal.sigtimedwait([], 0.05)
    assert log.read_text() == "True\n"
