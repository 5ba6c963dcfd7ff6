"""A training on several processes: the weights of one process, whatever happens to the others."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from flows.train import planned
from models.training.loops import Step
from models.training.sharding import GroupBroken
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.families.table import FAMILIES
from tasks.store.files import BadInput, home, read_json, remove
from tasks.tracking.runs import open_run
from tasks.training import checkpointing, pace
from tasks.training import fit as fitting
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel, fit_cache_key
from tasks.training.initial_weights import InitialWeights
from tasks.training.parent import Parent
from tasks.training.plan import TrainingPlan
from tasks.training.ranks import RankLost, Ranks

SMALL = {
    "vae": {"model.latent_size": 2, "model.base_width": 4, "model.hidden_size": 8},
    "gan": {"model.latent_size": 4, "model.base_width": 8, "model.dense_width": 16},
    "diffusion": {"model.base_width": 4, "model.max_width": 8, "model.dense_width": 8},
    "gpt": {"model.context_length": 16, "model.num_layers": 1, "model.width": 16},
}
STEPS = 12
NOTHING: Any = None
"""In a training's place, where none may be looked at."""


def plan_for(
    family: str, data: ImageSet | TokenSet, processes: int = 1, **training: object
) -> TrainingPlan:
    given = {
        "training.steps": STEPS,
        "training.batch_size": 8,
        "training.shards": 4,
        **SMALL[family],
        **{f"training.{name}": value for name, value in training.items()},
    }
    full = {f"{family}.{name}": value for name, value in given.items()}
    return replace(planned(FAMILIES[family], data, "quick", 0, full), processes=processes)


def fit(data: ImageSet | TokenSet, plan: TrainingPlan) -> TrainedModel:
    with open_run(plan.family) as run_id:
        return fit_model.fn(data, plan, run_id)


def weights_of(fitted: TrainedModel) -> InitialWeights:
    """What a training that continues a fit begins with."""
    parent = Parent(name=fitted.name, version=1, digest=fitted.digest)
    model = read_json(fitted.config_path)["config"]
    return InitialWeights(parent=parent, family=fitted.family, model=model, folder=fitted.folder)


def children() -> list[psutil.Process]:
    """The other processes of a training that this process runs."""
    found = psutil.Process().children(recursive=True)
    return [each for each in found if "tasks.training.ranks" in each.cmdline()]


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], None]:
    """Do something once, after a step of a fit and before its checkpoint."""

    def arrange(number: int, act: Callable[[], Any]) -> None:
        passed_on, waiting = fitting.checkpointed_steps, [act]

        def steps(*arguments: Any) -> Iterator[Step]:
            for step in passed_on(*arguments):
                yield step
                if step.step == number and waiting:
                    waiting.pop()()

        monkeypatch.setattr(fitting, "checkpointed_steps", steps)

    monkeypatch.setattr(checkpointing, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    return arrange


def kill_a_child() -> None:
    (child,) = children()
    child.kill()


@pytest.mark.slow
@pytest.mark.parametrize("family", SMALL)
def test_two_processes_train_the_weights_of_one(
    family: str, images: ImageSet, tokens: TokenSet, tracking_database: str
) -> None:
    data = images if FAMILIES[family].data == "images" else tokens
    one, two = plan_for(family, data), plan_for(family, data, processes=2)
    assert fit_cache_key(one, data) == fit_cache_key(two, data)

    alone = fit(data, one)
    assert fit(data, two) == replace(alone, was_stored=True)
    remove(home() / "artifacts" / "models")
    shared = fit(data, two)

    assert not shared.was_stored
    assert shared.digest == alone.digest
    assert children() == []
    remove(home() / "artifacts" / "models")
    assert fit(data, plan_for(family, data, shards=2)).digest != alone.digest


@pytest.mark.slow
def test_two_processes_continue_a_version_as_one_does(
    images: ImageSet, tracking_database: str
) -> None:
    before = fit(images, plan_for("vae", images))
    continued = FAMILIES["vae"].continued
    plan = replace(
        plan_for("vae", images, steps=7), initial=weights_of(before), continued=continued
    )

    alone = fit(images, plan)
    remove(Path(alone.folder))
    shared = fit(images, replace(plan, processes=2))

    assert not shared.was_stored
    assert shared.digest == alone.digest
    assert shared.digest != fit(images, plan_for("vae", images, steps=7)).digest


@pytest.mark.slow
def test_a_lost_process_is_named_and_one_process_goes_on_to_the_same_weights(
    images: ImageSet,
    tracking_database: str,
    at_step: Callable[[int, Callable[[], Any]], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="atelier")
    expected = fit(images, plan_for("gan", images)).digest
    remove(home() / "artifacts" / "models")
    at_step(5, kill_a_child)

    with pytest.raises(RankLost, match=r"^rank 1 of 2 ended \(killed by signal 9\)$"):
        fit(images, plan_for("gan", images, processes=2))
    assert children() == []
    assert f"{images.name}-gan: rank 1 of 2 ended (killed by signal 9)" in caplog.text
    resumed = fit(images, plan_for("gan", images))

    assert "resumed at step 5" in caplog.text
    assert resumed.digest == expected


@pytest.mark.slow
def test_what_one_process_began_two_end_alike(
    tokens: TokenSet,
    tracking_database: str,
    at_step: Callable[[int, Callable[[], Any]], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="atelier")
    expected = fit(tokens, plan_for("gpt", tokens)).digest
    remove(home() / "artifacts" / "models")

    def stop() -> None:
        raise InterruptedError

    at_step(6, stop)
    with pytest.raises(InterruptedError):
        fit(tokens, plan_for("gpt", tokens))
    resumed = fit(tokens, plan_for("gpt", tokens, processes=2))

    assert "resumed at step 5" in caplog.text
    assert "2 processes share the 4 shards of each batch" in caplog.text
    assert resumed.digest == expected


@pytest.mark.slow
def test_returns_to_a_healthy_state_are_those_of_one_process(
    images: ImageSet, tracking_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Both processes watch the game, and both must go back."""
    caplog.set_level("INFO", logger="atelier")
    wild = {"learning_rate": 10.0, "gradient_clip": 1e9, "warmup_steps": 0}
    told = []
    for processes in (1, 2):
        digest = fit(images, plan_for("gan", images, processes, **wild)).digest
        lines = [record.getMessage() for record in caplog.records]
        told.append([digest, *(line for line in lines if "went back to step" in line)])
        caplog.clear()
        remove(home() / "artifacts" / "models")

    assert len(told[0]) > 1
    assert told[0] == told[1]


def addresses_listened_on() -> set[str]:
    """By this process and all its children."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        each.laddr.ip
        for process in processes
        for each in process.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }


@pytest.mark.slow
def test_no_process_listens_on_an_address_but_loopback(
    images: ImageSet, tracking_database: str, at_step: Callable[[int, Callable[[], Any]], None]
) -> None:
    seen: list[set[str]] = []

    def look() -> None:
        assert len(children()) == 1
        joined = [each for each in psutil.Process().net_connections("inet") if each.raddr]
        assert joined, "the processes talk over sockets that this test sees"
        assert {each.raddr.ip for each in joined} == {"127.0.0.1"}
        seen.append(addresses_listened_on())

    at_step(3, look)
    fit(images, plan_for("vae", images, processes=2))

    (addresses,) = seen
    assert addresses <= {"127.0.0.1"}


PROGRAM = """
import sys
from tasks.data.ingestion import ingest_images
from tasks.training.examples import splits_of
from tasks.training.ranks import Ranks
from tests.tasks.training.test_ranks import children, plan_for
from models.vae.training import VaeTraining

images = ingest_images.fn(sys.argv[1])
plan = plan_for("vae", images, processes=2, steps=1_000_000)
with Ranks(plan, images) as ranks:
    training = VaeTraining(splits_of(images), "cpu", **plan.settings)
    ranks.begin(training)
    for step in training.steps():
        if step.step == 3:
            print("children", *(each.pid for each in children()), flush=True)
"""


@pytest.mark.slow
def test_the_others_end_when_rank_0_is_killed(images: ImageSet) -> None:
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), images.source],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = next(line for line in process.stdout if line.startswith("children "))
    (pid,) = map(int, told.split()[1:])
    child = psutil.Process(pid)

    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    gone, alive = psutil.wait_procs([child], timeout=10)
    assert (gone, alive) == ([child], [])


@pytest.mark.slow
def test_a_process_that_cannot_begin_says_why(images: ImageSet, tracking_database: str) -> None:
    plan = plan_for("vae", images, processes=2)
    lost = replace(images, digest="0" * 64, folder=str(home() / "nowhere"))

    with pytest.raises(RankLost, match=r"^rank 1 of 2 ended \(exit code 1: \w+: .+\)$"):  # noqa: SIM117
        with Ranks(plan, lost) as ranks:
            ranks.begin(NOTHING)


@pytest.mark.slow
def test_a_pace_is_measured_with_all_processes(images: ImageSet) -> None:
    plan = plan_for("vae", images, processes=2)

    found = pace._pace(images, plan)

    assert found.seconds_per_step > 0
    assert children() == []


def test_one_process_or_one_shard_needs_no_others(images: ImageSet) -> None:
    for plan in (plan_for("vae", images), plan_for("vae", images, 2, shards=1)):
        with Ranks(plan, images) as ranks:
            ranks.begin(NOTHING)
            assert children() == []


def test_each_process_wants_a_gpu_where_there_are_some(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for("vae", images, processes=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    with pytest.raises(BadInput, match="2 processes want a GPU each, and this machine has 1"):
        Ranks(plan, images).__enter__()
    assert children() == []


def test_a_broken_group_that_nobody_left_is_told_as_it_is(images: ImageSet) -> None:
    with pytest.raises(RankLost, match="no route"), Ranks(plan_for("vae", images), images):
        raise GroupBroken("no route")
