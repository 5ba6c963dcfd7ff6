"""Diffusion: a network learns the velocity from noise to images, by flow matching.

An image and a noise are drawn, and a time; the network sees the point between them and learns the
velocity from the one to the other, by least squares. What it learns is the mean over all that pass
there, whose ODE carries the noise to the images' distribution (Lipman et al. 2023; Liu et al. 2023;
Albergo and Vanden-Eijnden 2023). Samples come from the moving average of its weights.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from models.diffusion.augmentation import moved
from models.diffusion.config import DiffusionConfig
from models.diffusion.networks import VelocityNetwork
from models.training.batches import ImageBatches
from models.training.config import FitConfig
from models.training.loops import Step, likelihood_steps, update_ema
from models.training.stored_data import Rows

Batch = tuple[Tensor, Tensor | None]


class Diffusion(nn.Module):
    """The network that learns and the averaged one that draws.

    A batch is a pair: images (B, C, H, W) float in [0, 1], and labels (B,) int64 or None.
    """

    is_capturable = True

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.network = VelocityNetwork(config)
        self.average = copy.deepcopy(self.network).requires_grad_(False)

    def normalise_by(self, pixels: Rows) -> None:
        """Take over mean and deviation of the training images (N, C, H, W) uint8; before training.

        Both are in the weights, so a resumed run and a loaded model need the images no more.
        """
        self.network.normalise_by(pixels)
        self.average.mean.copy_(self.network.mean)
        self.average.deviation.copy_(self.network.deviation)

    def losses(self, batch: Batch, step: int | Tensor) -> dict[str, Tensor]:
        """Squared errors of the velocity for a batch, per pixel, in units of the images' variance.

        Scalars: "loss" over all times, "loss_near_noise" before the middle of the way and
        "loss_near_data" after it. Of an untrained network the loss is about 1.3, and no network
        comes to 0: many ways cross at a point. Draws from torch's global generator, which
        `likelihood_steps` seeds at each step.
        """
        errors, times = self.squared_errors(batch)
        is_early = times < 0.5
        return {
            "loss": errors.mean(),
            "loss_near_noise": _mean_where(errors, is_early),
            "loss_near_data": _mean_where(errors, ~is_early),
        }

    def squared_errors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean squared error of the velocity at one random time of each image: (B,), (B,)."""
        config, (images, labels) = self.config, batch
        # levels fill their cells, as the likelihood wants it; see models/diffusion/likelihood.py
        images = images + (torch.rand_like(images) - 0.5) / 255
        moves = None
        if config.augment_probability > 0:
            images, moves = moved(images, config)
        if labels is not None and config.label_dropout > 0:
            dropped = torch.rand(len(labels), device=labels.device) < config.label_dropout
            labels = labels.masked_fill(dropped, config.num_classes)
        target = self.network.normalised(images)
        noise, times = torch.randn_like(target), self.times(len(images), images.device)
        points = torch.lerp(noise, target, times[:, None, None, None])
        velocity = self.network(points, times, labels, moves)
        return (velocity - (target - noise)).square().mean((1, 2, 3)), times

    def times(self, number: int, device: torch.device) -> Tensor:
        """Logit-normal times of a batch: (B,) in (0, 1), in random order.

        One from each of B slices of equal probability, so that no batch is all early or all late.
        """
        slices = torch.randperm(number, device=device) + torch.rand(number, device=device)
        normal = torch.special.ndtri((slices / number).clamp(1e-4, 1 - 1e-4))
        return torch.sigmoid(self.config.time_mean + self.config.time_spread * normal)

    def average_decay_at(self, step: int) -> float:
        """How much of the averaged network stays at one step (counted from 0)."""
        half_life = max(1.0, self.config.ema_half_life_fraction * step)
        return 0.5 ** (1 / half_life) if step > 0 else 0.0


def velocity_steps(
    model: Diffusion,
    optimizer: Optimizer,
    batch_at: Callable[[int], Batch],
    config: FitConfig,
    start: int = 0,
) -> Iterator[Step]:
    """`likelihood_steps`, and the averaged network follows after each update.

    Raises Diverged before an update whose loss or gradient is not finite.
    """
    for step in likelihood_steps(model, optimizer, batch_at, config, start):
        update_ema(model.average, model.network, model.average_decay_at(step.step - 1))
        yield step


def make_optimizer(model: Diffusion, fit: FitConfig) -> Optimizer:
    """AdamW on the network that learns; weight decay acts on weights, not on biases."""
    parameters = list(model.network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": fit.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=fit.learning_rate, betas=(0.9, 0.99), fused=True)


def labelled_batches(batches: ImageBatches, labels: Tensor | None) -> Callable[[int], Batch]:
    """Batches of images with their labels (N,) int64, or without any."""

    def at(step: int) -> Batch:
        return batches.at(step), None if labels is None else labels[batches.indices_at(step)]

    return at


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the chosen values (B,); 0 of none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
