"""The loop of two networks in competition, as a generator; see `models.training.loops`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
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
from models.training.loops import CHECKED_EVERY, Diverged, Step, raise_if_broken, run_at, update_ema
from models.training.sharding import Shards, shards_of


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
    Where batches are cut into shards, real and generated examples meet within a shard.
    Raises Diverged before an update whose loss or gradient is not finite; on a GPU up to
    CHECKED_EVERY steps later, with the weights of that update.
    """
    scales = scales or Unscaled()
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
    shards = shards_of(config)
    if shards is None and can_be_captured(model, optimizers["generator"].param_groups[0]["params"]):
        yield from captured_adversarial_steps(model, optimizers, batch_at, config, start, scales)
        return
    played = _played if shards is None else partial(_played_in_shards, shards=shards)
    for step in range(start, config.steps):
        terms = played(model, optimizers, batch_at, config, step, scales)
        update_ema(model.average, model.generator, model.average_decay_at(step))
        yield Step(step + 1, {name: value.detach() for name, value in terms.items()})


def _played(
    model: AdversarialModel,
    optimizers: Mapping[str, Optimizer],
    batch_at: Callable[[int], Any],
    config: FitConfig,
    step: int,
    scales: Scales,
) -> dict[str, Tensor]:
    """The updates of one step."""
    rate, progress = config.rate_at(step) * scales.learning_rate_scale, config.progress_at(step)
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
    return terms


def _played_in_shards(
    model: AdversarialModel,
    optimizers: Mapping[str, Optimizer],
    batch_at: Callable[[int], Any],
    config: FitConfig,
    step: int,
    scales: Scales,
    *,
    shards: Shards,
) -> dict[str, Tensor]:
    """The same, each update from the gradients of all shards; gives the mean terms."""
    rate, progress = config.rate_at(step) * scales.learning_rate_scale, config.progress_at(step)
    turns = model.discriminator_updates
    buffers = [*model.discriminator.buffers(), *model.generator.buffers()]
    drawn: dict[int, tuple[Any, Tensor]] = {}

    def of_discriminator(turn: int, batch: Any, shard: int) -> dict[str, Tensor]:
        torch.manual_seed(seed_at(config.seed, step, NOISE_STREAM, shard, turn))
        part = shards.part(batch, shard)
        drawn[shard] = part, model.draw(part)
        return model.discriminator_terms(*drawn[shard], progress, scales.penalty_scale)

    def of_generator(shard: int) -> dict[str, Tensor]:
        torch.manual_seed(seed_at(config.seed, step, NOISE_STREAM, shard, turns))
        return model.generator_terms(*drawn[shard], progress)

    def descend(name: str, terms_of: Callable[[int], dict[str, Tensor]]) -> dict[str, Tensor]:
        parameters = _parameters_of(optimizers[name])
        terms = shards.backward(terms_of, f"{name}_loss", parameters, buffers)
        norm = _applied(name, optimizers, terms, rate, config, step)
        shards.agree(norm)
        return {**terms, f"{name}_gradient_norm": norm}

    model.discriminator.requires_grad_(True)
    for turn in range(turns):
        batch = batch_at(step * turns + turn)
        terms = descend("discriminator", partial(of_discriminator, turn, batch))
    model.discriminator.requires_grad_(False)
    return terms | descend("generator", of_generator)


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
        progress.fill_(config.progress_at(step))
        penalty.fill_(scales.penalty_scale)
        decay.fill_(model.average_decay_at(step))
        told = run_at(run, at, step)
        if (step + 1) % CHECKED_EVERY == 0 or step + 1 == config.steps:
            raise_if_broken(watch, tuple(f"{name} " for name in networks), config)
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
    optimizers[name].zero_grad(set_to_none=True)
    terms[f"{name}_loss"].backward()  # type: ignore[no-untyped-call]
    return _applied(name, optimizers, terms, rate, config, step)


def _applied(
    name: str,
    optimizers: Mapping[str, Optimizer],
    terms: dict[str, Tensor],
    rate: float,
    config: FitConfig,
    step: int,
) -> Tensor:
    """Clip the gradient that is there and make the update; gives the norm before clipping."""
    optimizer, loss = optimizers[name], terms[f"{name}_loss"]
    norm = nn.utils.clip_grad_norm_(_parameters_of(optimizer), config.gradient_clip)
    if not torch.isfinite(loss + norm):
        raise Diverged(
            f"step {step + 1}: {name} loss {float(loss.detach())}, gradient norm {float(norm)};"
            f" lower the learning rate ({config.learning_rate}) or raise the penalty"
        )
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * rate
    optimizer.step()
    return norm


def _parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
