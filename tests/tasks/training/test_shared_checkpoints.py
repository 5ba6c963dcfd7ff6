"""A training that one home began, another one goes on with: the same weights, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.train import planned
from tasks.data.ingestion import ImageSet
from tasks.families.table import FAMILIES
from tasks.store import exchange
from tasks.store.shared import SharedStore, shared
from tasks.store.storage import STORE_VARIABLE
from tasks.tracking.runs import open_run
from tasks.training import checkpointing
from tasks.training.fit import fit_model
from tasks.training.fit_store import FitContext, TrainedModel

SMALL = {"vae.model.latent_size": 2, "vae.model.base_width": 4, "vae.model.hidden_size": 8}
STEPS, KILLED_AT = 40, 25


class Killed(BaseException):
    """As when the process of a training is ended."""


def fit(data: ImageSet) -> TrainedModel:
    settings = {**SMALL, "vae.training.steps": STEPS, "vae.training.batch_size": 8}
    with open_run("vae") as run_id:
        return fit_model.fn(data, planned(FAMILIES["vae"], data, "quick", 0, settings), run_id)


@pytest.fixture
def enter(
    images: ImageSet, tracking_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Work in another home from now on; all share a store, and each step leaves a checkpoint."""
    (tmp_path / "store").mkdir()
    monkeypatch.setenv(STORE_VARIABLE, f"file://{tmp_path}/store")
    monkeypatch.setattr(exchange, "_away_since", {})
    monkeypatch.setattr(exchange, "seconds_between_shared_checkpoints", lambda: 0)
    monkeypatch.setattr(checkpointing, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    send = exchange.Exchange.send_checkpoint

    def send_at_once(place: exchange.Exchange, *told: Any) -> None:
        send(place, *told)
        place._sender.join()

    monkeypatch.setattr(exchange.Exchange, "send_checkpoint", send_at_once)
    return lambda name: monkeypatch.setenv("ATELIER_HOME", str(tmp_path / name))


def killed_at(step: int, data: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the checkpoint of a step has been sent."""

    def save(state: Any, place: FitContext) -> None:
        if state.step > step:
            raise Killed
        checkpointing_save(state, place)

    checkpointing_save = checkpointing.save_checkpoint
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpointing, "save_checkpoint", save)
        fit(data)


def store() -> SharedStore:
    found = shared()
    assert found is not None
    return found


@pytest.mark.slow
def test_another_home_goes_on_where_one_was_killed(
    images: ImageSet,
    enter: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "atelier")
    with monkeypatch.context() as patch:
        patch.delenv(STORE_VARIABLE)
        enter("alone")
        expected = fit(images).digest
    enter("a")
    killed_at(KILLED_AT, images, monkeypatch)
    steps = [int(name.rpartition("/")[2][:10]) for name in store().names("checkpoints")]
    assert steps == [KILLED_AT - 1, KILLED_AT], "the newest, and one that may be being read"
    newest = store().names("checkpoints")[-1]
    damaged = tmp_file(newest)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    enter("b")
    killed_at(KILLED_AT + 5, images, monkeypatch)

    assert f"checkpoint is of step {KILLED_AT - 1}; goes on from there" in caplog.text
    assert f"{newest} is damaged" in caplog.text
    assert f"resumed at step {KILLED_AT - 1}" in caplog.text
    enter("a")  # its own is older
    assert fit(images).digest == expected
    assert f"resumed at step {KILLED_AT + 5}" in caplog.text
    assert store().names("checkpoints") == store().names("claims") == []
    enter("c")
    assert fit(images).was_stored


def tmp_file(name: str) -> Path:
    """Where the store of these tests keeps a name."""
    return Path(store().address.removeprefix("file://")) / name


@pytest.mark.slow
def test_a_checkpoint_of_ones_own_that_is_further_stays(
    images: ImageSet,
    enter: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "atelier")
    enter("a")
    killed_at(KILLED_AT, images, monkeypatch)
    for name in store().names("checkpoints")[1:]:
        store().remove(name)

    fit(images)

    assert "goes on from there" not in caplog.text
    assert f"resumed at step {KILLED_AT}" in caplog.text
