"""What each preset trains: sizes, rates and lengths for images of a shape."""

from typing import Any

from models.diffusion.networks import DiffusionConfig
from models.presets import ImageShape, Preset
from models.training.loops import FitConfig


def diffusion_recipe(preset: Preset, shape: ImageShape, seed: int) -> dict[str, Any]:
    """A class-conditional diffusion model for images of a shape.

    Without classes it is an unconditional one, and no class is asked of it.
    Steps are as many as the GAN's recipe of the same preset has time for, with some to spare.
    Sizes and rates were found on 8x8 digits; those for sides above 16 pixels are a first guess.
    """
    sizes: dict[str, Any] = {
        "channels": shape.channels,
        "height": shape.height,
        "width": shape.width,
    }
    if shape.num_classes:
        sizes |= {"num_classes": shape.num_classes, "label_dropout": 0.1, "guidance": 1.3}
    drawing: dict[str, Any] = {"sampling_steps": 10, "time_shift": 0.5, "sampling_spread": 1.18}
    if shape.side <= 16:
        config = DiffusionConfig(**sizes, **drawing)
        steps, batch_size = {"quick": 500, "standard": 1800, "full": 3200}[preset], 96
    else:
        drawing["sampling_spread"] = 1.05
        config = DiffusionConfig(**sizes, **drawing, patch_size=4, dense_width=256)
        steps, batch_size = {"quick": 150, "standard": 2400, "full": 40_000}[preset], 64
    fit = FitConfig(
        steps=steps,
        batch_size=32 if preset == "quick" else batch_size,
        learning_rate=4e-3,
        warmup_steps=min(100, steps // 4),
        gradient_clip=1.0,
        seed=seed,
    )
    return {"config": config, "fit": fit}
