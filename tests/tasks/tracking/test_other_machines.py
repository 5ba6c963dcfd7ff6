"""MLflow runs of a machine that vanished; it is a process here that bears another host's name."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.store import leases
from tasks.tracking.mlflow_client import client
from tasks.tracking.runs import close_dead_runs, open_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
FAKED_HOST = """
import os, platform
platform.node = lambda: os.environ["FAKED_HOST"]
"""
WORK = """
import time
from tasks.tracking.runs import open_run
with open_run("far away", key="k") as run_id:
    print(run_id, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def far_run(
    tracking_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of another machine with a home of its own, at work on an MLflow run."""
    (tmp_path / "store").mkdir()
    (tmp_path / "sitecustomize.py").write_text(FAKED_HOST)
    monkeypatch.setenv("ATELIER_STORE", f"file://{tmp_path / 'store'}")
    monkeypatch.setenv("ATELIER_LEASE_SECONDS", "10")
    there = {"ATELIER_HOME": str(tmp_path / "far"), "FAKED_HOST": "machine-b"}
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, "-c", WORK],
        env={**os.environ, **there, **paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_a_run_of_a_vanished_machine_is_closed_and_one_of_a_living_one_is_not(
    far_run: tuple[subprocess.Popen[str], str],
) -> None:
    process, run_id = far_run
    assert client().get_run(run_id).data.tags["atelier.process"].startswith("machine-b:")
    began = time.monotonic()
    assert close_dead_runs(watches=True) == []
    assert close_dead_runs() == []
    assert time.monotonic() - began < 60
    process.kill()
    process.wait()

    assert close_dead_runs(watches=True) == ["far away"]

    assert client().get_run(run_id).info.status == "KILLED"
    with open_run("here", key="k") as again:  # its work is taken up in the same run
        assert again == run_id


def test_whoever_does_not_watch_closes_nothing_at_once(
    far_run: tuple[subprocess.Popen[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, _ = far_run
    monkeypatch.setattr(leases, "_seen", {})
    process.kill()
    process.wait()
    assert close_dead_runs() == []
    deadline = time.monotonic() + 60
    while (closed := close_dead_runs()) == [] and time.monotonic() < deadline:
        time.sleep(0.5)

    assert closed == ["far away"]
