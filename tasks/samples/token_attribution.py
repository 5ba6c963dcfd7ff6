"""Why an n-gram model wrote what it wrote: for each token, how much of the text before it decided.

A model of order n mixes what followed the last 0, 1, ... n - 1 tokens in its training text. The
context that adds the largest part to a token's probability is said to have decided it.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from models.text.decoding import DecodingConfig, generate
from models.text.tokenizer import readable
from tasks.samples.drawing import CHOICES, TEMPERATURE_OF_CHOICES, Keep

NUM_TOKENS = 240


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenAttribution:
    """One written token, and what spoke for it."""

    text: str
    probability: float
    """The model's probability of the token after what was written before it, at temperature 1."""
    context_length: int
    """How many tokens before it the deciding order looked at."""
    context: str
    """These tokens."""
    part: float
    """What that order alone added to the probability."""


def choices(
    model: Any, prompt: str, *, num_tokens: int, temperature: float = 1.0, seed: int = 0
) -> list[TokenAttribution]:
    """Continue a prompt, and tell how each token of the text came about.

    model: a SampleModel whose `model` explains its probabilities by order. The text is the one
    that its `write_texts` writes with the same arguments.
    """
    past = model.tokenizer.encode(prompt).tolist()
    (drawn,) = generate(
        model.model,
        torch.from_numpy(np.array(past, np.int64)),
        num_tokens=num_tokens,
        config=DecodingConfig(temperature=temperature),
        seed=seed,
    ).tolist()
    found = []
    for token in drawn:
        levels = model.model.explain(past, token)
        deciding = max(levels, key=lambda level: level.weight * level.share)
        found.append(
            TokenAttribution(
                text=_written(model, [token]),
                probability=levels[-1].probability,
                context_length=len(deciding.context),
                context=_written(model, deciding.context),
                part=deciding.weight * deciding.share,
            )
        )
        past.append(token)
    return found


def attributed_text(model: Any, seed: int, keep: Keep) -> None:
    """The beginning of the gallery's text of temperature 0.8, with what decided each token."""
    temperature = TEMPERATURE_OF_CHOICES
    found = choices(model, model.prompt, num_tokens=NUM_TOKENS, temperature=temperature, seed=seed)
    told = json.dumps([asdict(choice) for choice in found], indent=2, ensure_ascii=False)
    keep(CHOICES, told.encode())


def _written(model: Any, tokens: Any) -> str:
    return readable(model.tokenizer.decode(list(tokens)))
