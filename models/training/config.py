"""How long and how fast a network is trained."""

import math
from dataclasses import dataclass

from models.settings import check_limits, setting

MAX_STEPS = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """How long and how fast to train."""

    steps: int = setting(1000, ge=1, le=MAX_STEPS)
    """Updates of the weights."""
    batch_size: int = setting(128, ge=1, le=65_536)
    """Examples per step: images, or token windows."""
    learning_rate: float = setting(1e-3, gt=0, le=10)
    """Peak learning rate, reached after the warm-up."""
    final_learning_rate_fraction: float = setting(0.05, ge=0, le=1)
    """The cosine decay ends at this fraction of the peak."""
    warmup_steps: int = setting(50, ge=0, le=MAX_STEPS)
    """Steps of linear warm-up."""
    weight_decay: float = setting(0.0, ge=0, le=100)
    """Weights shrink by this much of the learning rate at each step (AdamW)."""
    gradient_clip: float = setting(1.0, gt=0, le=1e9)
    """Largest global norm of the gradient; longer ones are scaled down to it."""
    seed: int = setting(0, ge=0, lt=2**31, fixed_by="--seed")
    """Of the initial weights, the batches and the noise."""

    def __post_init__(self) -> None:
        check_limits(self)

    def rate_at(self, step: int) -> float:
        """The learning rate of one step as a fraction of its peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        floor = self.final_learning_rate_fraction
        return floor + (1 - floor) * cosine
