"""What each preset trains of the GAN, for images of a shape."""

from typing import Any

from models.gan.config import GanConfig
from models.presets import ImageShape, Preset
from models.settings import Derived, Groups, Recipe
from models.training.config import FitConfig, share_of_steps


def _defaults(preset: Preset, shape: ImageShape) -> Groups:
    """A class-conditional GAN for images of a shape.

    Without classes it is an unconditional one, and no class is asked of it.
    Sizes and rates were found for the relativistic loss; the others share them.
    """
    num_classes = shape.num_classes
    model: dict[str, Any] = {
        "channels": shape.channels,
        "height": shape.height,
        "width": shape.width,
        "num_classes": num_classes,
    }
    if shape.side <= 16:
        penalty = 1.0
        model |= {"class_weight": 0.1 if num_classes else 0.0, "sampling_spread": 1.08}
        steps = {"quick": 600, "standard": 3000, "full": 5000}[preset]
        batch_size = 96
    else:
        penalty = 10.0
        model |= {"patch_size": 4, "base_width": 64, "blocks_per_stage": 1}
        model |= {"dense_blocks": 2, "dense_width": 256, "latent_size": 64}
        steps = {"quick": 100, "standard": 1200, "full": 20_000}[preset]
        batch_size = 64
    return {
        "model": {
            **model,
            "penalty": Derived(  # 10 is WGAN-GP's; the hinge loss has none
                ("model.loss",), lambda loss: penalty if loss == "relativistic" else 10.0
            ),
        },
        "training": {
            "steps": steps,
            "batch_size": 32 if preset == "quick" else batch_size,
            "learning_rate": 1e-3,
            "warmup_steps": share_of_steps(4, 20),
            "gradient_clip": 100.0,  # penalties bound gradients; this only stops a blow-up
        },
    }


def _check(shape: ImageShape, model: GanConfig, training: FitConfig) -> None:
    del shape
    if training.batch_size // training.shards % model.num_packed:
        raise ValueError(
            f"num_packed is {model.num_packed}, and of {training.batch_size} images in"
            f" {training.shards} shards each has {training.batch_size // training.shards}, which is"
            " no multiple of it"
        )


gan_recipe = Recipe({"model": GanConfig, "training": FitConfig}, _defaults, _check)
