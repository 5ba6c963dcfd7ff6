"""`atelier up`, `worker`, `status`, `down`: servers, worker, deployments, schedules of a home."""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from atelier.cli.options import Commands, add_ports
from atelier.cli.run import print_addresses
from atelier.cli.tables import print_table
from atelier.services import background_processes, local_servers, local_worker, server_records
from atelier.services.server_requests import check_access
from tasks.runtime.markup import plain
from tasks.runtime.messages import one_line
from tasks.store.files import BadInput, home
from tasks.store.locks import file_lock
from tasks.store.storage import STORE_VARIABLE, has_shared_store

if TYPE_CHECKING:
    from atelier.deployment.schema import DeploymentEntry
    from atelier.services.run_list import RunLine
    from atelier.services.server_records import Server


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    up = commands.add_parser(
        "up",
        help="start servers and worker, and put the deployments of prefect.yaml and your own"
        " schedules to work",
    )
    add_ports(up)
    up.add_argument(
        "--no-worker",
        action="store_true",
        help="start no worker here: those that serve the pool run elsewhere, in containers perhaps",
    )
    up.set_defaults(command=_up)
    worker = commands.add_parser(
        "worker",
        help="work on this machine for the servers of another one, until it is stopped",
    )
    worker.set_defaults(command=_worker)
    status = commands.add_parser("status", help="what is up, what ran, what runs next")
    status.set_defaults(command=_status, needs_store=False)
    down = commands.add_parser("down", help="stop what `up` started")
    down.set_defaults(command=_down, needs_store=False)


def _up(options: argparse.Namespace) -> int:
    done: list[str] = []
    entries: list[DeploymentEntry] = []

    def begin(line: str) -> None:
        done.append(line)
        print(f"{line} ...", flush=True)

    def read_meanwhile() -> None:
        from atelier.deployment.own_schedules import all_entries

        entries.extend(all_entries())

    with alone():
        urls = local_servers.ensure_servers(
            options.prefect_port,
            options.mlflow_port,
            report=begin,
            while_waiting=read_meanwhile,
        )
        for line in _closed_and_applied(entries):
            done.append(line)
            print(plain(line), flush=True)
        if not options.no_worker:
            local_worker.ensure_worker(urls["prefect"], begin)
    if not done:
        print("everything was up already; nothing has changed")
    print_addresses(urls, str(home() / "gallery" / "index.html"))
    return 0


_SECONDS_BETWEEN_LOOKS = 10.0
_SECONDS_OF_A_REQUEST = 10
"""How long a look for runs without a process waits for a server; the next look asks again."""


def _worker(options: argparse.Namespace) -> int:
    addresses = {"PREFECT_API_URL": "prefect", "MLFLOW_TRACKING_URI": "mlflow"}
    missing = [name for name, server in addresses.items() if not local_servers.address_of(server)]
    missing += [] if has_shared_store() else [STORE_VARIABLE]
    if missing:
        raise BadInput(
            f"a worker that shares its work with other machines needs {' and '.join(missing)}:"
            " where both servers answer, as `atelier up` printed it there, and the store that all"
            " homes share; see docs/production.md (on one machine `atelier up` starts a worker)"
        )
    with alone():
        urls = local_servers.ensure_servers(None, None, report=lambda _: None)
        local_worker.ensure_worker(urls["prefect"], lambda line: print(f"{line} ...", flush=True))
    print(
        f"worker {local_worker.worker_name()} works for {urls['prefect']}; Ctrl-C stops it, and its"
        " runs go on elsewhere",
        flush=True,
    )
    try:
        while local_worker.worker():
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            for name in _closed_elsewhere():
                print(plain(f"closed the run {name}: its process is gone"), flush=True)
    except BaseException:  # whatever it is: a worker that nobody looks after must not go on
        with alone():
            _stop_worker()
        raise
    print(f"the worker has ended; see {background_processes.log_path('worker')}")
    return 1


def _closed_elsewhere() -> list[str]:
    """The runs that this machine has seen lose their process; housekeeping starts them again."""
    from tasks.maintenance.crash_recovery import close_dead_flow_runs
    from tasks.runtime.retries import is_prefect_away
    from tasks.tracking.mlflow_client import TrackingUnavailable
    from tasks.tracking.runs import close_dead_runs

    closed: list[str] = []
    try:
        with _asking_once():
            closed += close_dead_flow_runs()
            closed += close_dead_runs(retries=False)
    except OSError as error:  # a full disk, say: the work of others goes on, and so does this
        if not isinstance(error, TrackingUnavailable):
            print(
                plain(f"cannot look for runs without a process now: {one_line(error)}"), flush=True
            )
    except Exception as error:
        if not (isinstance(error, TrackingUnavailable) or is_prefect_away(error)):
            raise
    return closed


@contextmanager
def _asking_once() -> Iterator[None]:
    """Let a server that is away be found so in seconds: by default both clients try for minutes."""
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    wanted = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_SECONDS_OF_A_REQUEST),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)  # MLflow reads them with each request
    try:
        with temporary_settings(
            {
                PREFECT_CLIENT_MAX_RETRIES: 0,
                PREFECT_API_REQUEST_TIMEOUT: float(_SECONDS_OF_A_REQUEST),
            }
        ):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def alone() -> AbstractContextManager[None]:
    """Only one command of a home at a time changes what is up and scheduled; the others wait."""
    return file_lock(
        "up",
        lambda: print(
            "another `atelier up`, `down` or `schedule` is at work; waiting ...", flush=True
        ),
    )


def _closed_and_applied(entries: "list[DeploymentEntry]") -> Iterator[str]:
    """What a reboot or a kill left behind, and what differs from the files, put right."""
    from tasks.maintenance.crash_recovery import close_dead_flow_runs

    yield from (f"closed the run {name}: its process is gone" for name in close_dead_flow_runs())
    yield from applied_lines(entries)


def applied_lines(entries: "list[DeploymentEntry]") -> Iterator[str]:
    """Make the Prefect server agree with deployments, and say what that changed."""
    from atelier.deployment.sync import apply

    applied = apply(entries)
    yield from (f"created {name}" for name in applied.created)
    yield from (f"changed {name}" for name in applied.changed)
    yield from (f"removed {name}" for name in applied.removed)


def _status(options: argparse.Namespace) -> int:
    _leave_out_wrong_store()
    found = local_servers.servers() + local_worker.worker()
    for server, is_healthy in found:
        state = "healthy" if is_healthy else "not answering"
        print(f"{server.name:8} {server.url}  {state}, process {server.pid}")
    prefect_url = _prefect_url()
    if prefect_url:
        _print_runs(prefect_url)
    if not found:
        print("no servers are up; `atelier up` starts them")
    return 0


def _prefect_url() -> str | None:
    named = os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    recorded = server_records.recorded().get("prefect")
    return named or (recorded.url if recorded else None)


def _print_runs(prefect_url: str) -> None:
    from atelier.services.run_list import last_runs, next_runs

    try:
        ran, due = last_runs(prefect_url), next_runs(prefect_url)
    except (OSError, ValueError, LookupError, TypeError) as error:  # or an answer of another shape
        print(f"the Prefect server at {prefect_url} did not return its runs: {error}")
        return
    _print_lines("what ran", ran, "nothing yet")
    _print_lines("what runs next", due, "nothing; `atelier up` puts the schedules to work")


def _print_lines(title: str, lines: "Sequence[RunLine]", nothing: str) -> None:
    print(f"\n{title}")
    if lines:
        print_table([(f"  {line.when}", line.deployment, line.name, line.state) for line in lines])
    else:
        print(f"  {nothing}")


def _down(options: argparse.Namespace) -> int:
    _leave_out_wrong_store()
    with alone():
        stopped = [*_stop_worker(), *local_servers.stop_servers()]
    print(f"stopped: {', '.join(each.name for each in stopped) or 'nothing was up'}")
    return 0


def _leave_out_wrong_store() -> None:
    """Go on as without a shared store where the address of one cannot be, and say so."""
    if not has_shared_store():
        return
    from tasks.store.shared import shared

    try:
        shared()
    except BadInput as error:
        print(plain(f"{error}; this command goes on without it"), flush=True)
        del os.environ[STORE_VARIABLE]


def _stop_worker() -> "list[Server]":
    """Stop the worker, if there is one; its runs go on once some worker takes them."""
    prefect_url, began_at = _prefect_url(), datetime.now(UTC)
    worker = local_worker.stop_worker()
    if worker and prefect_url:
        _put_back(prefect_url, began_at)
    return [worker] if worker else []


def _put_back(prefect_url: str, began_at: datetime) -> None:
    """Runs that the worker's end cut off wait for the next worker."""
    os.environ.setdefault("PREFECT_API_URL", f"{prefect_url}/api")
    from tasks.maintenance.crash_recovery import close_dead_flow_runs, put_back_interrupted_runs
    from tasks.runtime.retries import is_prefect_away

    try:
        check_access("prefect", prefect_url)
        close_dead_flow_runs()
        for name in put_back_interrupted_runs(began_at):
            print(f"{plain(name)}: goes on after the next `atelier up`", flush=True)
    except Exception as error:
        if not (isinstance(error, OSError) or is_prefect_away(error)):
            raise
        print(f"the Prefect server did not answer, interrupted runs stay as they are: {error}")
