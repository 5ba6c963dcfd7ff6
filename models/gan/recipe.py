"""What each preset trains of the GAN, for images of a shape."""

from dataclasses import replace
from typing import Any

from models.gan.networks import GanConfig, GanLoss
from models.presets import ImageShape, Preset
from models.training.loops import FitConfig


def gan_recipe(
    preset: Preset, shape: ImageShape, seed: int, gan_loss: GanLoss = "relativistic"
) -> dict[str, Any]:
    """A class-conditional GAN for images of a shape.

    Without classes it is an unconditional one, and no class is asked of it.
    Sizes and rates were found for the relativistic loss; the others share them.
    """
    num_classes = shape.num_classes
    sizes: dict[str, Any] = {
        "channels": shape.channels,
        "height": shape.height,
        "width": shape.width,
        "num_classes": num_classes,
    }
    if shape.side <= 16:
        config = GanConfig(
            **sizes,
            penalty=1.0,
            class_weight=0.1 if num_classes else 0.0,
            sampling_spread=1.08,
        )
        steps = {"quick": 600, "standard": 3000, "full": 5000}[preset]
        batch_size = 96
    else:
        config = GanConfig(
            **sizes,
            patch_size=4,
            base_width=64,
            blocks_per_stage=1,
            dense_blocks=2,
            dense_width=256,
            latent_size=64,
            penalty=10.0,
        )
        steps = {"quick": 100, "standard": 1200, "full": 20_000}[preset]
        batch_size = 64
    if gan_loss != "relativistic":
        config = replace(config, loss=gan_loss, penalty=10.0)  # of WGAN-GP; the hinge loss has none
    fit = FitConfig(
        steps=steps,
        batch_size=32 if preset == "quick" else batch_size,
        learning_rate=1e-3,
        warmup_steps=20,
        gradient_clip=100.0,  # the penalties keep gradients in bounds; this only stops a blow-up
        seed=seed,
    )
    return {"config": config, "fit": fit}
