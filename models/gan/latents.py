"""The latent points of a GAN as numbers to play with: drawn, and painted.

The points and pictures are those of `models.gan.networks.sample`, which a registered version
answers with.
"""

from typing import Any

import torch
from torch import Tensor

from models.gan.networks import fixed_latents, images_of


class GanLatents:
    """Standard normal points, as wide as the version samples them; there is no way back."""

    def __init__(self, model: Any) -> None:
        """model: a Generator, ours or one that a registered version brought along."""
        self._model = model

    def points(self, number: int, seed: int, temperature: float = 1.0) -> Tensor:
        """What a seed's samples are painted from: (N, Z)."""
        config = self._model.config
        found: Tensor = fixed_latents(config, number, seed) * config.sampling_spread * temperature
        return found

    def images(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        """The images of points (N, Z) and classes (N,), if it knows any: (N, C, H, W) in [0, 1]."""
        if labels is None and self._model.config.num_classes:
            labels = torch.arange(len(points)) % self._model.config.num_classes
        return images_of(self._model, points, labels)
