"""`atelier worker`: another machine works for these servers, and vanishes in the middle."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[3]
FAKED_HOST = """
import os, platform
if name := os.environ.get("FAKED_HOST"):
    platform.node = lambda: name
"""
LEASE = "20"


def test_a_worker_says_what_it_must_be_told(call: Callable[..., Any], tmp_path: Path) -> None:
    told = call(tmp_path / "home", "worker", MLFLOW_TRACKING_URI="http://127.0.0.1:1")

    assert told.returncode == 2
    assert "needs PREFECT_API_URL and MLFLOW_TRACKING_URI and ATELIER_STORE: where" in told.stderr
    assert not (tmp_path / "home" / "servers.json").exists()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Machines:
    """Homes below a folder, each on a machine of its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "store").mkdir()
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(FAKED_HOST)
        self.ports = {name: free_port() for name in ("prefect", "mlflow")}
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        ours = ("ATELIER_", "PREFECT_", "MLFLOW_", "PYTHONWARNINGS")  # pages of Prefect's sockets
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {
            **clean,
            "ATELIER_HOME": str(self.folder / name),
            "ATELIER_STORE": f"file://{self.folder / 'store'}",
            "ATELIER_LEASE_SECONDS": LEASE,
            "ATELIER_CHECKPOINT_SECONDS": "1",
            "FAKED_HOST": name,
            "PYTHONPATH": os.pathsep.join([str(self.folder / "site"), str(ROOT)]),
        }

    def command(self, name: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "atelier", *arguments],
            env=self.environment(name),
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, name: str) -> None:
        ports = [f"--{each}-port={port}" for each, port in self.ports.items()]
        self.command(name, "up", "--no-worker", *ports)

    def worker(self, name: str) -> None:
        addresses = {
            "PREFECT_API_URL": f"http://127.0.0.1:{self.ports['prefect']}/api",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.ports['mlflow']}",
        }
        with (self.folder / f"{name}.txt").open("wb") as said:
            self.workers[name] = subprocess.Popen(
                [sys.executable, "-m", "atelier", "worker"],
                env={**self.environment(name), **addresses},
                cwd=ROOT,
                stdout=said,
                stderr=said,
            )

    def vanish(self, name: str) -> None:
        """End a machine's worker and all that it started, without a word."""
        parent = psutil.Process(self.workers[name].pid)
        for process in [parent, *parent.children(recursive=True)]:
            process.kill()
        self.workers.pop(name).wait()

    def said(self) -> str:
        """All that the workers and their runs wrote."""
        texts = [*self.folder.glob("*.txt"), *self.folder.glob("*/logs/worker.log")]
        return "\n".join(f"== {path}\n{path.read_text()}" for path in sorted(texts))


def until(what: Callable[[], Any], seconds: float, told: Callable[[], str]) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, told()
        time.sleep(1.0)
    return found


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_work_of_a_machine_that_vanished_is_finished_by_another(
    tmp_path: Path, ask: Callable[..., Any]
) -> None:
    machines = Machines(tmp_path)
    api = f"http://127.0.0.1:{machines.ports['prefect']}/api"
    try:
        machines.up("machine-a")
        machines.worker("machine-b")
        machines.worker("machine-c")
        (retrain,) = [
            each for each in ask(f"{api}/deployments/filter", {}) if each["name"] == "retrain-vae"
        ]
        settings = {"training": {"steps": 3000}}
        parameters = {"images": "digits", "preset": "quick", "seed": 0, "settings": settings}
        run = ask(f"{api}/deployments/{retrain['id']}/create_flow_run", {"parameters": parameters})

        def now() -> dict[str, Any]:
            return dict(ask(f"{api}/flow_runs/{run['id']}", method="GET"))

        def shared_checkpoint() -> bool:
            return any("checkpoint" in path.name for path in (tmp_path / "store").rglob("*"))

        until(shared_checkpoint, 300, machines.said)
        first = str(now()["labels"]["atelier.host"])
        other = next(name for name in ("machine-b", "machine-c") if name != first)
        machines.vanish(first)
        until(lambda: now()["state_type"] == "CRASHED", 120, machines.said)
        until(lambda: now()["state_type"] == "COMPLETED", 900, machines.said)

        assert now()["labels"]["atelier.host"] == other
        assert "retry-1" in now()["tags"]
        history = machines.command("machine-a", "history", "digits-vae")
        assert "promote" in history
        assert "! " not in history
        mlflow = f"http://127.0.0.1:{machines.ports['mlflow']}/api/2.0/mlflow"
        (experiment,) = [
            each
            for each in ask(f"{mlflow}/experiments/search", {"max_results": 10})["experiments"]
            if each["name"] == "atelier"
        ]
        chosen = {"experiment_ids": [experiment["experiment_id"]], "max_results": 100}
        runs = ask(f"{mlflow}/runs/search", chosen)["runs"]
        assert {each["info"]["status"] for each in runs} == {"FINISHED"}
        assert re.search(r"digits-vae: resumed at step \d+\n", machines.said())
    finally:
        for name in list(machines.workers):
            machines.workers[name].terminate()
            machines.workers[name].wait(60)
        machines.command("machine-a", "down")
