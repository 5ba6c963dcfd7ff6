"""How much work a training does, and what a recipe is told of the data."""

from dataclasses import dataclass
from typing import Literal

Preset = Literal["quick", "standard", "full"]
"""quick is a rehearsal (about ten seconds a model on two CPU cores), standard the default (up to a
minute each on the embedded data), full wants a GPU or patience. docs/experiments.md tells how the
numbers of the recipes were found."""


@dataclass(frozen=True, slots=True)
class ImageShape:
    """What a recipe is told of an image set."""

    channels: int
    height: int
    width: int
    num_classes: int = 0
    """0 for pictures without labels."""

    @property
    def side(self) -> int:
        """The longer side, in pixels."""
        return max(self.height, self.width)


@dataclass(frozen=True, slots=True)
class TextShape:
    """What a recipe is told of a token set."""

    scheme: str
    """"characters" or "bpe"."""
    vocabulary_size: int
    num_tokens: int
    """Of the training split."""
