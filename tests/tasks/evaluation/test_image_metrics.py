"""Whole evaluations of images: with labels and without, of models and of rubbish."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.metrics.baselines import rubbish
from models.metrics.classifier import Classifier
from models.metrics.recipe import classifier_recipe
from models.presets import ImageShape
from tasks.data.ingestion import ImageSet
from tasks.data.splits import load_images
from tasks.evaluation import image_metrics, validation
from tasks.evaluation.image_metrics import drawn_by, measure_images
from tasks.evaluation.images import judge_of
from tasks.evaluation.scorecard import beside_main
from tasks.evaluation.validation import measured_on_validation
from tasks.training.fit import fit_model
from tasks.training.plan import feature_extractor_plan


@pytest.fixture
def unlabelled(images: ImageSet) -> ImageSet:
    """The same pictures as if they had come without classes."""
    np.save(Path(images.folder) / "labels.npy", np.full(120, -1))
    return replace(images, class_names=(), digest=images.digest[::-1], name="flat")


def drawing(monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray) -> Any:
    """A model, measured as a GAN, that draws given pictures."""
    many = np.resize(pixels, (600, *pixels.shape[1:]))
    monkeypatch.setattr(image_metrics, "drawn_by", lambda *_, **__: (many, None))
    config = {"channels": 1, "height": 8, "width": 8, "num_classes": 0}
    return SimpleNamespace(family="gan", config=config, model=nn.Identity())


def fresh(number: int) -> np.ndarray:
    """New pictures of the folder's kind."""
    random = np.random.default_rng(7)
    pixels = random.integers(0, 60, (number, 1, 8, 8), dtype=np.uint8)
    pixels[::2, :, :, :4] += 150
    pixels[1::2, :, :, 4:] += 150
    return pixels


@pytest.mark.slow
def test_images_without_labels_are_judged_by_what_needs_none(
    unlabelled: ImageSet, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = judge_of(fit_model.fn(unlabelled, feature_extractor_plan(unlabelled), run_id))

    real = measure_images(drawing(monkeypatch, fresh(600)), unlabelled, judge)
    noise = rubbish(load_images(unlabelled, "train")[0])["noise"]
    worthless = measure_images(drawing(monkeypatch, noise), unlabelled, judge)

    assert real.failed_checks == []
    assert {"test_frechet_distance", "real_data_frechet_distance"} <= set(real.metrics)
    for name in ("class_entropy_nats", "classes_drawn", "class_fidelity"):
        assert f"test_{name}" not in real.metrics
    assert "classifier_test_accuracy" not in real.metrics  # the card says what is left out
    assert any(fault.startswith("unlike real pictures: ") for fault in worthless.failed_checks)


@pytest.mark.slow
def test_few_pictures_over_and_over_are_a_collapse(
    images: ImageSet, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = judge_of(fit_model.fn(images, feature_extractor_plan(images), run_id))

    measured = measure_images(drawing(monkeypatch, fresh(4)), images, judge)

    assert any("different pictures" in fault for fault in measured.failed_checks)


def test_an_unfit_judge_lets_nothing_pass_and_says_why(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Brightness(nn.Module):
        config = classifier_recipe(ImageShape(1, 8, 8, 2))["model"]

        def features(self, seen: torch.Tensor) -> torch.Tensor:
            return torch.stack([seen.mean((1, 2, 3)), seen.amax((1, 2, 3))], 1)

        def forward(self, seen: torch.Tensor) -> torch.Tensor:
            return self.features(seen)

    judge: Any = Brightness()
    measured = measure_images(drawing(monkeypatch, fresh(600)), images, judge)

    assert any(fault.startswith("the judge is unfit: ") for fault in measured.failed_checks)


def test_colour_likelihoods_stand_in_bits_per_dimension_too() -> None:
    metrics = {"test_nll_nats": 100.0, "test_bits_per_dimension": 4.5}
    scored: Any = SimpleNamespace(main_metric="test_nll_nats", metrics=metrics)
    distance: Any = SimpleNamespace(
        main_metric="test_frechet_distance",
        metrics={"test_frechet_distance": 0.5, "real_data_frechet_distance": 0.17},
    )

    assert beside_main(scored) == ", 4.500 bits per dimension"
    assert beside_main(distance) == ", real data: 0.1700"


@pytest.mark.parametrize("split", ["test", "validation"])
def test_samples_are_drawn_where_models_train(
    split: str, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU the samples of a large diffusion model take longer than its training on a GPU."""
    held, drawn_on = [False], []

    @contextmanager
    def on_the_gpu(network: nn.Module) -> Iterator[None]:
        assert isinstance(network, nn.Identity)
        held[0] = True
        yield
        held[0] = False

    def draw(number: int, seed: int, labels: Any) -> torch.Tensor:
        drawn_on.append(held[0])
        return torch.rand(number, 1, 8, 8)

    for module in (image_metrics, validation):
        monkeypatch.setattr(module, "on_training_device", on_the_gpu)
    subject = SimpleNamespace(config={}, model=nn.Identity(), draw=draw)
    if split == "test":
        drawn_by(subject, images, by_distance=False)
    else:
        judge = Classifier(classifier_recipe(ImageShape(1, 8, 8, 2))["model"]).eval()
        measured_on_validation(subject, images, judge)

    assert drawn_on == [True]
