"""What a registered n-gram model answers with; this module travels inside each version."""

from typing import Any

from torch import Tensor

from models.ngram.config import NgramConfig
from models.ngram.model import NgramModel

DATA = "text"


def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> NgramModel:
    """The model of a configuration and counts, ready to write."""
    return NgramModel.from_tensors(NgramConfig(**config), tensors)
