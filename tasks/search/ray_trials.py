"""Trials on a Ray cluster: each is a task, which Ray begins again elsewhere when its node is lost.

Prefect's task of a trial stays in the process that searches, and waits for Ray's: so its state is
right whatever becomes of a node, neither flow nor settings are pickled, and what is sent is JSON.
Ray has its own retries for lost nodes and processes; an error of a trial it does not repeat.

What a process needs before it starts (threads, Python's path) goes by Ray's runtime_env. All other
settings travel with the trial, since Ray writes a runtime_env to its logs and some hold secrets.
"""

import importlib
import json
import logging
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tasks.runtime.messages import one_line
from tasks.runtime.processes import is_alive, this_process
from tasks.runtime.progress import log
from tasks.runtime.stopping import SIGNALS
from tasks.search.ray_node import tried_by_ray
from tasks.search.runners import Place, counted
from tasks.search.workers import SECONDS_TO_CLOSE, WorkerDied, outcome_from
from tasks.store.files import BadInput, home, project_root, remove

if TYPE_CHECKING:
    from tasks.search.outcome import Outcome
    from tasks.search.trial import TrialRequest

MAX_LOSSES = 5
"""So often Ray begins one trial again after its node or process was lost."""
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_FOR_A_NODE = 60.0
"""How long a search waits for a node again when none is left that has room for a trial."""
SECONDS_TO_KNOCK = 10.0
BYTES_FOR_OBJECTS = 80 * 2**20
"""Of shared memory on a Ray of our own, near Ray's least: trials send only JSON."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_FOLDER_PREFIX = "atelier-ray-"
_OWNER = "owner"
_LONGEST_SOCKET = (
    f"{_FOLDER_PREFIX}12345678/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
)
_MAX_CHARACTERS_OF_A_FOLDER = 107 - len(f"/{_LONGEST_SOCKET}")
"""Ray's sockets lie below it, and a socket's path has at most 107 characters."""

_BEFORE_START = re.compile("(OMP|MKL|CUBLAS)_|PYTHON(PATH|WARNINGS)$")
"""What libraries read before our code runs."""
_WITH_TRIALS = re.compile(
    "(ATELIER|MLFLOW|PREFECT|AWS)_|(DO_NOT_TRACK|GIT_PYTHON_REFRESH|TMPDIR|(no|all|https?)_proxy)$",
    re.IGNORECASE,
)
_OF_SERVERS = re.compile("PREFECT_SERVER_|MLFLOW_(BACKEND_STORE_URI|SERVER_)|MLFLOW_CRYPTO_")
"""What only servers read; a node needs no database's password."""


class Lost(Exception):
    """Ray has no answer for a trial, and gets none: it was stopped, or lost too often."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """What a living node has."""

    cpus: float
    gpus: float

    @property
    def in_words(self) -> str:
        """What it has, for a person."""
        return f"{counted(self.cpus, 'CPU')}, {counted(self.gpus, 'GPU')}"

    def has_room_for(self, place: Place) -> bool:
        """Whether a trial fits there when nothing else runs."""
        return self.cpus >= place.cpus and self.gpus >= (place.gpus or 0.0)


class Cluster(Protocol):
    """What is asked of Ray."""

    def open(self, place: Place) -> None:
        """Start or join it; raises BadInput where it cannot be joined."""

    def nodes(self) -> Sequence[Node]:
        """The nodes that are alive."""

    def begin(self, message: str, environment: Mapping[str, str], place: Place) -> Any:
        """Begin a trial; returns what it is known by."""

    def answer(self, trial: Any, seconds: float) -> str | None:
        """The answer of a trial, waited for for a time; raises Lost."""

    def stop(self, trials: Collection[Any], *, now: bool) -> None:
        """Stop trials: they close what is open; now: they do not."""

    def close(self) -> None:
        """Leave it; what was started for the search ends."""


class RayTrials:
    """Trials on Ray, for the time of a block, in which they are begun from any thread.

    Raises BadInput where there is no cluster, or no node of it has room for a trial.
    """

    def __init__(self, place: Place, cluster: Cluster | None = None) -> None:
        self._place = place
        self._cluster: Cluster = cluster or RayCluster()
        self._lock = threading.Lock()
        self._at_work: list[Any] = []
        self._is_closing = False
        self._num_nodes = 0
        self._without_room_since: float | None = None

    def __enter__(self) -> "RayTrials":
        self._place = with_gpus_settled(self._place)
        try:
            self._cluster.open(self._place)
            nodes = self._cluster.nodes()
            check_room(nodes, self._place)
        except BaseException:
            self._cluster.close()
            raise
        self._num_nodes = len(nodes)
        log(f"Ray: {counted(len(nodes), 'node')}; a trial takes {self._place.wanted}")
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._is_closing = True
            trials = list(self._at_work)
        try:
            if trials:
                self._cluster.stop(trials, now=False)
                until = time.monotonic() + SECONDS_TO_CLOSE
                while self._at_work and time.monotonic() < until:
                    time.sleep(0.1)
                if self._at_work:
                    self._cluster.stop(trials, now=True)
                    time.sleep(2 * SECONDS_BETWEEN_LOOKS)  # for the threads to hear of it
        finally:
            self._cluster.close()

    def try_out(self, request: "TrialRequest") -> "Outcome":
        """A trial's outcome, from whichever node has room for it first.

        Raises WorkerDied where it was lost too often, ConnectionError where servers are away,
        BadInput for a node that is not as this machine, and TrialError.
        """
        from tasks.search.trial import parts_of

        place = self._place
        if not request.plan["uses_gpu"]:
            place = replace(place, gpus=0.0)
        message = json.dumps({"request": asdict(request), "parts": parts_of(request)})
        with self._lock:
            if self._is_closing:
                raise WorkerDied(f"{request.label}: not begun, since the search ends")
            trial = self._cluster.begin(message, environment_of_trials(os.environ), place)
            self._at_work.append(trial)
        try:
            while (answer := self._cluster.answer(trial, SECONDS_BETWEEN_LOOKS)) is None:
                self._watch(request.label, place)
        except Lost as error:
            raise WorkerDied(f"{request.label}: {error}") from error
        finally:
            with self._lock:
                self._at_work.remove(trial)
        found = json.loads(answer)
        for line in found["told"]:
            log(f"{request.label}: {line}")
        return outcome_from(request.label, found["answer"])

    def _watch(self, label: str, place: Place) -> None:
        """Say when the number of nodes changes, and give up where none has had room for long."""
        with self._lock:
            if self._is_closing:
                return
            nodes = self._cluster.nodes()
            if len(nodes) != self._num_nodes:
                lost = len(nodes) < self._num_nodes
                then = "; what ran on a lost one begins again elsewhere" if lost else ""
                log(f"Ray: now {counted(len(nodes), 'node')}{then}")
                self._num_nodes = len(nodes)
            if any(each.has_room_for(place) for each in nodes):
                self._without_room_since = None
                return
            now = time.monotonic()
            since = self._without_room_since = self._without_room_since or now
            if now - since >= SECONDS_FOR_A_NODE:
                raise WorkerDied(
                    f"{label}: no node of the cluster has {place.wanted} any more; add one, and run"
                    " the same command again to go on"
                )


def environment_of_trials(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that travel with trials: where servers, home and store are, and the like."""
    passed = {
        name: value
        for name, value in environment.items()
        if _WITH_TRIALS.match(name) and not _OF_SERVERS.match(name)
    }
    return {**passed, "ATELIER_HOME": str(home())}


def environment_before_start(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    """The settings with which a process of trials starts."""
    paths = [str(project_root()), environment.get("PYTHONPATH", "")]
    return {
        **{name: value for name, value in environment.items() if _BEFORE_START.match(name)},
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


# What is refused ------------------------------------------------------------------------------


def with_gpus_settled(place: Place) -> Place:
    """The place, with a number of GPUs; raises BadInput for GPUs where this machine has none."""
    import torch

    has_gpu = torch.cuda.is_available()
    if place.gpus and not has_gpu:
        raise BadInput(
            f"--trial-gpus {place.gpus:g}, and this machine has no GPU: what a trial gives is known"
            " by the kind of device of the machine that searches; search on a node with a GPU"
        )
    return replace(place, gpus=float(has_gpu)) if place.gpus is None else place


def check_room(nodes: Sequence[Node], place: Place) -> None:
    """Raise BadInput where no node has what a trial takes."""
    if any(each.has_room_for(place) for each in nodes):
        return
    has = "; ".join(sorted({each.in_words for each in nodes}))
    raise BadInput(
        f"a trial takes {place.wanted}, and no node of the Ray cluster has that (there: {has});"
        " ask for less with --trial-cpus, --trial-gpus or --threads"
    )


def asked_cluster(place: Place) -> None:
    """As `tasks.search.runners.check_cluster`."""
    place = with_gpus_settled(place)
    if place.is_of_this_machine:
        check_room([_this_machine()], place)
        return
    cluster = RayCluster()
    try:
        cluster.open(place)
        check_room(cluster.nodes(), place)
    finally:
        cluster.close()


def _this_machine() -> Node:
    import torch

    return Node(cpus=len(os.sched_getaffinity(0)), gpus=torch.cuda.device_count())


# Ray itself -----------------------------------------------------------------------------------


class RayCluster:
    """Ray, on loopback where it is our own, without dashboard and without reports to anybody."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._begin: Any = None

    def open(self, place: Place) -> None:
        """Start or join it; raises BadInput where it cannot be joined."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a question after its end starts no other one
        logging.getLogger("ray").setLevel(logging.ERROR)
        if place.is_of_this_machine:
            self._open_own(place)
        else:
            _join(place)
        _hush()
        ready = _ray().remote(max_retries=MAX_LOSSES, scheduling_strategy="SPREAD")
        self._begin = ready(tried_by_ray)

    def _open_own(self, place: Place) -> None:
        _bind_to_loopback()
        # Any account of the machine could otherwise let it run code.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        here = _this_machine()
        check_room([here], place)
        self._folder = _private_folder()
        with _signals_kept(), _in_words():
            _ray().init(
                address="local",
                num_cpus=int(here.cpus),
                num_gpus=int(here.gpus),
                include_dashboard=False,
                object_store_memory=BYTES_FOR_OBJECTS,
                _node_ip_address=_LOOPBACK[0],
                _temp_dir=str(self._folder / "ray"),
                **_quiet(place),
            )

    def nodes(self) -> Sequence[Node]:
        """The nodes that are alive."""
        found = [each["Resources"] for each in _ray().nodes() if each["Alive"]]
        return [Node(cpus=each.get("CPU", 0.0), gpus=each.get("GPU", 0.0)) for each in found]

    def begin(self, message: str, environment: Mapping[str, str], place: Place) -> Any:
        """Begin a trial; returns its reference."""
        ready = self._begin.options(num_cpus=place.cpus, num_gpus=place.gpus or 0)
        return ready.remote(message, dict(environment))

    def answer(self, trial: Any, seconds: float) -> str | None:
        """The answer of a trial, waited for for a time; raises Lost."""
        ray = _ray()
        try:
            if not ray.wait([trial], timeout=seconds)[0]:
                return None
            found: str = ray.get(trial)
        except ray.exceptions.TaskCancelledError as error:
            raise Lost("stopped; its checkpoint stays") from error
        except ray.exceptions.RayError as error:
            where = f"see logs/search-ray-*.log in {home()}, and Ray's own logs"
            raise Lost(
                f"Ray could not try it out ({type(error).__name__}: {one_line(error)}); {where}"
            ) from error
        return found

    def stop(self, trials: Collection[Any], *, now: bool) -> None:
        """Stop trials by an interrupt, or by ending their processes."""
        ray = _ray()
        for trial in trials:
            with suppress(ray.exceptions.RayError, ValueError):
                ray.cancel(trial, force=now)

    def close(self) -> None:
        """Leave the cluster; one of our own ends, and its files go."""
        if "ray" in sys.modules:
            with _signals_kept():
                _ray().shutdown()
        if self._folder is not None:
            remove(self._folder)
            self._folder = None


def _ray() -> Any:
    """Ray, which is there where the extra `ray` is."""
    return importlib.import_module("ray")


def _hush() -> None:
    """Keep what Ray knows of lost nodes, pages of its logs, out of the terminal: we say it."""
    worker: Any = importlib.import_module("ray._private.worker")
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None


def _join(place: Place) -> None:
    address = _address_of_cluster()
    if address.rpartition(":")[0] in _LOOPBACK:
        _bind_to_loopback()
    try:
        _knock_at(address)
        ray = _ray()
        with _signals_kept():
            ray.init(address="auto", **_quiet(place))
    except (OSError, RuntimeError, ValueError) as error:
        known = f"at {address}" if address else "on this machine"
        raise BadInput(
            f"--runner ray:auto found no Ray cluster {known} that it can join ({one_line(error)});"
            " make this machine a node with `ray start`, or say --runner ray for this machine alone"
        ) from error


def _knock_at(address: str) -> None:
    """Raise OSError where nobody listens: Ray would try for ten minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_KNOCK).close()


def _quiet(place: Place) -> dict[str, Any]:
    """What is asked of Ray however it is reached."""
    before_start = environment_before_start(os.environ, place.threads)
    return {
        "runtime_env": {"env_vars": before_start},
        "log_to_driver": False,
        "configure_logging": False,
        "namespace": "atelier",
    }


def _address_of_cluster() -> str:
    """The address of the cluster that `auto` means, as Ray finds it; empty where none is told."""
    if told := os.environ.get("RAY_ADDRESS"):
        return told
    folder = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray"
    with suppress(OSError, UnicodeDecodeError):
        return (folder / "ray_current_cluster").read_text(encoding="utf-8").strip()
    return ""


def _bind_to_loopback() -> None:
    """Let Ray take loopback for this machine's address; it reads that when it is imported.

    With its default it listens on the machine's own address even where 127.0.0.1 was asked for.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep our own way to be stopped: Ray sets a handler of SIGTERM that ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    came = 0
    try:
        yield
    except SystemExit as stop:  # of Ray's handler
        came = stop.code if isinstance(stop.code, int) else 0
        if came not in SIGNALS:
            raise
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
    if came:
        signal.raise_signal(came)


@contextmanager
def _in_words() -> Iterator[None]:
    """Let what keeps Ray from starting be one line, and not a fault of this program."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(
            f"Ray did not start on this machine: {one_line(error)}; search without --runner, which"
            " tries trials out in processes"
        ) from error


def _private_folder() -> Path:
    """A folder for Ray's files that no other account can enter; those of dead processes go.

    Ray itself opens its folder to everybody.
    """
    place = Path(tempfile.gettempdir())
    if len(str(place)) > _MAX_CHARACTERS_OF_A_FOLDER:
        place = Path("/tmp")
    for old in place.glob(f"{_FOLDER_PREFIX}*"):
        with suppress(OSError):
            if old.stat().st_uid == os.getuid() and not is_alive((old / _OWNER).read_text()):
                remove(old)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=place))
    (folder / _OWNER).write_text(this_process())
    return folder
