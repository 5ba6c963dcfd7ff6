"""The training loops, as generators.

A loop yields after every update what it did; whoever consumes it decides what to log, to save and
when to stop. Randomness inside an update (latent noise, dropout) comes from torch's global
generator, seeded anew at each step from (seed, step): a resumed run therefore repeats an
uninterrupted one bit for bit, with no random state to save.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.training.batches import NOISE_STREAM, seed_at


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
    measured: dict[str, float] = field(default_factory=dict)
    """What was measured after it, on held-out data."""
    remarks: tuple[str, ...] = ()
    """What a person should read of it."""

    def numbers(self) -> dict[str, float]:
        """The terms as floats. On a GPU this waits for the update to finish."""
        return {name: float(value) for name, value in self.terms.items()}


class LikelihoodModel(Protocol):
    """What `likelihood_steps` asks of a model."""

    def losses(self, batch: Any, step: int) -> dict[str, Tensor]:
        """Scalars by name for one batch; "loss" is minimised, the others are only reported."""
        ...


def likelihood_steps(
    model: nn.Module,
    optimizer: Optimizer,
    batch_at: Callable[[int], Any],
    config: FitConfig,
    start: int = 0,
) -> Iterator[Step]:
    """Minimise `model.losses(batch, step)["loss"]`, one update for each step from `start`.

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
        terms = model.losses(batch_at(step), step)  # type: ignore[operator]
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        gradient_norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        if not torch.isfinite(terms["loss"] + gradient_norm):
            raise Diverged(
                f"step {step + 1}: loss {float(terms['loss'].detach())}, gradient norm"
                f" {float(gradient_norm)}; lower the learning rate ({config.learning_rate})"
            )
        optimizer.step()
        yield Step(step + 1, {name: value.detach() for name, value in terms.items()})
        model.train()  # the consumer may have evaluated


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move `average` towards `model`: a <- decay * a + (1 - decay) * m, for every parameter.

    Buffers are copied. `decay` is per step, in [0, 1).
    """
    averages = list(average.parameters())
    torch._foreach_lerp_(averages, list(model.parameters()), 1 - decay)  # type: ignore[arg-type]
    for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(theirs)


class AdversarialModel(Protocol):
    """What `adversarial_steps` asks of a pair of networks."""

    @property
    def generator(self) -> nn.Module:
        """From noise to examples."""
        ...

    @property
    def discriminator(self) -> nn.Module:
        """From examples to scores."""
        ...

    @property
    def average(self) -> nn.Module:
        """The moving average of the generator."""
        ...

    @property
    def discriminator_updates(self) -> int:
        """Updates of the discriminator for each one of the generator."""
        ...

    def draw(self, batch: Any) -> Tensor:
        """Generated examples to set against a batch of real ones."""
        ...

    def discriminator_terms(
        self, batch: Any, fake: Tensor, progress: float, scale: float
    ) -> dict[str, Tensor]:
        """Scalars by name; "discriminator_loss" is minimised. `scale` multiplies penalties."""
        ...

    def generator_terms(self, batch: Any, fake: Tensor, progress: float) -> dict[str, Tensor]:
        """Scalars by name; "generator_loss" is minimised."""
        ...

    def average_decay_at(self, step: int) -> float:
        """How much of the averaged generator one step keeps."""
        ...


class Scales(Protocol):
    """Factors by which a control changes the recipe while it runs."""

    learning_rate_scale: float
    penalty_scale: float


@dataclass(slots=True)
class Unscaled:
    """The recipe as it is."""

    learning_rate_scale: float = 1.0
    penalty_scale: float = 1.0


def adversarial_steps(
    model: AdversarialModel,
    optimizers: Mapping[str, Optimizer],
    batch_at: Callable[[int], Any],
    config: FitConfig,
    start: int = 0,
    scales: Scales | None = None,
) -> Iterator[Step]:
    """Update "discriminator" and "generator" (names in `optimizers`) in turn, then the average.

    The generated examples are drawn once for both updates. With several discriminator updates
    each sees its own batch, and the generator plays against the last of them.
    Raises Diverged before an update whose loss or gradient is not finite.
    """
    scales = scales or Unscaled()
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
    for step in range(start, config.steps):
        rate, progress = config.rate_at(step) * scales.learning_rate_scale, step / config.steps
        torch.manual_seed(seed_at(config.seed, step, NOISE_STREAM))
        model.discriminator.requires_grad_(True)
        for turn in range(model.discriminator_updates):
            batch = batch_at(step * model.discriminator_updates + turn)
            fake = model.draw(batch)
            terms = model.discriminator_terms(batch, fake, progress, scales.penalty_scale)
            norm = _descend("discriminator", optimizers, terms, rate, config, step)
        terms["discriminator_gradient_norm"] = norm
        model.discriminator.requires_grad_(False)  # the generator's gradient needs none of its own
        terms |= model.generator_terms(batch, fake, progress)
        norm = _descend("generator", optimizers, terms, rate, config, step)
        terms["generator_gradient_norm"] = norm
        update_ema(model.average, model.generator, model.average_decay_at(step))
        yield Step(step + 1, {name: value.detach() for name, value in terms.items()})


def _descend(
    name: str,
    optimizers: Mapping[str, Optimizer],
    terms: dict[str, Tensor],
    rate: float,
    config: FitConfig,
    step: int,
) -> Tensor:
    """One update of one network; gives the norm of its gradient before clipping."""
    optimizer, loss = optimizers[name], terms[f"{name}_loss"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
    if not torch.isfinite(loss + norm):
        raise Diverged(
            f"step {step + 1}: {name} loss {float(loss.detach())}, gradient norm {float(norm)};"
            f" lower the learning rate ({config.learning_rate}) or raise the penalty"
        )
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * rate
    optimizer.step()
    return norm
