"""What a registered GAN answers with; this module travels inside each version."""

from typing import Any

from torch import Tensor

from models.gan.config import GanConfig
from models.gan.networks import Generator, sample

DATA = "images"


def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> Generator:
    """The generator of a configuration and weights, ready to draw."""
    model = Generator(GanConfig(**config))
    model.load_state_dict(tensors)
    return model.eval()


def draw(
    model: Generator, num_samples: int, seed: int, temperature: float, labels: Tensor | None
) -> Tensor:
    """New images (N, C, H, W) in [0, 1]; labels: (N,) int64, None takes each class in turn."""
    return sample(model, num_samples, seed, labels, temperature)
