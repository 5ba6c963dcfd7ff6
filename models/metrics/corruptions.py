"""Pictures spoilt on purpose: what a judge of images must be able to see.

A judge that is taught nothing but classes may tell them by a colour alone, and then noise of the
right colour looks real to it. So it also learns which of these damages a picture has.

References: Noroozi and Favaro 2016 (shuffled patches as a lesson without labels); Hendrycks and
Dietterich 2019 (noise and blur as what networks should notice).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("none", "noise", "blur", "patches", "pixels")
"""The damages by number. 0 is the picture as it is."""
PATCHES = 4
"""Patches along each side of a picture whose patches are shuffled."""


def damaged(images: Tensor, kinds: list[int]) -> Tensor:
    """Images (N, C, H, W) in [0, 1], each with the damage of its kind: the same shape.

    Noise has a standard deviation of 0.03 to 0.33; blur mixes a picture with its means of 3 by 3
    pixels, half to all of it; patches and pixels are put in another order, the same for all
    channels. Draws from torch's global generator. Sides that four does not divide keep a rim.
    """
    found = images.clone()
    for kind, spoil in enumerate((_noisy, _blurred, _patches_shuffled, _pixels_shuffled), start=1):
        chosen = [index for index, wanted in enumerate(kinds) if wanted == kind]
        if chosen:
            found[chosen] = spoil(images[chosen]).clamp(0, 1)
    return found


def _noisy(images: Tensor) -> Tensor:
    strength = 0.03 + 0.3 * torch.rand(len(images), 1, 1, 1)
    noise = torch.randn(images.shape) * strength
    return images + noise.to(images.device)


def _blurred(images: Tensor) -> Tensor:
    means = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = 0.5 + 0.5 * torch.rand(len(images), 1, 1, 1)
    return torch.lerp(images, means, share.to(images.device))


def _patches_shuffled(images: Tensor) -> Tensor:
    height, width = (side // PATCHES * PATCHES for side in images.shape[2:])
    shape = (*images.shape[:2], PATCHES, height // PATCHES, PATCHES, width // PATCHES)
    grid = images[:, :, :height, :width].reshape(shape)
    patches = grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (N, P * P, C, H / P, W / P)
    order = torch.rand(patches.shape[:2]).argsort(1).to(images.device)
    moved = patches.gather(1, order[:, :, None, None, None].expand_as(patches))
    moved = moved.reshape(len(images), PATCHES, PATCHES, *moved.shape[2:])
    found = images.clone()
    found[:, :, :height, :width] = moved.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    return found


def _pixels_shuffled(images: Tensor) -> Tensor:
    points = images.flatten(2)  # (N, C, H * W)
    order = torch.rand(len(images), 1, points.shape[2]).argsort(2).to(images.device)
    return points.gather(2, order.expand_as(points)).view_as(images)
