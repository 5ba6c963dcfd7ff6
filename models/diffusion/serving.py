"""What a registered diffusion model answers with; this module travels inside each version."""

from typing import Any

from torch import Tensor

from models.diffusion.config import DiffusionConfig
from models.diffusion.networks import VelocityNetwork
from models.diffusion.sampling import sample

DATA = "images"


def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> VelocityNetwork:
    """The averaged network of a configuration and weights, ready to draw."""
    model = VelocityNetwork(DiffusionConfig(**config))
    model.load_state_dict(tensors)
    return model.eval()


def draw(
    model: VelocityNetwork, num_samples: int, seed: int, temperature: float, labels: Tensor | None
) -> Tensor:
    """New images (N, C, H, W) in [0, 1]; labels: (N,) int64, None takes each class in turn."""
    return sample(model, num_samples, seed, labels, temperature)
