"""The processes of one machine: both servers, and records of what else was started.

Both bind to 127.0.0.1, keep their state below the home folder, and go on running when a run has
ended, so that its pages can be read. Servers that PREFECT_API_URL or MLFLOW_TRACKING_URI name are
used as they are. Nothing here may import prefect, mlflow or torch: `apply_settings` decides what
they find in the environment when they are imported.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import psutil

from atelier.services import ambient_settings, credentials, own_processes
from atelier.services.origin_guard import HOSTS_VARIABLE, allowed
from atelier.services.private_home import OWNER_ONLY, check_place, make_private
from atelier.services.proxies import bypass_proxies
from atelier.services.server_requests import check_access, is_healthy
from tasks.runtime.disk_space import lack_of_room
from tasks.runtime.processes import is_alive, is_elsewhere, name_of
from tasks.runtime.stopping import deferred
from tasks.store.files import home, project_root, set_aside, sqlite_address, write_json
from tasks.store.records import DamagedRecord, read_record
from tasks.store.retention import days_to_keep

SECONDS_TO_BECOME_HEALTHY = 180.0
GUARD = "2"
"""Raised when the guard changes, so that servers that run behind an older one are replaced."""


class StackError(RuntimeError):
    """A server cannot be started or reached; the message says what to do."""


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
    """Of the MLflow address that a worker's runs inherit: a digest, as it may hold a password."""
    guard: str = ""
    """Which guard stands before a server; empty where it was started without one."""
    access: str = ""
    """Of what a server asks for, as a digest; empty where anybody may ask it."""
    hosts: str = ""
    """Under which further hosts it can be asked."""
    process: str = ""
    """The name of the process: see `tasks.runtime.processes`."""
    heard_before: str = ""
    """When the Prefect server had last heard of a worker of this name before this one began."""

    def is_running(self) -> bool:
        """Whether that very process still lives."""
        if not self.process:
            return own_processes.is_running_since_before(self.name, self.pid, self.created_at)
        return own_processes.is_held(self.name) if self.is_elsewhere else is_alive(self.process)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is a process of another machine, or of another container."""
        return bool(self.process) and is_elsewhere(self.process)


def apply_settings(*, makes_files: bool = True) -> None:
    """Put the settings that every process of ours needs into the environment, before imports.

    A variable that a person has set stays, but for those of `atelier.services.ambient_settings`.
    makes_files: make the home, and a secret where one is asked for.
    Raises BadInput for a setting of a person's that cannot be.
    """
    check_place()
    ambient_settings.settle(os.environ)
    prefect_home = home() / "prefect"
    if makes_files:
        make_private(home())
        prefect_home.mkdir(mode=0o700, exist_ok=True)  # Prefect makes the last folder only
    for name, value in {
        # OpenMP threads that spin at barriers slow training tenfold beside a busy neighbour.
        "OMP_WAIT_POLICY": "passive",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it, products on a GPU vary from run to run
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_PROFILES_PATH": str(prefect_home / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # By default the server stores one task state per transaction and falls behind.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        # The server forgets old flow runs with their tasks, logs and artifacts by itself.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(days_to_keep() * 86_400),
        # In memory, a server's restart would forget who holds a slot and never give it back.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
        "PREFECT_LOGGING_SETTINGS_PATH": str(Path(__file__).with_name("logging.yml")),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "",  # atelier/services/logging.yml configures ours in full
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # A flow waits for an API that is away, 2 + 4 + ... + 128 seconds in all.
        "PREFECT_CLIENT_MAX_RETRIES": "7",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONWARNINGS": "ignore",
    }.items():
        os.environ.setdefault(name, value)
    bypass_proxies()
    own_urls = [server.url for server in recorded().values()]
    credentials.apply_credentials(own_urls, creates=makes_files)
    ambient_settings.check_files(os.environ)


def ensure_servers(
    prefect_port: int | None = None,
    mlflow_port: int | None = None,
    say: Callable[[str], None] = lambda _: None,
    meanwhile: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Start what is not running, wait until all is healthy, and name the servers' addresses.

    Returns {"prefect": url, "mlflow": url}, and sets PREFECT_API_URL and MLFLOW_TRACKING_URI for
    this process before it calls `meanwhile`, whose work overlaps with the servers' start.
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
                listener = _listener_in_place_of(old, name, port, say)
                with deferred(), listener:  # one that no record names would never be stopped
                    server = _start(name, int(listener.getsockname()[1]), listener)
                    waiting.append(server)
                    running[name] = server
                    urls[name] = server.url
                    record(running)
        for name, url in urls.items():
            os.environ[_ADDRESS_VARIABLES[name]] = url + ("/api" if name == "prefect" else "")
        if waiting:
            say("starting the " + " and the ".join(f"{s.name} server" for s in waiting))
        meanwhile()
        for server in running.values():  # one that was found may still be starting
            if server.url in urls.values() and not server.is_elsewhere:
                _wait_until_healthy(server)
    for name, url in urls.items():
        if not is_healthy(name, url):
            raise _unreachable(name, url, running.get(name))
        check_access(name, url)
    return urls


def _listener_in_place_of(
    old: Server | None, name: str, port: int | None, say: Callable[[str], None]
) -> socket.socket:
    """A socket for a server, once the one that it replaces, if any, has been stopped."""
    keeps_port = old is not None and port in (None, old.port)
    if old and keeps_port:
        say(f"stopping the {name} server, to start it with the present guard")
        stop(old)
    # Before a running server is stopped for another port.
    listener = _listener(name, old.port if old and keeps_port else port)
    if old:
        stop(old)
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
            stop(server)
        _record_path().unlink(missing_ok=True)
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
_SERVER_MODULE = "atelier.services.guarded_server"


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


def _record_path() -> Path:
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
        noted = read_record(_record_path(), dict[str, Server])
    except FileNotFoundError:
        return {}
    except DamagedRecord as error:
        set_aside(_record_path(), str(error))
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
        name = following.get(_SERVER_MODULE, "")
        port = following.get(name, "")
        url = f"http://127.0.0.1:{port}"
        if name in _ADDRESS_VARIABLES and port.isdecimal() and is_healthy(name, url):
            found[name] = Server(name, url, int(port), pid, process=known_as, guard=GUARD)
    return found


def record(running: dict[str, Server]) -> None:
    """Note what now runs, for the next command."""
    write_json(_record_path(), {name: asdict(each) for name, each in running.items()})


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


def _listener(name: str, wanted: int | None) -> socket.socket:
    """A socket that listens at the port already: nobody takes it while the server starts."""
    preferred = _PREFERRED_PORTS[name] if wanted is None else wanted
    for port in [preferred] if wanted else [preferred, 0]:
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
        f"port {wanted} is taken by another program; choose another with --{name}-port, or leave"
        " the option out to get a free one"
    )


def _start(name: str, port: int, listener: socket.socket | None = None) -> Server:
    url = f"http://127.0.0.1:{port}"
    hosts = allowed(port)
    origins = ",".join(sorted(hosts.origins))
    # -P: a folder of the home, where it runs, must not stand before a library of the same name.
    command = ["-P", "-m", _SERVER_MODULE, name, str(port)]
    paths = [str(project_root()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        # By environment, not by argument: an address may hold a password, and `ps` shows arguments.
        "MLFLOW_BACKEND_STORE_URI": sqlite_address(home() / "mlflow.db"),
        "MLFLOW_ARTIFACTS_DESTINATION": (home() / "mlartifacts").as_uri(),
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
        start(name, command, url, port, environment, *sockets),
        guard=GUARD,
        access=credentials.access_digest(name),
        hosts=os.environ.get(HOSTS_VARIABLE, ""),
    )


def start(
    name: str,
    arguments: list[str],
    url: str,
    port: int,
    environment: dict[str, str] | None,
    *sockets: int,
) -> Server:
    """Start a Python process that outlives this one, with its output in a file of its name.

    sockets: which it inherits.
    Raises StackError where nothing can be written, and where such a process runs already.
    """
    if lack := lack_of_room(home(), try_it=True):
        raise StackError(f"the {name} process cannot be started: {lack}")
    with (
        open(log_path(name), "ab", opener=_private_file) as log,
        open(own_processes.held_path(name), "w", opener=_private_file) as held,
    ):
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"a {name} process of this home still runs, which servers.json does not tell of: a"
                f" second one would work on the same data; `fuser {held.name}` names it, end it"
                " and try again"
            ) from None
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=home(),
            env=environment,
            umask=OWNER_ONLY,
            # The lock is held for as long as the process lives, wherever one asks.
            pass_fds=[held.fileno(), *sockets],
            preexec_fn=_restore_interrupts if _ignores_interrupts() else None,  # noqa: PLW1509
        )
    return Server(name, url, port, process.pid, process=name_of(process.pid))


def _private_file(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _ignores_interrupts() -> bool:
    """Whether a shell started us in its background; children would inherit that.

    Prefect's worker stops by sending itself an interrupt, so that it would never end.
    """
    return signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def _restore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def log_path(name: str) -> Path:
    """Where a process's output goes."""
    path = home() / "logs" / f"{name}{'' if name == 'worker' else '-server'}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


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


def stop(server: Server, *, with_family: bool = False) -> None:
    """Ask a process to end, and insist on it and its children after ten seconds.

    with_family: ask the children as well, which a server does itself.
    Raises StackError for a process of another machine or container.
    """
    if not server.is_running():
        return
    if server.is_elsewhere:
        raise StackError(f"{server.name} runs elsewhere, as {server.process}: stop it there")
    parent = psutil.Process(server.pid)
    family = [parent, *parent.children(recursive=True)]
    for process in family if with_family else [parent]:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
