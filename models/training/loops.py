"""The training loops, as generators.

A loop yields after every update what it did; whoever consumes it decides what to log, to save and
when to stop. Randomness inside an update (latent noise, dropout) comes from torch's global
generator, seeded anew at each step from (seed, step): a resumed run therefore repeats an
uninterrupted one bit for bit, with no random state to save.

On a GPU the updates of models that bear it are replayed as CUDA graphs
(models/training/captured.py); there the models are told the step, or the progress, in a tensor.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.training.batches import NOISE_STREAM, seed_at
from models.training.captured import (
    Captured,
    Watch,
    can_be_captured,
    held,
    put_on_device,
    refill,
    stacked,
    step_of,
)

CHECKED_EVERY = 25
"""Steps on a GPU between two questions whether everything is still finite."""


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

    def losses(self, batch: Any, step: int | Tensor) -> dict[str, Tensor]:
        """Scalars by name for one batch; "loss" is minimised, the others are only reported.

        step: in a recorded update a scalar on the device.
        """
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
    Raises Diverged before an update whose loss or gradient is not finite; on a GPU up to
    CHECKED_EVERY steps later, with the weights of that update.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if can_be_captured(model, parameters):
        yield from captured_likelihood_steps(model, optimizer, batch_at, config, start)
        return
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


def captured_likelihood_steps(
    model: nn.Module,
    optimizer: Optimizer,
    batch_at: Callable[[int], Any],
    config: FitConfig,
    start: int = 0,
) -> Iterator[Step]:
    """The same updates as `likelihood_steps`, in the form that a GPU can record."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    device = parameters[0].device
    watch, at = Watch(device), torch.zeros((), device=device)
    put_on_device(optimizer, device, watch)
    names: list[str] = []
    model.train()
    if start >= config.steps:
        return
    batch = held(batch_at(start))

    def update() -> Tensor:
        terms = model.losses(batch, at)  # type: ignore[operator]
        names[:] = terms
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        watch.look(0, at, terms["loss"], norm)
        step_of(optimizer)
        return stacked(terms)

    run = Captured(update, device, is_strict=getattr(model, "needs_strict_kernels", False))
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"].fill_(group["initial_lr"] * config.rate_at(step))
        torch.manual_seed(seed_at(config.seed, step, NOISE_STREAM))
        refill(batch, batch_at(step))
        told = run_at(run, at, step)
        if (step + 1) % CHECKED_EVERY == 0 or step + 1 == config.steps:
            _raise_if_broken(watch, ("",), config)
        yield Step(step + 1, dict(zip(names, told.unbind(), strict=True)))
        model.train()  # the consumer may have evaluated


def run_at(run: Captured, at: Tensor, step: int) -> Tensor:
    """Run an update that reads its step in `at`; gives a copy of what it tells."""
    at.fill_(step)
    return run().clone()


def _raise_if_broken(watch: Watch, networks: tuple[str, ...], config: FitConfig) -> None:
    found = watch.verdict()
    if found is not None:
        network, step, loss, norm = found
        raise Diverged(
            f"step {step + 1}: {networks[network]}loss {loss}, gradient norm {norm};"
            f" lower the learning rate ({config.learning_rate})"
            f"{' or raise the penalty' if networks[network] else ''}"
        )


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float | Tensor) -> None:
    """Move `average` towards `model`: a <- decay * a + (1 - decay) * m, for every parameter.

    Buffers are copied. `decay` is per step, in [0, 1); a scalar on the device of the weights is
    read there.
    """
    averages: list[Tensor] = list(average.parameters())
    if isinstance(decay, Tensor):
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, torch._foreach_mul(list(model.parameters()), 1 - decay))
    else:
        torch._foreach_lerp_(averages, list(model.parameters()), 1 - decay)
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
        self, batch: Any, fake: Tensor, progress: float | Tensor, scale: float | Tensor
    ) -> dict[str, Tensor]:
        """Scalars by name; "discriminator_loss" is minimised. `scale` multiplies penalties.

        progress, scale: in a recorded update scalars on the device.
        """
        ...

    def generator_terms(
        self, batch: Any, fake: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
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
    Raises Diverged before an update whose loss or gradient is not finite; on a GPU up to
    CHECKED_EVERY steps later, with the weights of that update.
    """
    scales = scales or Unscaled()
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
    if can_be_captured(model, optimizers["generator"].param_groups[0]["params"]):
        yield from captured_adversarial_steps(model, optimizers, batch_at, config, start, scales)
        return
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


def captured_adversarial_steps(
    model: AdversarialModel,
    optimizers: Mapping[str, Optimizer],
    batch_at: Callable[[int], Any],
    config: FitConfig,
    start: int,
    scales: Scales,
) -> Iterator[Step]:
    """The same updates as `adversarial_steps`, in the form that a GPU can record."""
    turns, networks = model.discriminator_updates, ("discriminator", "generator")
    device = optimizers["generator"].param_groups[0]["params"][0].device
    watch = Watch(device)
    at, progress, penalty, decay = (torch.zeros((), device=device) for _ in range(4))
    for optimizer in optimizers.values():
        put_on_device(optimizer, device, watch)
    names: list[str] = []
    if start >= config.steps:
        return
    batches = tuple(held(batch_at(start * turns + turn)) for turn in range(turns))

    def descend(network: int, terms: dict[str, Tensor]) -> None:
        name = networks[network]
        optimizer, loss = optimizers[name], terms[f"{name}_loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        watch.look(network, at, loss, norm)
        step_of(optimizer)
        terms[f"{name}_gradient_norm"] = norm

    def update() -> Tensor:
        model.discriminator.requires_grad_(True)
        for batch in batches:
            fake = model.draw(batch)
            terms = model.discriminator_terms(batch, fake, progress, penalty)
            descend(0, terms)
        model.discriminator.requires_grad_(False)
        terms |= model.generator_terms(batch, fake, progress)
        descend(1, terms)
        update_ema(model.average, model.generator, decay)
        names[:] = terms
        return stacked(terms)

    run = Captured(update, device)
    for step in range(start, config.steps):
        rate = config.rate_at(step) * scales.learning_rate_scale
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"].fill_(group["initial_lr"] * rate)
        torch.manual_seed(seed_at(config.seed, step, NOISE_STREAM))
        for turn, memory in enumerate(batches):
            refill(memory, batch_at(step * turns + turn))
        progress.fill_(step / config.steps)
        penalty.fill_(scales.penalty_scale)
        decay.fill_(model.average_decay_at(step))
        told = run_at(run, at, step)
        if (step + 1) % CHECKED_EVERY == 0 or step + 1 == config.steps:
            _raise_if_broken(watch, tuple(f"{name} " for name in networks), config)
        yield Step(step + 1, dict(zip(names, told.unbind(), strict=True)))


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
