import pytest
import torch

from models.presets import ImageShape, Preset
from models.training.batches import ImageBatches
from models.training.loops import likelihood_steps
from models.vae.model import Vae, make_optimizer
from models.vae.recipe import vae_recipe

SHAPES = [ImageShape(1, 8, 8), ImageShape(3, 17, 30), ImageShape(3, 32, 32), ImageShape(1, 64, 64)]
PRESETS: tuple[Preset, ...] = ("quick", "standard", "full")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_trains_on_any_shape(shape: ImageShape) -> None:
    size = shape.channels, shape.height, shape.width
    images = torch.randint(256, (6, *size), dtype=torch.uint8)
    recipe = vae_recipe("quick", shape, seed=0)
    vae, batches = Vae(recipe["model"]), ImageBatches(images, 6, seed=0)

    optimizer = make_optimizer(vae, recipe["training"])
    step = next(likelihood_steps(vae, optimizer, batches.at, recipe["training"]))

    assert {"reconstruction", "kl", "negative_elbo"} <= set(step.terms)
    assert vae.sample(2).shape == (2, *size)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_preset_gives_valid_configurations(preset: Preset, shape: ImageShape) -> None:
    assert vae_recipe(preset, shape, seed=3)["training"].seed == 3
