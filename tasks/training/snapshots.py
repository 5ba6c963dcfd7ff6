"""Pictures of what a model draws while it trains."""

import torch
from torch import Tensor

from tasks import plots
from tasks.store.files import write_bytes
from tasks.training.fit_store import FitContext

GRID_COLUMNS = 10
GRID_FRACTIONS = (0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Moments of training, as fractions of its steps, at which the same images are drawn again."""


def snapshot_steps(num_steps: int) -> set[int]:
    """The steps at which `save_sample_grid` is called for."""
    return {max(1, round(fraction * num_steps)) for fraction in GRID_FRACTIONS}


def save_sample_grid(place: FitContext, step: int, title: str, images: Tensor) -> None:
    """Store what a model draws at a step, on the title's slider of its run's page.

    images: (N, C, H, W) float in [0, 1], in rows of GRID_COLUMNS.
    """
    drawn = (images * 255).round().to(torch.uint8).cpu().numpy()
    path = place.folder / "progress" / f"step-{step:07d}.png"
    if not path.exists():  # after a roll-back a moment comes again: the first picture is told
        write_bytes(path, plots.grid(drawn, GRID_COLUMNS))
    place.journal.add_picture(step, title, path, "progress")
