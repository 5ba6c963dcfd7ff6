"""The noise that a diffusion model starts from, as points to play with.

The points and pictures are those of `models.diffusion.sampling.sample`, which a registered version
answers with.
"""

from typing import Any

import torch
from torch import Tensor

from models.diffusion.sampling import images_of, noise_of


class DiffusionLatents:
    """Starting noise, flattened: the ODE carries each point to one image; there is no way back."""

    def __init__(self, model: Any) -> None:
        """model: a VelocityNetwork, ours or one that a registered version brought along."""
        self._model = model

    def points(self, number: int, seed: int, temperature: float = 1.0) -> Tensor:
        """The noise of a seed's samples: (N, C * H * W)."""
        config = self._model.config
        noise = noise_of(config, number, seed).flatten(1)
        found: Tensor = noise * config.sampling_spread * temperature
        return found

    def images(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        """What noise (N, C * H * W) of classes (N,), if it knows any, becomes: (N, C, H, W)."""
        config = self._model.config
        if labels is None and config.num_classes:
            labels = torch.arange(len(points)) % config.num_classes
        return images_of(self._model, points.view(len(points), *config.shape), labels)
