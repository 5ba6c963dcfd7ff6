"""What is shown of a model: pictures while it trains, and what a version carries along."""

import numpy as np
import torch
from torch import Tensor

from tasks import plots
from tasks.data.ingestion import Corpus, ImageSet, load_images, load_text
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


def example_images(images: ImageSet, number: int = 16) -> Tensor:
    """A few held-out images that a version carries along: (N, C, H, W) uint8."""
    pixels, _ = load_images(images, "test")
    chosen = np.linspace(0, len(pixels) - 1, number).astype(int)
    return torch.from_numpy(pixels[chosen].copy())


def default_prompt(corpus: Corpus, most_characters: int = 40) -> str:
    """The beginning of a held-out line: what a token model continues when nobody asks."""
    text = load_text(corpus, "validation")
    lines = text.split("\n")[1:] or [text.partition(" ")[2] or text]
    line = next((line for line in lines if len(line) >= most_characters // 2), "\n")
    cut = line[:most_characters]
    return cut if len(line) <= most_characters else cut.rsplit(" ", 1)[0] or cut
