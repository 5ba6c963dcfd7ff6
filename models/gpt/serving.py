"""What a registered GPT answers with; this module travels inside each version."""

from typing import Any

from torch import Tensor

from models.gpt.config import GptConfig
from models.gpt.model import Gpt

DATA = "text"


def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> Gpt:
    """The model of a configuration and weights, ready to write."""
    model = Gpt(GptConfig(**config))
    model.load_state_dict(tensors)
    return model.eval()
