"""The two servers of one machine: Prefect's and MLflow's.

Both bind to 127.0.0.1, keep their state below the home folder, and go on running when a run has
ended, so that its pages can be read. Servers that PREFECT_API_URL or MLFLOW_TRACKING_URI name are
used as they are. Imports neither prefect nor mlflow; see `atelier.services.process_settings`.
"""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from atelier.services import ambient_settings, background_processes, credentials, own_processes
from atelier.services.background_processes import StackError, log_path
from atelier.services.origin_guard import HOSTS_VARIABLE, allowed
from atelier.services.server_records import (
    GUARD,
    SERVER_MODULE,
    Server,
    lock,
    record,
    record_path,
    recorded,
)
from atelier.services.server_requests import check_access, is_healthy
from tasks.runtime.disk_space import lack_of_room
from tasks.runtime.stopping import deferred
from tasks.store.files import home, project_root, sqlite_address
from tasks.tracking.home_database import is_served_at

SECONDS_TO_BECOME_HEALTHY = 180.0


def ensure_servers(
    prefect_port: int | None = None,
    mlflow_port: int | None = None,
    report: Callable[[str], None] = lambda _: None,
    while_waiting: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Start what is not running, wait until all is healthy, and name the servers' addresses.

    Returns {"prefect": url, "mlflow": url}, and sets PREFECT_API_URL and MLFLOW_TRACKING_URI for
    this process before it calls `while_waiting`, whose work overlaps with the servers' start.
    A port of None prefers 4200 and 5000 and takes a free one where those are taken.
    Raises StackError for a wanted port that is taken and for a server that does not come up, and
    AccessRefused where one does not take our credentials.
    """
    allowed(0)  # so that a host that is none is told before anything is stopped
    named = {name: named_address(name) for name in _ADDRESS_VARIABLES}
    with lock():
        running = recorded()
        urls, waiting = {}, []
        for name, port in (("prefect", prefect_port), ("mlflow", mlflow_port)):
            if named[name]:
                urls[name] = named[name]
            elif name in running and _serves_as_wanted(running[name], port):
                urls[name] = running[name].url
            else:
                old = running.pop(name, None)
                listener = _listener_in_place_of(old, name, port, report)
                with deferred(), listener:  # one that no record names would never be stopped
                    server = _start(name, int(listener.getsockname()[1]), listener)
                    waiting.append(server)
                    running[name] = server
                    urls[name] = server.url
                    record(running)
        for name, url in urls.items():
            os.environ[_ADDRESS_VARIABLES[name]] = url + ("/api" if name == "prefect" else "")
        if waiting:
            report("starting the " + " and the ".join(f"{s.name} server" for s in waiting))
        while_waiting()
        for server in running.values():  # one that was found may still be starting
            if server.url in urls.values() and not server.is_elsewhere:
                _wait_until_healthy(server)
    for name, url in urls.items():
        if not is_healthy(name, url):
            raise _unreachable(name, url, running.get(name))
        check_access(name, url)
        own = running.get(name)
        if own is not None and own.is_read_at_home and own.url == url:
            is_served_at(url)
    return urls


def _listener_in_place_of(
    old: Server | None, name: str, port: int | None, report: Callable[[str], None]
) -> socket.socket:
    """A socket for a server, once the one that it replaces, if any, has been stopped."""
    keeps_port = old is not None and port in (None, old.port)
    if old and keeps_port:
        report(f"stopping the {name} server, to start it with the present guard")
        background_processes.stop(old)
    # Before a running server is stopped for another port.
    wanted = old.port if old and keeps_port else port
    listener = listening_socket(wanted, _PREFERRED_PORTS[name], f"--{name}-port")
    if old:
        background_processes.stop(old)
    return listener


def _unreachable(name: str, url: str, server: Server | None) -> StackError:
    if server is not None and server.is_elsewhere:
        return StackError(
            f"the {name} server of this home is a process of another machine or container,"
            f" {server.process}, and cannot be reached from here: a second one would write to the"
            f" same database; stop it there with `atelier down`, or set {_ADDRESS_VARIABLES[name]}"
            " to an address at which it can be reached"
        )
    return StackError(
        f"the {name} server at {url} does not answer; start it, or unset"
        f" {_ADDRESS_VARIABLES[name]} to use a local one"
    )


def stop_servers() -> list[Server]:
    """Stop all that this home started, and return it."""
    with lock():
        servers = list(recorded().values())
        for server in reversed(servers):
            background_processes.stop(server)
        record_path().unlink(missing_ok=True)
    return servers


def servers() -> list[tuple[Server, bool]]:
    """The servers that this home started and that still run, each with whether it is healthy."""
    return [
        (server, is_healthy(name, server.url))
        for name, server in recorded().items()
        if name in _ADDRESS_VARIABLES
    ]


_ADDRESS_VARIABLES = {"prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI"}
_PREFERRED_PORTS = {"prefect": 4200, "mlflow": 5000}


def address_of(name: str) -> str:
    """Where the server of a name answers now: a person's, or ours; empty where none does.

    Raises StackError for a person's address that is none.
    """
    named = named_address(name)
    found = recorded().get(name)
    url = named or (found.url if found else "")
    return url if url and is_healthy(name, url) else ""


def named_address(name: str) -> str:
    """The address at which a person says that a server answers; empty where nobody does.

    Raises StackError for what is none: a database, a folder, a word.
    """
    variable = _ADDRESS_VARIABLES[name]
    told = os.environ.get(variable, "").strip()
    if told and not told.startswith(("http://", "https://")):
        raise StackError(
            f"{variable} is {told!r}, and the address of a server is wanted, such as"
            f" http://127.0.0.1:{_PREFERRED_PORTS[name]}; unset it to use a local server"
        )
    return told.rstrip("/").removesuffix("/api").rstrip("/")


def _serves_as_wanted(server: Server, port: int | None) -> bool:
    """Whether a running server can be used as it is.

    One that asks for more than this command's environment knows of stays: it was wanted so. One
    of another machine cannot be replaced from here.
    """
    if server.is_elsewhere:
        return True
    digest, hosts = credentials.access_digest(server.name), os.environ.get(HOSTS_VARIABLE)
    return (
        port in (None, server.port)
        and server.guard == GUARD
        and digest in ("", server.access)
        and hosts in (None, server.hosts)
    )


def listening_socket(wanted: int | None, preferred: int, option: str) -> socket.socket:
    """A socket that listens at the port already: nobody takes it while the server starts.

    wanted: None takes the preferred one, or a free one where that is taken; option: by which a
    person wanted it. Raises StackError for a wanted port that is taken.
    """
    for port in [wanted] if wanted else [preferred, 0]:
        found = socket.socket()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(("127.0.0.1", port))
            found.listen(2048)
        except OSError:
            found.close()
            continue
        return found
    raise StackError(
        f"port {wanted} is taken by another program; choose another with {option}, or leave"
        " the option out to get a free one"
    )


def _start(name: str, port: int, listener: socket.socket | None = None) -> Server:
    url = f"http://127.0.0.1:{port}"
    hosts = allowed(port)
    origins = ",".join(sorted(hosts.origins))
    # -P: a folder of the home, where it runs, must not stand before a library of the same name.
    command = ["-P", "-m", SERVER_MODULE, name, str(port)]
    paths = [str(project_root()), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        "MLFLOW_BACKEND_STORE_URI": sqlite_address(home() / "mlflow.db"),
        "MLFLOW_ARTIFACTS_DESTINATION": (home() / "mlartifacts").as_uri(),
    }
    environment = {
        # By environment, not by argument: an address may hold a password, and `ps` shows arguments.
        **own,
        **ambient_settings.prefect_database(os.environ),
        # By default any page that is open in the same browser may read and call the API. This name
        # and not ..._SERVER_API_CORS_..., which Prefect prefers, so that a person may set either.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origins,
        # MLflow's own checks, behind the guard, must let pass what the guard does.
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(sorted(hosts.patterns())),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": origins,
        "PREFECT_UI_API_URL": f"{url}/api",  # what the pages ask
        "PREFECT_UI_URL": url,  # what notifications link to
        **os.environ,
        **credentials.server_environment(name),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    sockets = [] if listener is None else [listener.fileno()]
    command += map(str, sockets)
    return replace(
        background_processes.start(name, command, url, port, environment, *sockets),
        keeps_home=name == "mlflow" and own.items() <= environment.items(),
        guard=GUARD,
        access=credentials.access_digest(name),
        hosts=os.environ.get(HOSTS_VARIABLE, ""),
    )


def _wait_until_healthy(server: Server) -> None:
    deadline = time.monotonic() + SECONDS_TO_BECOME_HEALTHY
    while not (
        own_processes.listens(server.pid, server.port) and is_healthy(server.name, server.url)
    ):
        if not server.is_running():
            why = lack_of_room(home(), try_it=True) or f"see {log_path(server.name)}"
            if is_healthy(server.name, server.url):
                why = f"another one took port {server.port} meanwhile: run the same command again"
            raise StackError(f"the {server.name} server ended at once; {why}")
        if time.monotonic() > deadline:
            raise StackError(
                f"the {server.name} server is not healthy after {SECONDS_TO_BECOME_HEALTHY:.0f} s; "
                + (lack_of_room(home(), try_it=True) or f"see {log_path(server.name)}")
            )
        time.sleep(0.2)
