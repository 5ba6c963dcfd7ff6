"""A search on Ray finds what it finds without, by real commands and a real cluster of two nodes."""

import json
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.ray_nodes import RayNodes
from tasks.runtime.processes import is_alive
from tasks.runtime.stopping import HOW_TO_GO_ON
from tasks.store import steps
from tests.flows.test_search_killed import command, done, tells_of_a_trial

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(3000),
    # Ray closes neither its sockets nor its logs.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(
        find_spec("ray") is None, reason="Ray is not installed; it is the optional extra `ray`"
    ),
]

SEARCH = [
    *("search", "vae", "--images", "digits", "--preset", "quick", "--trials", "5"),
    *("--set", "vae.training.steps=150", "--fresh-seeds", "1", "--name", "measured"),
    *("--vary", "vae.training.learning_rate=log:5e-3..2e-2"),  # better than the recipe's here
    *("--vary", "vae.model.latent_size=8,12,16"),
]
SECONDS_TO_BEGIN = 300
SECONDS_TO_END = 180
"""Ray's agents notice in a minute that their cluster was killed."""
PRUNED = [*SEARCH, "--prune", "halving"]
ON_NODES = ["--runner", "ray:auto", "--workers", "4"]

Homes = Callable[[str], Path]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    """Homes by name; their servers are stopped in the end."""
    made: list[Path] = []

    def home(name: str) -> Path:
        made.append(tmp_path_factory.mktemp(name))
        return made[-1]

    yield home
    for each in made:
        command(each, "down").communicate(timeout=120)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayNodes]:
    """Two nodes of one CPU each, which commands find by `ray:auto`."""
    with RayNodes(2) as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        yield cluster


def study(home: Path) -> dict[str, Any]:
    """What a search tried and found, but for times and ids of runs."""
    told = json.loads(done(home, "search", "--show", "measured", "--json"))
    for trial in told["trials"]:
        for name in ("seconds", "run_id"):
            del trial["outcome"][name]
    return {name: told[name] for name in ("search", "trials", "steps", "finding")}


@pytest.fixture(scope="module")
def local(homes: Homes) -> dict[str, Any]:
    """The study of a search in processes of this machine."""
    home = homes("local")
    done(home, *SEARCH, "--workers", "2")
    return study(home)


@pytest.fixture(scope="module")
def local_pruned(homes: Homes) -> dict[str, Any]:
    home = homes("local-pruned")
    done(home, *PRUNED, "--workers", "2")
    return study(home)


def wait_until_the_last_node_is_at_work(nodes: RayNodes, home: Path) -> None:
    """Until a process of the last node has begun a trial."""
    deadline = time.monotonic() + SECONDS_TO_BEGIN
    while time.monotonic() < deadline:
        at_work = {int(each.owner.split(":")[1]) for each in steps.running()}
        if nodes.processes_of_the_last() & at_work:
            return
        time.sleep(0.1)
    raise AssertionError(f"no trial was begun on the last node; {home}/logs may tell why")


def test_a_node_is_removed_in_the_middle_and_nothing_else_differs(
    nodes: RayNodes, local: dict[str, Any], homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = homes("on-nodes")
    running = command(home, *SEARCH, *ON_NODES)
    with monkeypatch.context() as patch:
        patch.setenv("ATELIER_HOME", str(home))
        wait_until_the_last_node_is_at_work(nodes, home)
    nodes.remove_the_last()
    told, _ = running.communicate()

    assert running.returncode == 0, told
    assert "Ray: 2 nodes; a trial takes 1 CPU" in told
    assert "Ray: now 1 node; what ran on a lost one begins again" in told
    assert re.search(r"trial \d: Ray lost its node or process; try 2 is on", told), told
    assert re.search(r"trial \d: \S+ began it and did not end it; gone on with", told), told
    assert study(home) == local
    assert local["finding"]["fresh"]  # what is compared is a whole search
    assert len(local["trials"]) == 5


def test_killed_here_then_on_ray_and_gone_on_with_there(
    nodes: RayNodes, local_pruned: dict[str, Any], homes: Homes
) -> None:
    home = homes("killed")
    for more in ([], ON_NODES):
        running = command(home, *PRUNED, *more)
        assert tells_of_a_trial(running)
        running.send_signal(signal.SIGKILL)
        running.communicate()

    done(home, *PRUNED, *ON_NODES)

    assert study(home) == local_pruned
    states = {trial["outcome"]["state"] for trial in local_pruned["trials"]}
    assert states == {"complete", "pruned"}


def of_ray(command: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Ray's processes below a command."""
    found = []
    for each in psutil.Process(command.pid).children(recursive=True):
        with suppress(psutil.Error):
            words = " ".join(each.cmdline())
            if "ray::" in words or "atelier-ray-" in words:
                found.append(each)
    return found


def listening(processes: list[psutil.Process]) -> set[str]:
    """The addresses at which processes listen."""
    found = set()
    for each in processes:
        with suppress(psutil.Error):
            sockets = each.net_connections(kind="inet")
            found |= {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
    return found


def left_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are still there after a while."""
    _, alive = psutil.wait_procs(processes, timeout=SECONDS_TO_END)
    return list(alive)


def left_folders() -> set[str]:
    """Ray's files for searches of their own that have ended."""
    found = set()
    for place in (tempfile.gettempdir(), "/tmp"):  # the second where the first has too long a name
        for folder in Path(place).glob("atelier-ray-*"):
            with suppress(OSError):  # another search may remove it now
                if not is_alive((folder / "owner").read_text()):
                    found.add(str(folder))
    return found


def begun(home: Path) -> "tuple[subprocess.Popen[str], list[psutil.Process]]":
    """A search on a Ray of its own, in the middle of a trial, and Ray's processes."""
    running, told = command(home, *SEARCH, "--runner", "ray", "--workers", "1"), []
    assert running.stdout is not None
    for line in running.stdout:
        told.append(line)
        if re.search(r"  trial \d+: ", line):
            return running, of_ray(running)
    raise AssertionError("".join(told))


def test_a_ray_of_ones_own_listens_on_loopback_and_leaves_nothing(
    homes: Homes, local: dict[str, Any]
) -> None:
    home, folders_before = homes("own"), left_folders()
    interrupted_and_killed(home, folders_before)

    done(home, *SEARCH, "--runner", "ray")

    assert study(home) == local
    assert left_folders() <= folders_before  # that of the killed one, too


def interrupted_and_killed(home: Path, folders_before: set[str]) -> None:
    running, processes = begun(home)
    addresses = listening(processes)
    running.send_signal(signal.SIGTERM)  # as Ctrl-C, which background jobs are deaf to
    told, _ = running.communicate(timeout=600)

    assert running.returncode == 130, told
    assert HOW_TO_GO_ON in told
    assert addresses
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert not left_of(processes)
    assert left_folders() <= folders_before

    running, processes = begun(home)
    assert processes
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not left_of(processes)
