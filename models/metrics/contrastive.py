"""Learning without labels: two views of one picture belong together, those of others apart.

Reference: Chen et al. 2020, "A simple framework for contrastive learning" (the loss).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.2


def contrast(first: Tensor, second: Tensor) -> Tensor:
    """The loss of two views of the same pictures, (N, D) each, in nats per view.

    By chance it is log(2N - 1). Each view must find its twin among all other views by the cosine.
    Raises ValueError below 2.
    """
    if len(first) < 2 or first.shape != second.shape:
        raise ValueError(
            f"wanted two views of at least 2 pictures, got {tuple(first.shape)} and"
            f" {tuple(second.shape)}"
        )
    views = F.normalize(torch.cat([first, second]), dim=1)
    likeness = views @ views.T / TEMPERATURE
    likeness = likeness.masked_fill(
        torch.eye(len(views), dtype=torch.bool, device=views.device), -1e9
    )
    twins = torch.arange(len(views), device=views.device).roll(len(first))
    return F.cross_entropy(likeness, twins)


def zoomed(images: Tensor, most: float) -> Tensor:
    """Images (N, C, H, W), each seen 1 to `most` times as large, through a window that fits.

    Draws from torch's global generator.
    """
    if most <= 1:
        return images
    number = len(images)
    share = 1 / (1 + (most - 1) * torch.rand(number))  # of a side that the window shows
    places = (torch.rand(2, number) * 2 - 1) * (1 - share)
    windows = torch.zeros(number, 2, 3)
    windows[:, 0, 0] = windows[:, 1, 1] = share
    windows[:, 0, 2], windows[:, 1, 2] = places
    grid = F.affine_grid(windows.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
