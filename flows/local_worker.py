"""The worker that runs scheduled, triggered and ordered runs, as processes of this machine."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from flows import local_stack
from flows.local_stack import Server, StackError
from flows.stopping import deferred
from tasks.storage import digest_of, home, project_root

WORK_POOL = "atelier"


Say = Callable[[str], None]
"""Hears what is about to be done, in a few words."""


def ensure_worker(prefect_url: str, say: Say = lambda _: None) -> bool:
    """Start the worker unless it runs and serves those servers; returns whether it started.

    Waits until the server has heard from it. The work pool must exist, and PREFECT_API_URL and
    MLFLOW_TRACKING_URI must be set: its runs get this process's environment.
    Raises StackError when it does not come up.
    """
    with local_stack.lock():
        running = local_stack.recorded()
        worker = running.get("worker")
        serves_prefect = worker is not None and worker.url == _page(prefect_url)
        if worker and serves_prefect and worker.tracking_digest == _tracking_digest():
            _wait_until_online(worker)
            return False
        if serves_prefect:
            say("restarting the worker, so that its runs find MLflow at its present address")
        else:
            say("starting the worker")
        if worker:
            local_stack.stop(running.pop("worker"))
        with deferred():
            running["worker"] = worker = _start(prefect_url)
            local_stack.record(running)
        _wait_until_online(worker)
        return True


def stop_worker() -> Server | None:
    """Stop the worker and the runs that it started; returns it, or None when there was none."""
    with local_stack.lock():
        running = local_stack.recorded()
        worker = running.pop("worker", None)
        if worker:
            local_stack.stop(worker, with_family=True)
            local_stack.record(running)
        return worker


def worker() -> list[tuple[Server, bool]]:
    """The worker that this home started, if it runs, with whether its server hears from it."""
    found = local_stack.recorded().get("worker")
    return [(found, is_online(found))] if found else []


def worker_name() -> str:
    """Under which name the server knows this home's worker."""
    return f"{platform.node()}-{digest_of(str(home()))[:6]}"


def _page(prefect_url: str) -> str:
    return f"{prefect_url}/work-pools/work-pool/{WORK_POOL}"


def _tracking_digest() -> str:
    return digest_of(os.environ["MLFLOW_TRACKING_URI"])


def _start(prefect_url: str) -> Server:
    command = ["-m", "prefect", "--no-prompt", "worker", "start", "--pool", WORK_POOL]
    command += ["--type", "process", "--name", worker_name()]
    paths = [str(project_root()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "ATELIER_HOME": str(home()),  # a run's working directory is a temporary one
        "PYTHONPATH": os.pathsep.join(paths),
        "PREFECT_WORKER_QUERY_SECONDS": "5",
    }
    started = local_stack.start("worker", command, _page(prefect_url), 0, environment)
    return replace(started, tracking_digest=_tracking_digest())


def _wait_until_online(worker: Server) -> None:
    deadline = time.monotonic() + local_stack.SECONDS_TO_BECOME_HEALTHY
    while not is_online(worker):
        if not worker.is_running():
            raise StackError(f"the worker ended at once; see {local_stack.log_path('worker')}")
        if time.monotonic() > deadline:
            raise StackError(
                f"the Prefect server has not heard from the worker for"
                f" {local_stack.SECONDS_TO_BECOME_HEALTHY:.0f} s;"
                f" see {local_stack.log_path('worker')}"
            )
        time.sleep(0.3)


def is_online(worker: Server) -> bool:
    """Whether the server has heard from this worker since it was started, and lately."""
    prefect_url = worker.url.partition("/work-pools/")[0]
    try:
        heard = local_stack.ask_prefect(prefect_url, f"work_pools/{WORK_POOL}/workers/filter", {})
    except (OSError, ValueError):
        return False
    return any(
        each["name"] == worker_name()
        and each["status"] == "ONLINE"
        and datetime.fromisoformat(each["last_heartbeat_time"]).timestamp() > worker.created_at
        for each in heard
    )
