"""With the schedule "wsd", a short training and then a longer one is the longer one at once."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from flows.train import planned
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.families.table import FAMILIES
from tasks.store.artifacts import artifacts
from tasks.store.files import home, remove
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel
from tasks.training.stable_phase import CHECKPOINT

pytestmark = pytest.mark.slow

SMALL = {
    "vae": {"model.latent_size": 2, "model.base_width": 4, "model.hidden_size": 8},
    "gan": {"model.latent_size": 4, "model.base_width": 8, "model.dense_width": 16},
    "diffusion": {"model.base_width": 4, "model.max_width": 8, "model.dense_width": 8},
    "gpt": {"model.context_length": 16, "model.num_layers": 1, "model.width": 16},
}
Lines = Callable[[], list[str]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """What was told since it was asked last."""

    def told() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    caplog.set_level("INFO", logger="atelier")
    return told


def fit(family: str, data: ImageSet | TokenSet, **training: object) -> TrainedModel:
    given = {
        "training.schedule": "wsd",
        "training.batch_size": 8,
        **SMALL[family],
        **{f"training.{name}": value for name, value in training.items()},
    }
    full = {f"{family}.{name}": value for name, value in given.items()}
    with open_run(family) as run_id:  # a run's settings are its own
        return fit_model.fn(data, planned(FAMILIES[family], data, "quick", 0, full), run_id)


def kept_steps() -> list[int]:
    return sorted(each.record["step"] for each in artifacts("stable-phases"))


@pytest.mark.parametrize("family", SMALL)
def test_twice_as_long_afterwards_is_as_long_at_once(
    family: str, images: ImageSet, tokens: TokenSet, tracking_database: str, lines: Lines
) -> None:
    data = images if FAMILIES[family].data == "images" else tokens
    short = fit(family, data, steps=20)
    assert kept_steps() == [16]

    longer = fit(family, data, steps=40)

    told = "\n".join(lines())
    assert "begins alike was at step 16" in told
    assert "resumed at step 16" in told
    assert kept_steps() == [16, 32]
    remove(home() / "artifacts" / "models")
    remove(home() / "artifacts" / "stable-phases")
    at_once = fit(family, data, steps=40)
    assert at_once.digest == longer.digest != short.digest


def test_a_shorter_training_does_not_begin_where_a_longer_one_was(
    images: ImageSet, tracking_database: str, lines: Lines
) -> None:
    fit("vae", images, steps=40)

    fit("vae", images, steps=20)

    assert not any("begins alike" in line for line in lines())
    assert kept_steps() == [16, 32]


def test_another_setting_begins_anew_and_another_decay_does_not(
    images: ImageSet, tracking_database: str, lines: Lines
) -> None:
    fit("vae", images, steps=20)

    fit("vae", images, steps=40, learning_rate=1e-3)
    assert not any("begins alike" in line for line in lines())
    fit("vae", images, steps=40, final_learning_rate_fraction=0.5, decay_fraction=0.5)

    assert sum("begins alike was at step 16" in line for line in lines()) == 1


def test_a_damaged_state_is_not_gone_on_from(
    images: ImageSet, tracking_database: str, lines: Lines
) -> None:
    fit("vae", images, steps=20)
    (kept,) = artifacts("stable-phases")
    path = kept.folder / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    fit("vae", images, steps=40)

    assert not any("begins alike" in line for line in lines())


def test_the_schedule_that_falls_over_all_steps_keeps_no_state(
    images: ImageSet, run_id: str
) -> None:
    plan = planned(FAMILIES["vae"], images, "quick", 0, {"vae.training.schedule": "wsd"})
    cosine = replace(plan.settings["training"], schedule="cosine", steps=10)

    fit_model.fn(images, replace(plan, settings={**plan.settings, "training": cosine}), run_id)

    assert kept_steps() == []
