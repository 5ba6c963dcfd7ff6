"""The training loops, as generators.

A loop yields after every update what it did; whoever consumes it decides what to log, to save and
when to stop. Randomness inside an update (latent noise, dropout) comes from torch's global
generator, seeded anew at each step from (seed, step): a resumed run therefore repeats an
uninterrupted one bit for bit, with no random state to save.

On a GPU the updates of models that bear it are replayed as CUDA graphs
(models/training/captured.py); there the models are told the step, or the progress, in a tensor.
Batches that are cut into shards (models/training/sharding.py) are computed step by step everywhere.
"""

from collections.abc import Callable, Iterator
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
from models.training.config import FitConfig
from models.training.sharding import Shards, shards_of

CHECKED_EVERY = 25
"""Steps on a GPU between two questions whether everything is still finite."""


class Diverged(RuntimeError):
    """A loss or a gradient stopped being finite; the weights are those before the bad update."""


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
    shards, buffers = shards_of(config), list(model.buffers())
    if shards is None and can_be_captured(model, parameters):
        yield from captured_likelihood_steps(model, optimizer, batch_at, config, start)
        return
    model.train()
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * config.rate_at(step)
        if shards is None:
            torch.manual_seed(seed_at(config.seed, step, NOISE_STREAM))
            terms = model.losses(batch_at(step), step)  # type: ignore[operator]
            optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()
        else:
            terms_of = _of_shards(model, batch_at(step), config, step, shards)
            terms = shards.backward(terms_of, "loss", parameters, buffers)
        gradient_norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        if not torch.isfinite(terms["loss"] + gradient_norm):
            raise Diverged(
                f"step {step + 1}: loss {float(terms['loss'].detach())}, gradient norm"
                f" {float(gradient_norm)}; lower the learning rate ({config.learning_rate})"
            )
        optimizer.step()
        if shards is not None:
            shards.agree(gradient_norm)
        yield Step(step + 1, {name: value.detach() for name, value in terms.items()})
        model.train()  # the consumer may have evaluated


def _of_shards(
    model: nn.Module, batch: Any, config: FitConfig, step: int, shards: Shards
) -> Callable[[int], dict[str, Tensor]]:
    """What gives the losses of one shard of a batch, with the noise of that shard."""

    def terms_of(shard: int) -> dict[str, Tensor]:
        torch.manual_seed(seed_at(config.seed, step, NOISE_STREAM, shard))
        terms: dict[str, Tensor] = model.losses(shards.part(batch, shard), step)  # type: ignore[operator]
        return terms

    return terms_of


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
            raise_if_broken(watch, ("",), config)
        yield Step(step + 1, dict(zip(names, told.unbind(), strict=True)))
        model.train()  # the consumer may have evaluated


def run_at(run: Captured, at: Tensor, step: int) -> Tensor:
    """Run an update that reads its step in `at`; gives a copy of what it tells."""
    at.fill_(step)
    return run().clone()


def raise_if_broken(watch: Watch, networks: tuple[str, ...], config: FitConfig) -> None:
    """Raise Diverged if a recorded update was not finite; networks: names, or one empty one."""
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
