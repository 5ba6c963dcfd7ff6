import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image
from safetensors.torch import load_file

from flows.train import planned
from models.diffusion.config import DiffusionConfig
from models.gan.config import GanConfig
from models.gpt.config import GptConfig
from models.ngram.config import NgramConfig
from models.training.config import FitConfig
from models.vae.config import VaeConfig
from models.vae.elbo import collapse_alarm
from tasks.data.ingestion import ImageSet, ingest_images, ingest_text
from tasks.data.tokenization import TokenSet, tokenize_corpus
from tasks.families.table import FAMILIES
from tasks.packaging.package import rebuilt_from
from tasks.store.files import home, remove
from tasks.tracking.runs import open_run
from tasks.training.examples import default_prompt
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel
from tasks.training.plan import feature_extractor_plan

pytestmark = pytest.mark.slow

FIT = FitConfig(steps=12, batch_size=8, learning_rate=1e-3, warmup_steps=2)


def fit(
    family: str, images: ImageSet, tokens: TokenSet, run_id: str, seed: int = 0
) -> TrainedModel:
    """Train the smallest model of a family for twelve steps."""
    shape = {"channels": 1, "height": 8, "width": 8}
    config: Any = {
        "vae": VaeConfig(**shape, latent_size=2, base_width=4, hidden_size=8),
        "gan": GanConfig(**shape, num_classes=2, latent_size=4, base_width=8, dense_width=16),
        "diffusion": DiffusionConfig(
            **shape, num_classes=2, base_width=4, max_width=8, dense_width=8, embedding_size=8
        ),
        "ngram": NgramConfig(order=3),
        "gpt": GptConfig(
            vocabulary_size=tokens.vocabulary_size,
            context_length=16,
            num_layers=1,
            num_heads=2,
            width=16,
            dropout=0.1,
        ),
    }[family]
    settings = {"model": config, "fit": replace(FIT, seed=seed)}
    if family == "ngram":
        settings = {"model": config, "tuning": None}
    data = images if FAMILIES[family].data == "images" else tokens
    plan = replace(planned(FAMILIES[family], data, "quick", seed, {}), settings=settings)
    return fit_model.fn(data, plan, run_id)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fit_is_reproduced_from_its_seed(
    family: str, images: ImageSet, tokens: TokenSet, run_id: str
) -> None:
    first = fit(family, images, tokens, run_id)
    remove(home() / "artifacts" / "models")

    second = fit(family, images, tokens, run_id)

    assert not second.was_stored
    assert second.digest == first.digest


@pytest.mark.parametrize("family", ["vae", "gan", "diffusion", "gpt"])
def test_another_seed_gives_other_weights(
    family: str, images: ImageSet, tokens: TokenSet, run_id: str
) -> None:
    first = fit(family, images, tokens, run_id, seed=1)
    with open_run("other") as other_run_id:
        second = fit(family, images, tokens, other_run_id, seed=2)

    assert first.digest != second.digest


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unchanged_fit_is_not_done_twice_and_a_damaged_one_is(
    family: str, images: ImageSet, tokens: TokenSet, run_id: str
) -> None:
    first = fit(family, images, tokens, run_id)
    again = fit(family, images, tokens, run_id)
    assert again == replace(first, was_stored=True)

    weights = bytearray(first.weights_path.read_bytes())
    weights[-1] ^= 1
    first.weights_path.write_bytes(weights)

    repaired = fit(family, images, tokens, run_id)
    assert not repaired.was_stored
    assert repaired.digest == first.digest


def test_a_fit_leaves_weights_config_and_receipt_and_no_checkpoint(
    images: ImageSet, tokens: TokenSet, run_id: str
) -> None:
    fitted = fit("vae", images, tokens, run_id)

    names = {path.name for path in Path(fitted.folder).iterdir()}
    results = {"weights.safetensors", "config.json", "examples.safetensors", "manifest.json"}
    assert names == {*results, "progress"}
    assert json.loads(fitted.config_path.read_text())["config"]["latent_size"] == 2
    examples = load_file(Path(fitted.folder) / "examples.safetensors")["examples"]
    assert tuple(examples.shape) == (16, 1, 8, 8)


def test_curves_reach_the_run_apart_and_together(
    images: ImageSet, tokens: TokenSet, run_id: str
) -> None:
    fit("vae", images, tokens, run_id)
    fit_model.fn(images, feature_extractor_plan(images), run_id)

    runs = MlflowClient()
    recorded = runs.get_run(run_id).data
    assert {"reconstruction", "kl", "negative_elbo", "kl_weight"} <= set(recorded.metrics)
    assert {"classifier_loss", "classifier_accuracy"} <= set(recorded.metrics)
    assert recorded.params["vae.latent_size"] == "2"
    steps = [metric.step for metric in runs.get_metric_history(run_id, "negative_elbo")]
    assert steps == list(range(1, 13))


@pytest.mark.parametrize(("family", "num_rows"), [("vae", 3), ("gan", 1)])
def test_images_are_drawn_as_training_goes_on(
    images: ImageSet, tokens: TokenSet, run_id: str, family: str, num_rows: int
) -> None:
    fitted = fit(family, images, tokens, run_id)

    stored = MlflowClient().list_artifacts(run_id, "progress")
    assert [Path(file.path).name for file in stored] == [
        f"step-{step:07d}.png" for step in (1, 3, 6, 9, 12)
    ]
    with Image.open(Path(fitted.folder) / "progress" / "step-0000012.png") as last:
        assert last.size == (10 * 50 - 2, num_rows * 50 - 2)  # each 48 pixels wide, 2 between


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_pictures_without_labels_make_models_that_draw(
    family: str, image_folder: Path, tmp_path: Path, run_id: str
) -> None:
    (tmp_path / "flat").mkdir()
    for index, path in enumerate(sorted(image_folder.rglob("*.png"))):
        path.rename(tmp_path / "flat" / f"{index:03d}.png")
    images = ingest_images.fn(f"folder:{tmp_path / 'flat'}")
    assert images.class_names == ()

    plan = planned(FAMILIES[family], images, "quick", 0, {})
    fitted = fit_model.fn(
        images, replace(plan, settings={**plan.settings, "training": FIT}), run_id
    )

    model = rebuilt_from(fitted)
    assert model.draw_images(3, seed=1).shape == (3, 1, 8, 8)
    assert (model.draw_images(3, seed=1) == model.draw_images(3, seed=1)).all()
    with pytest.raises(MlflowException, match="label 0 is not known; this model knows no classes"):
        model.draw_images(1, label=0)


@pytest.mark.parametrize("text", ["Some words in one line only. " * 500, "\u4e66\u6587" * 6000])
def test_a_text_in_one_line_has_a_prompt(atelier_home: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "line.txt").write_text(text)
    tokens = tokenize_corpus.fn(ingest_text.fn(f"file:{tmp_path / 'line.txt'}"))

    prompt = default_prompt(tokens.corpus)

    assert 20 <= len(prompt) <= 40
    assert prompt in text


def test_the_prompt_is_held_out_text(tokens: TokenSet) -> None:
    prompt = default_prompt(tokens.corpus)

    assert 20 <= len(prompt) <= 40
    assert prompt in (Path(tokens.corpus.folder) / "validation.txt").read_text()


def test_a_run_tells_how_many_latent_units_are_used(
    images: ImageSet, tokens: TokenSet, run_id: str
) -> None:
    fit("vae", images, tokens, run_id)

    names = ("active_units", "validation_kl", "collapse_alarm")
    active, kl, alarm = (MlflowClient().get_metric_history(run_id, name)[-1] for name in names)

    assert active.step == FIT.steps
    assert active.value in (0, 1, 2)
    assert kl.value > 0
    assert bool(alarm.value) == (collapse_alarm(kl.value, int(active.value), 2) is not None)
