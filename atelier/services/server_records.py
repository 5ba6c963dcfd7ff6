"""Which processes this home has started: `servers.json`, and whether each still lives.

Imports neither prefect nor mlflow; see `atelier.services.process_settings`.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from atelier.services import own_processes
from atelier.services.server_requests import is_healthy
from tasks.runtime.processes import is_alive, is_elsewhere, name_of
from tasks.store.files import home, set_aside, write_json
from tasks.store.records import DamagedRecord, read_record

GUARD = "4"
"""Raised when the guard changes, so that servers that run behind an older one are replaced."""
SERVER_MODULE = "atelier.services.guarded_server"
SERVERS = ("prefect", "mlflow")
"""The processes that are servers; the worker is none."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that this home started."""

    name: str
    url: str
    """Its address for people."""
    port: int
    pid: int
    created_at: float = 0.0
    """When the process began, in seconds since 1970; in records of versions before, which knew a
    process by nothing else."""
    tracking_digest: str = ""
    """Of the addresses of MLflow and of the shared store that a worker's runs inherit: a digest, as
    they may hold a password."""
    guard: str = ""
    """Which guard stands before a server; empty where it was started without one."""
    access: str = ""
    """Of what a server asks for, as a digest; empty where anybody may ask it."""
    hosts: str = ""
    """Under which further hosts it can be asked."""
    process: str = ""
    """The name of the process: see `tasks.runtime.processes`."""
    keeps_home: bool = False
    """Whether MLflow's server was started on this home's own database and files, and a person named
    no others: what it tells can be read there."""
    heard_before: str = ""
    """When the Prefect server had last heard of a worker of this name before this one began."""

    def is_running(self) -> bool:
        """Whether that very process still lives."""
        if not self.process:
            return own_processes.is_running_since_before(self.name, self.pid, self.created_at)
        return own_processes.is_held(self.name) if self.is_elsewhere else is_alive(self.process)

    @property
    def is_read_at_home(self) -> bool:
        """Whether its database can be read beside it: between machines its locks may not hold."""
        return self.keeps_home and not self.is_elsewhere

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is a process of another machine, or of another container."""
        return bool(self.process) and is_elsewhere(self.process)


def record_path() -> Path:
    """The file that tells."""
    return home() / "servers.json"


@contextmanager
def lock() -> Iterator[None]:
    """Only one process of a home starts or stops others at a time; not to be nested."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "servers.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def recorded() -> dict[str, Server]:
    """The recorded processes that still run; leftovers of a crash or a reboot are dropped."""
    try:
        noted = read_record(record_path(), dict[str, Server])
    except FileNotFoundError:
        return {}
    except DamagedRecord as error:
        set_aside(record_path(), str(error))
        noted = found_servers()
        record(noted)
    return {name: server for name, server in noted.items() if server.is_running()}


def found_servers() -> dict[str, Server]:
    """The processes of this home that answer like its servers, where no record tells of them.

    A second pair on the same databases would schedule everything twice. A worker cannot be told
    from another home's so, and is started anew.
    """
    found = {}
    for process in psutil.process_iter():
        try:
            if process.cwd() != str(home()):
                continue
            words, pid = process.cmdline(), process.pid
            known_as = name_of(pid)
        except (psutil.Error, OSError):
            continue
        following = dict(pairwise(words))
        name = following.get(SERVER_MODULE, "")
        port = following.get(name, "")
        url = f"http://127.0.0.1:{port}"
        if name in SERVERS and port.isdecimal() and is_healthy(name, url):
            found[name] = Server(name, url, int(port), pid, process=known_as, guard=GUARD)
    return found


def record(running: dict[str, Server]) -> None:
    """Note what now runs, for the next command."""
    write_json(record_path(), {name: asdict(each) for name, each in running.items()})
