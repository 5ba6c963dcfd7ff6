"""A training on several processes: the weights of one process, whatever happens to the others."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.train import planned
from models.training.loops import Step
from models.training.sharding import GroupBroken
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.families.table import FAMILIES
from tasks.store.files import BadInput, home, remove
from tasks.tracking.runs import open_run
from tasks.training import checkpointing
from tasks.training import fit as fitting
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel, fit_cache_key
from tasks.training.plan import TrainingPlan
from tasks.training.ranks import RankLost, Ranks

SMALL = {
    "vae": {"model.latent_size": 2, "model.base_width": 4, "model.hidden_size": 8},
    "gan": {"model.latent_size": 4, "model.base_width": 8, "model.dense_width": 16},
    "diffusion": {"model.base_width": 4, "model.max_width": 8, "model.dense_width": 8},
    "gpt": {"model.context_length": 16, "model.num_layers": 1, "model.width": 16},
}
STEPS = 12


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


def children() -> list[psutil.Process]:
    """The other processes of a training that this process runs."""
    found = psutil.Process().children(recursive=True)
    return [each for each in found if "tasks.training.ranks" in each.cmdline()]


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], None]:
    """Do something after a step of every fit, before its checkpoint."""

    def arrange(number: int, act: Callable[[], Any]) -> None:
        passed_on = fitting.checkpointed_steps

        def steps(*arguments: Any) -> Iterator[Step]:
            for step in passed_on(*arguments):
                yield step
                if step.step == number:
                    act()

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
    resumed = fit(images, plan_for("gan", images))

    assert "resumed at step 5" in caplog.text
    assert resumed.digest == expected
