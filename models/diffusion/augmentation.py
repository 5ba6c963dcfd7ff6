"""Moved copies of training images, together with how they were moved.

A network that is told how an image was moved learns from the moved ones and draws those that were
not (Karras et al. 2020, "Training GANs with limited data"; 2022, EDM): a small set of images lasts
longer, and its copies are not learned by heart.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.diffusion.config import DiffusionConfig
from models.diffusion.networks import NUM_MOVES


def moved(images: Tensor, config: DiffusionConfig) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W), some of them moved, and how: (B, 4) in [-1, 1], shares of the largest.

    Right, down, larger, turned. Draws from torch's global generator. What enters repeats the
    border; pixels between pixels are interpolated.
    """
    number, device = len(images), images.device
    chosen = torch.rand(number, 1, device=device) < config.augment_probability
    largest = (config.augment_shift, config.augment_shift, config.augment_zoom, config.augment_turn)
    shares = (torch.rand(number, NUM_MOVES, device=device) * 2 - 1) * chosen
    # number by number: a tensor of them would have to be copied from the CPU at every step
    shares = torch.stack([shares[:, i] * (size > 0) for i, size in enumerate(largest)], 1)
    right, down, larger, turn = (shares[:, i] * size for i, size in enumerate(largest))
    # where in the image, whose sides are -1 and 1, each new pixel is looked up
    size, aspect = (-larger).exp(), config.width / config.height
    cos, sin = size * turn.cos(), size * turn.sin()
    places = torch.stack(
        [
            torch.stack([cos, -sin / aspect, -2 * right / config.width], 1),
            torch.stack([sin * aspect, cos, -2 * down / config.height], 1),
        ],
        1,
    )
    grid = F.affine_grid(places, list(images.shape), align_corners=False)
    seen = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    # where nothing moves, interpolation would still round
    return torch.where(chosen[:, :, None, None], seen, images), shares
