"""What each preset counts and tunes of the n-gram model."""

from typing import Any

from models.ngram.config import NgramConfig, TuningConfig
from models.presets import Preset, TextShape
from models.settings import Groups, Recipe


def _defaults(preset: Preset, shape: TextShape) -> Groups:
    """The n-gram model for tokens of a scheme, and how to tune it; counting knows no chance."""
    if shape.scheme == "bpe":
        order = {"quick": 5, "standard": 7, "full": 7}[preset]
    else:
        order = {"quick": 9, "standard": 10, "full": 12}[preset]
    held_out, iterations = {
        "quick": (30_000, 30),
        "standard": (50_000, 60),
        "full": (100_000, 100),
    }[preset]
    return {
        "model": {"order": order},
        "tuning": {"max_held_out": held_out, "num_iterations": iterations},
    }


def _check(shape: TextShape, model: NgramConfig, **_others: Any) -> None:
    if model.order > shape.num_tokens:
        raise ValueError(
            f"order is {model.order}, and the training text has {shape.num_tokens:,} tokens"
        )
    if model.sentence_end is not None and model.sentence_end >= shape.vocabulary_size:
        raise ValueError(
            f"sentence_end is the token id {model.sentence_end}, and the vocabulary has"
            f" {shape.vocabulary_size} tokens"
        )


ngram_recipe = Recipe({"model": NgramConfig, "tuning": TuningConfig}, _defaults, _check)
