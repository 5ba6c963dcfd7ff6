"""The worker that runs scheduled, triggered and ordered runs, as processes of this machine."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from atelier.services import background_processes, credentials, local_servers, server_records
from atelier.services.background_processes import StackError
from atelier.services.server_records import Server
from atelier.services.server_requests import AccessRefused, ask_prefect
from tasks.runtime.stopping import deferred
from tasks.store.files import digest_of, home, project_root
from tasks.store.storage import STORE_VARIABLE

WORK_POOL = "atelier"


Report = Callable[[str], None]
"""Hears what is about to be done, in a few words."""


def ensure_worker(prefect_url: str, report: Report = lambda _: None) -> bool:
    """Start the worker unless it runs and serves those servers; returns whether it started.

    Waits until the server has heard from it. The work pool must exist, and PREFECT_API_URL and
    MLFLOW_TRACKING_URI must be set: its runs get this process's environment.
    Raises StackError when it does not come up.
    """
    with server_records.lock():
        running = server_records.recorded()
        worker = running.get("worker")
        serves_prefect = worker is not None and worker.url == _page(prefect_url)
        if worker and serves_prefect and worker.tracking_digest == _tracking_digest():
            _wait_until_online(worker)
            return False
        if serves_prefect:
            report(
                "restarting the worker, so that its runs find MLflow, and the store, where they are"
            )
        else:
            report("starting the worker")
        if worker:
            background_processes.stop(running.pop("worker"))
        with deferred():
            running["worker"] = worker = _start(prefect_url)
            server_records.record(running)
        _wait_until_online(worker)
        return True


def stop_worker() -> Server | None:
    """Stop the worker and the runs that it started; returns it, or None when there was none."""
    with server_records.lock():
        running = server_records.recorded()
        worker = running.pop("worker", None)
        if worker:
            background_processes.stop(worker, with_family=True)
            server_records.record(running)
        return worker


def worker() -> list[tuple[Server, bool]]:
    """The worker that this home started, if it runs, with whether its server hears from it."""
    found = server_records.recorded().get("worker")
    if found is None:
        return []
    try:
        return [(found, is_online(found))]
    except AccessRefused:
        return [(found, False)]


def worker_name() -> str:
    """Under which name the server knows this home's worker."""
    return f"{platform.node()}-{digest_of(str(home()))[:6]}"


def _page(prefect_url: str) -> str:
    return f"{prefect_url}/work-pools/work-pool/{WORK_POOL}"


def _tracking_digest() -> str:
    """Of the address, of what both servers ask for, and of the shared store.

    The worker's runs inherit all of them; two homes with one registry and two stores, or one with
    none, would keep two audit logs.
    """
    address, store = os.environ["MLFLOW_TRACKING_URI"], os.environ.get(STORE_VARIABLE, "").strip()
    asked = [credentials.access_digest(name) for name in ("prefect", "mlflow")]
    told = [address, *asked] if any(asked) or store else address
    return digest_of([*told, store] if store else told)


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
    heard_before = next((each["last_heartbeat_time"] for each in _heard(prefect_url)), "")
    started = background_processes.start("worker", command, _page(prefect_url), 0, environment)
    return replace(started, tracking_digest=_tracking_digest(), heard_before=heard_before)


def _wait_until_online(worker: Server) -> None:
    deadline = time.monotonic() + local_servers.SECONDS_TO_BECOME_HEALTHY
    while not is_online(worker):
        if not worker.is_running():
            raise StackError(
                f"the worker ended at once; see {background_processes.log_path('worker')}"
            )
        if time.monotonic() > deadline:
            raise StackError(
                f"the Prefect server has not heard from the worker for"
                f" {local_servers.SECONDS_TO_BECOME_HEALTHY:.0f} s;"
                f" see {background_processes.log_path('worker')}"
            )
        time.sleep(0.3)


def is_online(worker: Server) -> bool:
    """Whether the server has heard from this worker since it was started, and lately.

    Raises AccessRefused where the server does not take our credentials.
    """
    return any(
        each["status"] == "ONLINE" and each["last_heartbeat_time"] != worker.heard_before
        for each in _heard(worker.url.partition("/work-pools/")[0])
    )


def _heard(prefect_url: str) -> list[Any]:
    """What the server knows of this home's worker; nothing where it does not answer."""
    try:
        heard = ask_prefect(prefect_url, f"work_pools/{WORK_POOL}/workers/filter", {})
    except AccessRefused:
        raise  # waiting would not help
    except (OSError, ValueError):
        return []
    return [each for each in heard if each["name"] == worker_name()]
