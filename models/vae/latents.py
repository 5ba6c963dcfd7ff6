"""The latent points of a VAE as numbers to play with: drawn, decoded, encoded.

The points and pictures are those of `models.vae.model.Vae.sample`, which a registered version
answers with.
"""

from typing import Any

import torch
from torch import Tensor

from models.training.batches import generator_at
from models.vae.model import SAMPLE_STREAM


class VaeLatents:
    """Points z of the mixture that the version samples from, and those of images."""

    def __init__(self, model: Any) -> None:
        """model: a Vae, ours or one that a registered version brought along."""
        self._model = model

    def points(self, number: int, seed: int, temperature: float = 1.0) -> Tensor:
        """What a seed's samples are decoded from: (N, Z)."""
        model = self._model
        generator = generator_at(seed, 0, SAMPLE_STREAM)
        noise = torch.randn(number, model.config.latent_size, generator=generator) * temperature
        weights = model.mixture_weights
        chosen = torch.multinomial(weights, number, replacement=True, generator=generator)
        spread = (model.mixture_factors[chosen] @ noise[:, :, None]).squeeze(-1)
        found: Tensor = model.mixture_means[chosen] + spread
        return found

    @torch.no_grad()
    def images(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        """The expected images at points (N, Z): (N, C, H, W) in [0, 1]; it knows no classes."""
        del labels
        return torch.sigmoid(self._model.decode(points))

    @torch.no_grad()
    def codes(self, images: Tensor) -> Tensor:
        """The posterior means of images (N, C, H, W) in [0, 1]: (N, Z)."""
        found: Tensor = self._model.encode(images)[0]
        return found
