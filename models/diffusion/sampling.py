"""Samples of a diffusion model: noise, carried along the learned velocity in a few steps.

Solvers of the ODE: Euler's; Heun's, of second order with two velocities a step; and a multistep one
(Adams and Bashforth), of second order too, which takes the last step's velocity for the second one.
"""

from itertools import pairwise

import torch
from torch import Tensor

from models.diffusion.config import DiffusionConfig
from models.diffusion.networks import VelocityNetwork
from models.training.batches import generator_at

SAMPLE_STREAM = 41
DRAWN_AT_ONCE = 1024
"""Samples whose ODE is solved in one go: bounds memory. A block of noise depends on its place."""


@torch.no_grad()
def sample(
    network: VelocityNetwork,
    num_samples: int,
    seed: int,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    *,
    steps: int | None = None,
    guidance: float | None = None,
) -> Tensor:
    """Images (N, C, H, W) float in [0, 1]; the same for the same seed.

    Without labels a class-conditional network takes each class in turn. A temperature below 1
    draws noise nearer to the middle: cleaner, less varied images. steps and guidance: those of
    the network's configuration unless given. torch's global generator is not touched.
    """
    config = network.config
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if labels is None and config.num_classes:
        labels = torch.arange(num_samples) % config.num_classes
    noise = noise_of(config, num_samples, seed) * config.sampling_spread * temperature
    return images_of(network, noise, labels, steps=steps, guidance=guidance)


def noise_of(config: DiffusionConfig, num_samples: int, seed: int) -> Tensor:
    """The noise that a seed's samples start from: (N, C, H, W), the same on every device."""
    generator = generator_at(seed, 0, SAMPLE_STREAM)
    return torch.randn(num_samples, *config.shape, generator=generator)


@torch.no_grad()
def images_of(
    network: VelocityNetwork,
    noise: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int | None = None,
    guidance: float | None = None,
) -> Tensor:
    """The images that given noise (N, C, H, W) is carried to: (N, C, H, W) float in [0, 1]."""
    config, device = network.config, network.mean.device
    steps = config.sampling_steps if steps is None else steps
    guidance = config.guidance if guidance is None else guidance
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if guidance != 1 and config.label_dropout == 0:
        raise ValueError(
            f"guidance must be 1, got {guidance}: this network was not trained without classes"
            " (label_dropout)"
        )
    parts = []
    for start in range(0, len(noise), DRAWN_AT_ONCE):
        part = noise[start : start + DRAWN_AT_ONCE].to(device)
        chosen = None if labels is None else labels[start : start + DRAWN_AT_ONCE].to(device)
        parts.append(network.images_of(carried(network, part, chosen, steps, guidance)))
    return torch.cat(parts)


def carried(
    network: VelocityNetwork, points: Tensor, labels: Tensor | None, steps: int, guidance: float
) -> Tensor:
    """Where the velocity carries points (B, C, H, W) from the time 0 to 1."""

    def velocity_at(x: Tensor, time: float) -> Tensor:
        times = x.new_full((len(x),), time)
        velocity: Tensor = network(x, times, labels)
        if guidance != 1:
            assert labels is not None, "guidance is away from the mean of all classes to one"
            no_class = torch.full_like(labels, network.config.num_classes)
            velocity = torch.lerp(network(x, times, no_class), velocity, guidance)
        return velocity

    solver, x, last = network.config.solver, points, None
    for now, then in pairwise(sampling_times(network.config, steps)):
        width, velocity = then - now, velocity_at(x, now)
        mean = velocity
        if solver == "heun" and then < 1:  # at the time 1 there is nothing left to learn
            mean = (velocity + velocity_at(x + width * velocity, then)) / 2
        elif solver == "multistep" and last is not None:
            before, width_before = last
            mean = velocity + (velocity - before) * (width / width_before / 2)
        x, last = x + width * mean, (velocity, width)
    return x


def sampling_times(config: DiffusionConfig, steps: int) -> list[float]:
    """From 0 to 1, as close as `time_shift` says: (steps + 1,)."""
    even = [index / steps for index in range(steps + 1)]
    return [u / (u + config.time_shift * (1 - u)) for u in even]
