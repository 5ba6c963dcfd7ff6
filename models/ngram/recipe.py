"""What each preset counts and tunes of the n-gram model."""

from typing import Any

from models.ngram.backoff import NgramConfig
from models.ngram.tuning import TuningConfig
from models.presets import Preset, TextShape


def ngram_recipe(preset: Preset, shape: TextShape, _seed: int) -> dict[str, Any]:
    """The n-gram model for tokens of a scheme, and how to tune it; counting knows no chance."""
    if shape.scheme == "bpe":
        order = {"quick": 5, "standard": 7, "full": 7}[preset]
    else:
        order = {"quick": 9, "standard": 10, "full": 12}[preset]
    tuning = {
        "quick": TuningConfig(most_held_out=30_000, num_iterations=30),
        "standard": TuningConfig(most_held_out=50_000, num_iterations=60),
        "full": TuningConfig(most_held_out=100_000, num_iterations=100),
    }[preset]
    return {"config": NgramConfig(order=order), "tuning": tuning}
