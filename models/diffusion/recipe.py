"""What each preset trains: sizes, rates and lengths for images of a shape."""

from typing import Any

from models.diffusion.config import DiffusionConfig
from models.presets import ImageShape, Preset
from models.settings import Derived, Groups, Recipe
from models.training.config import FitConfig, share_of_steps


def _defaults(preset: Preset, shape: ImageShape) -> Groups:
    """A class-conditional diffusion model for images of a shape.

    Without classes it is an unconditional one, and no class is asked of it.
    Steps are as many as the GAN's recipe of the same preset has time for, with some to spare.
    Sizes and rates were found on 8x8 digits and on MNIST; those for sides above 32 pixels are a
    first guess.
    """
    is_tiny, learning_rate = shape.side <= 16, 4e-3
    model: dict[str, Any] = {
        "channels": shape.channels,
        "height": shape.height,
        "width": shape.width,
        "num_classes": shape.num_classes,
        "label_dropout": 0.1 if shape.num_classes else 0.0,
        "guidance": _where_labelled(1.3),
        "sampling_steps": 10,
        "time_shift": 0.5,
        "sampling_spread": 1.18 if is_tiny else 1.05,
    }
    if is_tiny:
        steps, batch_size = {"quick": 500, "standard": 1800, "full": 3200}[preset], 96
    elif shape.side <= 32:
        model |= {"patch_size": 2, "dense_width": 256}
        if preset == "full":
            # without guidance and wider noise: a trained-out velocity has all of the variance
            model |= {"blocks_per_stage": 2, "guidance": 1.0, "sampling_spread": 1.0}
        else:
            model |= {"base_width": 32, "guidance": _where_labelled(1.5)}
        steps = {"quick": 150, "standard": 2700, "full": 24_000}[preset]
        batch_size, learning_rate = (64 if preset == "full" else 32), 2e-3
    else:
        model |= {"patch_size": 4, "dense_width": 256}
        steps, batch_size = {"quick": 150, "standard": 2400, "full": 40_000}[preset], 64
    return {
        "model": model,
        "training": {
            "steps": steps,
            "batch_size": 32 if preset == "quick" else batch_size,
            "learning_rate": learning_rate,
            "warmup_steps": share_of_steps(4, 100),
            "gradient_clip": 1.0,
        },
    }


def _where_labelled(guidance: float) -> Derived:
    """A network that never saw an image without its class has nothing to be guided from."""
    return Derived(("model.label_dropout",), lambda dropout: guidance if dropout else 1.0)


diffusion_recipe = Recipe({"model": DiffusionConfig, "training": FitConfig}, _defaults)
