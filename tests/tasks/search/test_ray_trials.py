"""Trials by the runner of Ray, with another cluster in Ray's place."""

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tasks.runtime.processes import this_process
from tasks.search import ray_trials
from tasks.search.ray_node import tried_on_node
from tasks.search.ray_trials import (
    Lost,
    Node,
    RayTrials,
    check_room,
    environment_before_start,
    environment_of_trials,
    with_gpus_settled,
)
from tasks.search.runners import Place
from tasks.search.trial import TrialRequest, try_out
from tasks.search.workers import WorkerDied
from tasks.store.files import BadInput, home

Ask = Callable[..., TrialRequest]
PLACE = Place(runner="ray:auto", workers=2, threads=1, cpus=1, gpus=0.0)


class Here:
    """A cluster whose trials are tried when they are asked about, in this process."""

    def __init__(self, nodes: Sequence[Node] = (Node(cpus=1, gpus=0),)) -> None:
        self.there = list(nodes)
        self.said: list[str] = []
        self.places: list[Place] = []
        self.is_lost = threading.Event()
        self.never_answers = False
        self.stops_by_force_only = False

    def open(self, place: Place) -> None:
        self.said.append("open")

    def nodes(self) -> Sequence[Node]:
        return list(self.there)

    def begin(self, message: str, environment: Mapping[str, str], place: Place) -> Any:
        self.places.append(place)
        return message, dict(environment)

    def answer(self, trial: Any, seconds: float) -> str | None:
        if self.never_answers:
            if self.is_lost.wait(0.01):
                raise Lost("stopped; its checkpoint stays")
            return None
        return tried_on_node(*trial, 0)

    def stop(self, trials: Collection[Any], *, now: bool) -> None:
        self.said.append(f"stop {len(trials)}{' now' if now else ''}")
        if now or not self.stops_by_force_only:
            self.is_lost.set()

    def close(self) -> None:
        self.said.append("close")


def test_an_outcome_is_the_one_of_this_process(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(order=3)
    cluster = Here()

    with RayTrials(PLACE, cluster) as runner:
        found = runner.try_out(request)

    assert cluster.said == ["open", "close"]
    assert cluster.places[0].gpus == 0.0
    assert found == try_out(request)  # known by the store


def test_a_batch_may_be_begun_from_several_threads(ask: Ask) -> None:
    asked = [ask(number=each, order=each + 2) for each in range(3)]
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    with RayTrials(PLACE, Here()) as runner:
        threads = [
            threading.Thread(target=lambda each=each: found.put(runner.try_out(each)))
            for each in asked
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join(120)

    assert {found.get_nowait().state for _ in threads} == {"complete"}


def began(cluster: Here, ask: Ask, *, stopped: bool) -> list[BaseException]:
    """A search with a trial that never ends by itself; what the trial's thread got to know."""
    cluster.never_answers = True
    errors: list[BaseException] = []

    def try_it(runner: RayTrials) -> None:
        try:
            runner.try_out(ask())
        except WorkerDied as error:
            errors.append(error)

    with RayTrials(PLACE, cluster) as runner:
        trying = threading.Thread(target=try_it, args=(runner,))
        trying.start()
        while not cluster.places:
            time.sleep(0.01)
        if stopped:
            raise KeyboardInterrupt
        trying.join(60)
    return errors


@pytest.mark.parametrize("force", [False, True])
def test_a_stop_stops_trials_before_the_cluster_is_left(
    force: bool, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_trials, "SECONDS_TO_CLOSE", 0.3)
    monkeypatch.setattr(ray_trials, "SECONDS_BETWEEN_LOOKS", 0.05)
    cluster = Here()
    cluster.stops_by_force_only = force

    with pytest.raises(KeyboardInterrupt):
        began(cluster, ask, stopped=True)

    assert cluster.said == ["open", "stop 1", *(["stop 1 now"] if force else []), "close"]


def test_without_room_for_long_a_trial_is_given_up_with_the_way_out(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_trials, "SECONDS_FOR_A_NODE", 0.2)
    cluster = Here()
    threading.Timer(0.1, cluster.there.clear).start()

    with caplog.at_level("INFO", logger="atelier"):
        (error,) = began(cluster, ask, stopped=False)

    assert "no node of the cluster has 1 CPU any more; add one" in str(error)
    assert "Ray: now 0 nodes; what ran on a lost one begins again" in caplog.text


def test_a_trial_that_ray_lost_too_often_says_so(ask: Ask) -> None:
    cluster = Here()
    cluster.is_lost.set()

    (error,) = began(cluster, ask, stopped=False)

    assert "trial 0: stopped; its checkpoint stays" in str(error)


def test_a_cluster_without_room_is_left_again(ask: Ask) -> None:
    cluster = Here([Node(cpus=1, gpus=0), Node(cpus=2, gpus=0)])
    place = Place(runner="ray:auto", workers=1, threads=4, cpus=4, gpus=0.0)

    with (
        pytest.raises(BadInput, match=r"takes 4 CPUs, .* \(there: 1 CPU, 0 GPUs; 2 CPUs, 0 GPUs"),
        RayTrials(place, cluster),
    ):
        pytest.fail("it was entered")

    assert cluster.said == ["open", "close"]


def test_room_is_asked_of_one_node_and_not_of_their_sum() -> None:
    nodes = [Node(cpus=8, gpus=0), Node(cpus=1, gpus=1)]

    check_room(nodes, Place(runner="ray:auto", workers=1, threads=1, cpus=8, gpus=0.0))
    with pytest.raises(BadInput, match="takes 2 CPUs and 1 GPU"):
        check_room(nodes, Place(runner="ray:auto", workers=1, threads=1, cpus=2, gpus=1.0))


@pytest.mark.parametrize(("has_gpu", "gpus"), [(False, 0.0), (True, 1.0)])
def test_a_trial_takes_a_gpu_where_the_search_has_one(
    has_gpu: bool, gpus: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    place = Place(runner="ray", workers=1, threads=1, cpus=1, gpus=None)

    assert with_gpus_settled(place).gpus == gpus


def test_gpus_where_this_machine_has_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    with pytest.raises(BadInput, match="this machine has no GPU"):
        with_gpus_settled(Place(runner="ray", workers=1, threads=1, cpus=1, gpus=0.5))


def test_only_what_a_process_needs_before_it_starts_goes_where_ray_logs_it(
    atelier_home: Path,
) -> None:
    environment = {
        "PREFECT_API_URL": "http://127.0.0.1:4200/api",
        "PREFECT_API_AUTH_STRING": "me:secret",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql://me:secret@there/prefect",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
        "MLFLOW_BACKEND_STORE_URI": "postgresql://me:secret@there/mlflow",
        "ATELIER_STORE": "s3://bucket/prefix",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": "7",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONPATH": "/mine",
        "PATH": "/bin",
        "no_proxy": "127.0.0.1",
    }

    with_trials = environment_of_trials(environment)
    before = environment_before_start(environment, threads=2)

    assert set(with_trials) == {
        *("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI", "ATELIER_STORE"),
        *("AWS_SECRET_ACCESS_KEY", "no_proxy", "ATELIER_HOME"),
    }
    assert with_trials["ATELIER_HOME"] == str(home())
    assert set(before) == {
        *("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "PYTHONPATH")
    }
    assert before["OMP_NUM_THREADS"] == "2"
    assert before["PYTHONPATH"].endswith(f"{os.pathsep}/mine")
    assert "secret" not in json.dumps(before)


def test_a_folder_of_a_dead_search_goes_and_a_living_ones_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(ray_trials, "_MAX_CHARACTERS_OF_A_FOLDER", 1000)
    host, pid, mark = this_process().rsplit(":", 2)
    for name, owner in (("dead", f"{host}:{pid}:{mark}0"), ("alive", this_process())):
        (tmp_path / f"atelier-ray-{name}").mkdir()
        (tmp_path / f"atelier-ray-{name}" / "owner").write_text(owner)

    made = ray_trials._private_folder()

    assert {path.name for path in tmp_path.iterdir()} == {"atelier-ray-alive", made.name}
    assert made.stat().st_mode & 0o077 == 0


def test_a_folder_whose_name_is_too_long_for_sockets_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longest = "/" + "x" * (ray_trials._MAX_CHARACTERS_OF_A_FOLDER - 1)
    made: list[Path] = []

    def not_made(**wanted: Any) -> str:
        made.append(wanted["dir"])
        return "/nowhere"

    monkeypatch.setattr("tempfile.mkdtemp", not_made)
    for place in (longest, f"{longest}x"):
        monkeypatch.setattr("tempfile.gettempdir", lambda place=place: place)
        with pytest.raises(OSError, match="nowhere"):
            ray_trials._private_folder()

    assert made == [Path(longest), Path("/tmp")]
    session = "session_2026-11-27_15-39-50_053293_4194304"  # of the largest process id of Linux
    socket = Path(longest, "atelier-ray-7x44pf23", "ray", session, "sockets", "plasma_store")
    assert len(str(socket)) == 107


def test_the_address_of_a_cluster_is_the_one_that_ray_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert ray_trials._address_of_cluster() == ""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
    assert ray_trials._address_of_cluster() == "10.0.0.1:6379"

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")

    assert ray_trials._address_of_cluster() == "127.0.0.1:6379"


def test_an_address_at_which_nobody_listens_is_known_at_once() -> None:
    with pytest.raises(OSError, match="refused"):
        ray_trials._knock_at("127.0.0.1:1")
    ray_trials._knock_at("ray://10.0.0.1:10001")  # left to Ray
