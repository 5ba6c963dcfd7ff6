"""Why an n-gram model wrote what it wrote: for each token, how much of the text before it decided.

A model of order n mixes what followed the last 0, 1, ... n - 1 tokens in its training text. The
context that adds the largest part to a token's probability is said to have decided it.
"""

from dataclasses import dataclass
from typing import Any

from models.tokenizer import readable


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One written token, and what spoke for it."""

    text: str
    probability: float
    """The model's probability of the token after all that was written before it."""
    context_length: int
    """How many tokens before it the deciding order looked at."""
    context: str
    """These tokens."""
    part: float
    """What that order alone added to the probability."""


def choices(model: Any, prompt: str, text: str) -> list[Choice]:
    """How each token of a text that continues a prompt came about.

    model: a loaded version of the family "ngram" (`tasks.packaging.loaded`), with its `tokenizer`
    and its `model`. Bytes of characters that the tokenizer does not know are tokens of their own.
    """
    past = model.tokenizer.encode(prompt).tolist()
    found = []
    for token in model.tokenizer.encode(text).tolist():
        levels = model.model.explain(past, token)
        deciding = max(levels, key=lambda level: level.weight * level.share)
        found.append(
            Choice(
                text=_written(model, [token]),
                probability=levels[-1].probability,
                context_length=len(deciding.context),
                context=_written(model, deciding.context),
                part=deciding.weight * deciding.share,
            )
        )
        past.append(token)
    return found


def _written(model: Any, tokens: Any) -> str:
    return readable(model.tokenizer.decode(list(tokens)))
