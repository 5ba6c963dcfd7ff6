"""What each preset trains of the VAE, for images of a shape."""

from models.presets import ImageShape, Preset
from models.settings import Derived, Groups, Recipe
from models.training.config import FitConfig
from models.vae.config import VaeConfig


def _defaults(preset: Preset, shape: ImageShape) -> Groups:
    """A VAE for images of a size: Bernoulli pixels for grey images, 256 levels for colour."""
    if shape.side <= 16:
        sizes = {"latent_size": 12, "base_width": 32}
        steps, kl_warmup, clip = {"quick": 400, "standard": 2000, "full": 6000}[preset], 300, 100
    elif preset == "full":
        sizes = {"latent_size": 32, "base_width": 32, "hidden_size": 512}
        steps, kl_warmup, clip = 40_000, 1000, 200
    else:
        sizes = {"latent_size": 20, "base_width": 16}
        steps, kl_warmup, clip = {"quick": 500, "standard": 2600}[preset], 1000, 200
    return {
        "model": {
            "channels": shape.channels,
            "height": shape.height,
            "width": shape.width,
            "likelihood": "bernoulli" if shape.channels == 1 else "logistic",
            **sizes,
            "num_residual_blocks": 0 if preset == "quick" else 1,
            "kl_warmup_steps": Derived(
                ("training.steps",), lambda steps: min(kl_warmup, steps // 4)
            ),
        },
        "training": {
            "steps": steps,
            "batch_size": 64,
            "learning_rate": 4e-3,
            "warmup_steps": Derived(("training.steps",), lambda steps: min(200, steps // 8)),
            "gradient_clip": clip,  # losses are sums over pixels, and so are their gradients
        },
    }


vae_recipe = Recipe({"model": VaeConfig, "training": FitConfig}, _defaults)
