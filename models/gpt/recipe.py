"""What each preset trains of the GPT."""

from dataclasses import replace
from typing import Any

from models.gpt.model import GptConfig
from models.presets import Preset, TextShape
from models.training.loops import FitConfig


def gpt_recipe(preset: Preset, shape: TextShape, seed: int) -> dict[str, Any]:
    """A GPT for a vocabulary, and for a training text of a number of tokens."""
    if preset == "full":
        config = GptConfig(
            vocabulary_size=shape.vocabulary_size,
            context_length=min(256, shape.num_tokens // 4),
            num_layers=6,
            num_heads=6,
            width=384,
            dropout=0.3,
            ngram_dropout=0.5,
            embedding_rate=0.3,
        )
        fit = FitConfig(
            steps=1400, batch_size=64, learning_rate=0.01, warmup_steps=100, weight_decay=0.1
        )
    else:
        config = GptConfig(
            vocabulary_size=shape.vocabulary_size,
            context_length=min(128, shape.num_tokens // 4),
            ngram_dropout=0.5,
        )
        steps, warmup = {"quick": (60, 10), "standard": (450, 20)}[preset]
        fit = FitConfig(steps=steps, batch_size=16, learning_rate=0.02, warmup_steps=warmup)
    fit = replace(fit, final_learning_rate_fraction=0.0, seed=seed)
    return {"config": config, "fit": fit}
