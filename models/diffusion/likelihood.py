"""How likely images are under a diffusion model, by the change of variables along its ODE.

Every image is carried back to noise; its log-density is that of the noise minus the integral of
the velocity's divergence on the way (Chen et al. 2018, "Neural ordinary differential equations";
Song et al. 2021, "Score-based generative modeling through stochastic differential equations").
Levels of pixels are made continuous by uniform noise of one level's width (Theis et al. 2016),
which makes the number a bound: the density of an image in its cell is averaged in log space, so
levels are at least as likely as it says. Training adds the same noise.
The model is what its ODE has made at the time `END`, scaled back to the size of data: later the
velocity of a network is no longer the gradient of anything. That is a model too, its density is
exact, and its noise is far below that of one level.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from models.diffusion.networks import VelocityNetwork
from models.training.batches import generator_at

END = 1 - 1e-3
START_LOGIT = -3.0
"""Between the times 0 and sigmoid(-3) the velocity hardly changes: one step leads across."""
LIKELIHOOD_STREAM = 42
CARRIED_AT_ONCE = 256
"""Images whose ODE is solved in one go: bounds memory, changes no number."""


def log_likelihood(
    network: VelocityNetwork,
    pixels: Tensor,
    labels: Tensor | None = None,
    *,
    seed: int = 0,
    steps: int = 24,
    num_probes: int = 1,
) -> Tensor:
    """A lower bound on log p(x), or log p(x | class), of each image, in nats: (N,) float64.

    pixels: (N, C, H, W) uint8; labels: (N,) int64 for a network that knows classes. Its noise
    depends on seed and an image's index alone. steps: of Runge and Kutta's fourth order, each with
    four velocities and their divergences. num_probes: random directions of +-1 by which the
    divergence is estimated (Hutchinson 1989), which is unbiased with a variance of 2 / num_probes
    times the sum of the squares of the symmetric Jacobian's elements off its diagonal; 0 takes
    every pixel's own direction, which is exact and costs as many backward passes as there are
    pixels and channels.
    """
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be levels, of uint8, got {pixels.dtype}")
    if steps < 2 or num_probes < 0:
        raise ValueError(
            f"steps must be at least 2 and num_probes at least 0, got {steps} and {num_probes}"
        )
    found = []
    for start in range(0, len(pixels), CARRIED_AT_ONCE):
        part = pixels[start : start + CARRIED_AT_ONCE]
        chosen = None if labels is None else labels[start : start + CARRIED_AT_ONCE]
        generators = [generator_at(seed, start + i, LIKELIHOOD_STREAM) for i in range(len(part))]
        dither = torch.stack([torch.rand(part.shape[1:], generator=g) for g in generators])
        probes = _probes(part.shape, num_probes, generators).to(part.device)
        images = (part + dither.to(part.device) - 0.5) / 255
        points = network.normalised(images)
        level = 1 / 255 / float(network.deviation)  # its width in normalised units
        density = log_density(network, points, chosen, probes, steps)
        found.append(density + points[0].numel() * math.log(level))
    return torch.cat(found)


def bits_per_dimension(nats: Tensor, num_dimensions: int) -> Tensor:
    """Log-likelihoods in nats as bits for each pixel and channel: smaller is better."""
    return -nats / (num_dimensions * math.log(2))


@torch.no_grad()
def log_density(
    network: VelocityNetwork,
    points: Tensor,
    labels: Tensor | None,
    probes: Tensor,
    steps: int,
) -> Tensor:
    """Log-density of normalised images (B, C, H, W), in nats: (B,) float64.

    probes: (K, B, C, H, W); the divergence is the sum over them of probe . Jacobian . probe.
    """
    x, gained = points * END, points.new_zeros(len(points), dtype=torch.float64)
    times = likelihood_times(steps)
    for now, then in pairwise(times):
        width = then - now  # negative: from the data to the noise
        v1, d1 = _velocity(network, x, now, labels, probes)
        v2, d2 = _velocity(network, x + width / 2 * v1, now + width / 2, labels, probes)
        v3, d3 = _velocity(network, x + width / 2 * v2, now + width / 2, labels, probes)
        v4, d4 = _velocity(network, x + width * v3, then, labels, probes)
        x = x + width / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        gained += width / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    size = points[0].numel()
    at_noise = -(x.double().square().flatten(1).sum(1) + size * math.log(2 * math.pi)) / 2
    return at_noise + gained + size * math.log(END)


def likelihood_times(steps: int) -> list[float]:
    """From END to 0, evenly by the logit, the last step apart: (steps + 1,)."""
    last = math.log(END / (1 - END))
    logits = torch.linspace(last, START_LOGIT, steps, dtype=torch.float64)
    return [*logits.sigmoid().tolist(), 0.0]


def _velocity(
    network: VelocityNetwork, x: Tensor, time: float, labels: Tensor | None, probes: Tensor
) -> tuple[Tensor, Tensor]:
    """The velocity at points (B, C, H, W), and its divergence (B,) by the probes."""
    with torch.enable_grad():
        points = x.detach().requires_grad_(True)
        velocity = network(points, x.new_full((len(x),), time), labels)
        divergence = x.new_zeros(len(x), dtype=torch.float64)
        for index, probe in enumerate(probes):
            (pulled,) = torch.autograd.grad(
                velocity, points, probe, retain_graph=index + 1 < len(probes)
            )
            divergence += (pulled * probe).flatten(1).sum(1).double()
    return velocity.detach(), divergence


def _probes(shape: torch.Size, number: int, generators: list[torch.Generator]) -> Tensor:
    """Directions (K, B, C, H, W) whose outer products sum to the identity, at least on average."""
    size = math.prod(shape[1:])
    if number == 0:
        basis = torch.eye(size).view(size, 1, *shape[1:])
        return basis.expand(size, *shape)
    signs = [torch.randint(2, (number, *shape[1:]), generator=g) for g in generators]
    return (torch.stack(signs, dim=1) * 2.0 - 1) / math.sqrt(number)
