from dataclasses import replace

import pytest
import torch

from models.gan.config import GanLoss
from models.gan.model import Gan, labelled_batches, optimizers_of
from models.gan.networks import sample
from models.gan.recipe import gan_recipe
from models.presets import ImageShape, Preset
from models.training.adversarial import adversarial_steps
from models.training.batches import ImageBatches

SHAPES = [ImageShape(1, 8, 8), ImageShape(3, 17, 30), ImageShape(3, 32, 32), ImageShape(1, 64, 64)]
PRESETS: tuple[Preset, ...] = ("quick", "standard", "full")


def batches_of(shape: ImageShape) -> ImageBatches:
    size = shape.channels, shape.height, shape.width
    return ImageBatches(torch.randint(256, (6, *size), dtype=torch.uint8), 6, seed=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_trains_on_any_shape(shape: ImageShape) -> None:
    recipe = gan_recipe("quick", replace(shape, num_classes=3), seed=0)
    gan = Gan(recipe["model"])
    optimizers = optimizers_of(gan, recipe["training"].learning_rate)

    batches = labelled_batches(batches_of(shape), torch.arange(6) % 3)
    turns = adversarial_steps(gan, optimizers, batches, recipe["training"])

    assert {"generator_loss", "discriminator_loss"} <= set(next(turns).terms)


@pytest.mark.parametrize("loss", ["relativistic", "hinge", "wasserstein"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_trains_without_classes(shape: ImageShape, loss: GanLoss) -> None:
    recipe = gan_recipe("quick", shape, 0, {"model.loss": loss})
    gan = Gan(recipe["model"])
    batches = labelled_batches(batches_of(shape), None)
    optimizers = optimizers_of(gan, recipe["training"].learning_rate)

    step = next(adversarial_steps(gan, optimizers, batches, recipe["training"]))

    assert gan.config.loss == loss
    assert torch.isfinite(step.terms["generator_loss"])
    assert "class_loss" not in step.terms
    size = shape.channels, shape.height, shape.width
    assert sample(gan.average, 2, seed=0).shape == (2, *size)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_preset_gives_valid_configurations(preset: Preset, shape: ImageShape) -> None:
    recipe = gan_recipe(preset, replace(shape, num_classes=10), seed=3)

    assert recipe["training"].seed == 3
    assert recipe["model"].num_classes == 10
