"""The whole way of a training: resumed bit for bit, kept, and drawn from as a version does."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from models.diffusion import serving
from models.diffusion.config import DiffusionConfig
from models.diffusion.training import DiffusionTraining
from models.training.config import FitConfig
from models.training.protocol import ImageData, Training

CONFIG = DiffusionConfig(
    num_classes=2,
    base_width=4,
    max_width=8,
    dense_width=8,
    embedding_size=8,
    dropout=0.1,
    label_dropout=0.2,
    guidance=1.5,
    sampling_steps=3,
)
FIT = FitConfig(steps=12, batch_size=8, learning_rate=1e-2, warmup_steps=2)


@pytest.fixture
def data() -> ImageData:
    """Pictures of two classes: bright above, and bright below."""
    pixels = np.random.default_rng(0).integers(0, 60, (40, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(40) % 2
    pixels[labels == 0, :, :4] += 150
    pixels[labels == 1, :, 4:] += 150
    return ImageData(
        train=pixels[:32],
        train_labels=labels[:32],
        validation=pixels[32:],
        validation_labels=labels[32:],
    )


def begun(data: ImageData) -> DiffusionTraining:
    return DiffusionTraining(data, torch.device("cpu"), CONFIG, FIT)


def ended(training: Training) -> dict[str, torch.Tensor]:
    for _ in training.steps():
        pass
    return training.finish("").tensors


def test_a_training_that_was_cut_off_ends_with_the_same_bits(data: ImageData) -> None:
    expected = ended(begun(data))
    cut_off, resumed = begun(data), begun(data)
    for step in cut_off.steps():
        cut_off.state.step = step.step
        if step.step == 5:
            break

    resumed.state.restore(*cut_off.state.snapshot())
    found = ended(resumed)

    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_what_is_kept_draws_what_the_training_drew(data: ImageData) -> None:
    training = begun(data)
    kept = ended(training)

    version = serving.build(asdict(CONFIG), kept)
    drawn = serving.draw(version, 10, 0, 1.0, None)

    assert torch.equal(drawn, training.drawn())
    one_class = serving.draw(version, 10, 0, 1.0, torch.zeros(10, dtype=torch.long))
    assert not torch.equal(drawn, one_class)


def test_data_without_classes_are_learned_without(data: ImageData) -> None:
    config = DiffusionConfig(base_width=4, max_width=8, dense_width=8, embedding_size=8)

    training = DiffusionTraining(data, torch.device("cpu"), config, FIT)

    assert next(training.steps()).terms["loss"].isfinite()
    assert training.drawn().shape == (10, 1, 8, 8)
