"""What a registered VAE answers with; this module travels inside each version."""

from typing import Any

from torch import Tensor

from models.vae.config import VaeConfig
from models.vae.model import Vae

DATA = "images"


def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> Vae:
    """The model of a configuration and weights, ready to draw."""
    model = Vae(VaeConfig(**config))
    model.load_state_dict(tensors)
    return model.eval()


def draw(
    model: Vae, num_samples: int, seed: int, temperature: float, labels: Tensor | None
) -> Tensor:
    """New images (N, C, H, W) in [0, 1]; it knows no classes."""
    del labels
    return model.sample(num_samples, seed, temperature, sampler="mixture")
