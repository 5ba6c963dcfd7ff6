"""The training loops, as generators.

A loop yields after every update what it did; whoever consumes it decides what to log, to save and
when to stop. Randomness inside an update (latent noise, dropout) comes from torch's global
generator, seeded anew at each step from (seed, step): a resumed run therefore repeats an
uninterrupted one bit for bit, with no random state to save.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.batches import NOISE_STREAM, seed_at


class Diverged(RuntimeError):
    """A loss or a gradient stopped being finite; the weights are those before the bad update."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """How long and how fast to train."""

    steps: int = 1000
    batch_size: int = 128
    """Examples per step: images, or token windows."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached after the warm-up."""
    final_learning_rate_fraction: float = 0.05
    """The cosine decay ends at this fraction of the peak."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    """Largest global norm of the gradient."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.final_learning_rate_fraction <= 1:
            raise ValueError(
                "final_learning_rate_fraction must lie between 0 and 1, got"
                f" {self.final_learning_rate_fraction}"
            )
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must lie between 0 and 2147483647, got {self.seed}")

    def rate_at(self, step: int) -> float:
        """The learning rate of one step as a fraction of its peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        floor = self.final_learning_rate_fraction
        return floor + (1 - floor) * cosine


@dataclass(frozen=True, slots=True)
class Step:
    """What one update did."""

    step: int
    """Updates done so far, this one included."""
    terms: dict[str, Tensor]
    """Detached scalars by name; "loss" is the one that was minimised."""

    def numbers(self) -> dict[str, float]:
        """The terms as floats. On a GPU this waits for the update to finish."""
        return {name: float(value) for name, value in self.terms.items()}


class LikelihoodModel(Protocol):
    """What `likelihood_steps` asks of a model."""

    def training_terms(self, batch: Any, step: int) -> dict[str, Tensor]:
        """Scalars by name for one batch; "loss" is minimised, the others are only reported."""
        ...


def likelihood_steps(
    model: nn.Module,
    optimizer: Optimizer,
    batch_at: Callable[[int], Any],
    config: FitConfig,
    start: int = 0,
) -> Iterator[Step]:
    """Minimise `model.training_terms(batch, step)["loss"]`, one update for each step from `start`.

    Each parameter group's `initial_lr` (or else its `lr`) is the peak that the schedule scales.
    Raises Diverged before an update whose loss or gradient is not finite.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    model.train()
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * config.rate_at(step)
        torch.manual_seed(seed_at(config.seed, step, NOISE_STREAM))
        terms = model.training_terms(batch_at(step), step)  # type: ignore[operator]
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        gradient_norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        if not torch.isfinite(terms["loss"] + gradient_norm):
            raise Diverged(
                f"step {step + 1}: loss {float(terms['loss'])}, gradient norm"
                f" {float(gradient_norm)}; lower the learning rate ({config.learning_rate})"
            )
        optimizer.step()
        yield Step(step + 1, {name: value.detach() for name, value in terms.items()})
        model.train()  # the consumer may have evaluated


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move `average` towards `model`: a <- decay * a + (1 - decay) * m, for every parameter.

    Buffers are copied. `decay` is per step, in [0, 1).
    """
    averages = list(average.parameters())
    torch._foreach_lerp_(averages, list(model.parameters()), 1 - decay)  # type: ignore[arg-type]
    for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(theirs)
