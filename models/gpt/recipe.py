"""What each preset trains of the GPT."""

from typing import Any

from models.gpt.config import GptConfig
from models.presets import Preset, TextShape
from models.settings import Derived, Groups, Recipe
from models.training.config import FitConfig


def _defaults(preset: Preset, shape: TextShape) -> Groups:
    """A GPT for a vocabulary, and for a training text of a number of tokens."""
    model: dict[str, Any] = {"vocabulary_size": shape.vocabulary_size, "ngram_dropout": 0.5}
    if preset == "full":
        context, warmup = 256, 100
        model |= {"num_layers": 6, "num_heads": 6, "width": 384}
        model |= {"dropout": 0.3, "embedding_rate": 0.3}
        training = {"steps": 1400, "batch_size": 64, "learning_rate": 0.01, "weight_decay": 0.1}
    else:
        context = 128
        steps, warmup = {"quick": (60, 10), "standard": (450, 20)}[preset]
        training = {"steps": steps, "batch_size": 16, "learning_rate": 0.02}
    return {
        "model": {**model, "context_length": min(context, shape.num_tokens // 4)},
        "training": {
            **training,
            "warmup_steps": Derived(("training.steps",), lambda steps: min(warmup, steps // 6)),
            "final_learning_rate_fraction": 0.0,
        },
    }


def _check(shape: TextShape, model: GptConfig, **_others: Any) -> None:
    if model.context_length >= shape.num_tokens:
        raise ValueError(
            f"context_length is {model.context_length}, and the training text has"
            f" {shape.num_tokens:,} tokens; a window and the token after it must fit into it"
        )


gpt_recipe = Recipe({"model": GptConfig, "training": FitConfig}, _defaults, _check)
