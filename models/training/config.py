"""How long and how fast a network is trained."""

import math
from dataclasses import dataclass
from typing import Literal

from models.settings import Derived, check_limits, setting

MAX_STEPS = 10_000_000

Schedule = Literal["cosine", "wsd"]


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
    """The decay ends at this fraction of the peak."""
    schedule: Schedule = "cosine"
    """"cosine" lets the rate fall over all steps. "wsd" (warm-up, stable, decay: Hu et al. 2024)
    holds it until a linear decay at the end; what was trained before it can be trained further."""
    decay_fraction: float = setting(0.2, ge=0, le=1)
    """Of the steps, how many at the end the decay of the schedule "wsd" takes."""
    warmup_steps: int = setting(50, ge=0, le=MAX_STEPS)
    """Steps of linear warm-up."""
    weight_decay: float = setting(0.0, ge=0, le=100)
    """Weights shrink by this much of the learning rate at each step (AdamW)."""
    gradient_clip: float = setting(1.0, gt=0, le=1e9)
    """Largest global norm of the gradient; longer ones are scaled down to it."""
    shards: int = setting(1, ge=1, le=64)
    """Parts of equal size into which each batch is cut. Their gradients are computed apart and
    added in a fixed order, so that several processes can share them (--processes) and the weights
    do not depend on how many there are. What an example shares with its batch (pairs, packs, spread
    times) it then shares with its part. 1 computes the batch at once."""
    seed: int = setting(0, ge=0, lt=2**31, fixed_by="--seed")
    """Of the initial weights, the batches and the noise."""

    def __post_init__(self) -> None:
        check_limits(self)
        if self.batch_size % self.shards:
            raise ValueError(
                f"batch_size must be a multiple of shards, got {self.batch_size} and {self.shards}"
            )

    @property
    def decay_start(self) -> int:
        """Steps before the decay of the schedule "wsd", which no number of all steps changes."""
        return self.steps - round(self.steps * self.decay_fraction)

    def rate_at(self, step: int) -> float:
        """The learning rate of one step as a fraction of its peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        floor = self.final_learning_rate_fraction
        if self.schedule == "wsd":
            return 1 - (1 - floor) * self.progress_at(step)
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return floor + (1 - floor) * cosine

    def progress_at(self, step: int) -> float:
        """From 0 to 1, by which what changes over the training (a penalty) changes.

        With the schedule "wsd" it stays at 0 until the decay begins.
        """
        if self.schedule == "wsd":
            since = max(0, step - self.decay_start)
            return since / max(1, self.steps - self.decay_start)
        return step / self.steps


def share_of_steps(share: int, at_most: int) -> Derived:
    """A number of steps: one in `share` of all, at most so many.

    With the schedule "wsd" it is the most, whatever the number of steps: a longer training
    begins like a shorter one.
    """

    def by(steps: int, schedule: Schedule) -> int:
        return at_most if schedule == "wsd" else min(at_most, steps // share)

    return Derived(("training.steps", "training.schedule"), by)
