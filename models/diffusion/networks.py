"""The network of a diffusion model: the velocity by which noise becomes an image.

The way from a noise e to an image z is straight, x(t) = t z + (1 - t) e, and its velocity is z - e
(Lipman et al. 2023, "Flow matching for generative modeling"; Liu et al. 2023, "Flow straight and
fast"). What is learned is the mean velocity of all ways through a point. Of images that are
Gaussian and of variance 1 it is known, and the network starts with it: it learns the rest, which is
scaled so that it has a variance of about 1 at all times (after Karras et al. 2022, EDM).

A U-shaped network of convolutions, whose coarsest grid is flattened and passes dense layers: there
every part of an image sees every other one.
"""

import math
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.diffusion.config import DiffusionConfig

if TYPE_CHECKING:  # what a version draws with needs no training
    from models.training.stored_data import Rows

SUMMED_AT_ONCE = 200_000_000
"""Numbers of a data set whose moments are computed in one go; of more, a part at a time."""
GAIN = 1.6
"""Keeps the variance through a SiLU."""
NUM_WAVES = 8
"""Cosines and sines, of each so many, that tell the network the time."""
NUM_MOVES = 4
"""Numbers that tell it how augmentation moved an image: right, down, larger, turned."""
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class ResidualConvolutions(nn.Module):
    """x + two convolutions of 3x3, scaled and shifted by what is told; starts as the identity."""

    def __init__(self, width: int, config: DiffusionConfig) -> None:
        super().__init__()
        self.first = _scaled(nn.Conv2d(width, width, 3, padding=1), GAIN)
        self.told = _scaled(nn.Linear(config.embedding_size, 2 * width), 0.3)
        self.dropout = nn.Dropout(config.dropout)
        self.last = _scaled(nn.Conv2d(width, width, 3, padding=1), 0.0)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """x (B, C, H, W), told (B, E); gives (B, C, H, W)."""
        scale, shift = self.told(told)[:, :, None, None].chunk(2, dim=1)
        inner = F.silu(self.first(F.silu(x)) * (1 + scale) + shift)
        change: Tensor = self.last(self.dropout(inner))
        return x + change


class Stage(nn.Module):
    """The residual convolution blocks of one grid."""

    def __init__(self, width: int, config: DiffusionConfig) -> None:
        super().__init__()
        number = config.blocks_per_stage
        self.blocks = nn.ModuleList(ResidualConvolutions(width, config) for _ in range(number))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """x (B, C, H, W), told (B, E); gives (B, C, H, W)."""
        for block in self.blocks:
            x = block(x, told)
        return x


class ResidualDense(nn.Module):
    """x + two dense layers, scaled and shifted by what is told; starts as the identity."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        width = config.dense_width
        self.first = _scaled(nn.Linear(width, width), 1.0)
        self.told = _scaled(nn.Linear(config.embedding_size, 2 * width), 0.3)
        self.dropout = nn.Dropout(config.dropout)
        self.last = _scaled(nn.Linear(width, width), 0.0)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """x (B, D), told (B, E); gives (B, D)."""
        scale, shift = self.told(told).chunk(2, dim=1)
        inner = F.silu(self.first(F.rms_norm(x, x.shape[-1:])) * (1 + scale) + shift)
        change: Tensor = self.last(self.dropout(inner))
        return x + change


def _moments(pixels: "Rows") -> tuple[Tensor, Tensor]:
    """Each pixel's mean, and the deviation from it, of images in [0, 1]: (C, H, W) and ()."""
    rows = torch.arange(len(pixels), device=pixels.device)
    at_once = max(1, SUMMED_AT_ONCE // 16 // pixels.shape[1:].numel())
    parts = [rows[first : first + at_once] for first in range(0, len(rows), at_once)]
    mean = sum((pixels[part].double().sum(0) for part in parts), torch.zeros(())) / len(rows)
    squares = [float((pixels[part].double() - mean).square().sum()) for part in parts]
    variance = math.fsum(squares) / pixels.shape.numel()
    return mean / 255, torch.tensor(math.sqrt(variance) / 255, device=mean.device)


class VelocityNetwork(nn.Module):
    """From a point on the way, its time and its class to the velocity there."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        told, dense = config.embedding_size, config.dense_width
        self.register_buffer("mean", torch.full(config.shape, 0.5))
        self.register_buffer("deviation", torch.tensor(0.5))
        self.times = _scaled(nn.Linear(2 * NUM_WAVES, told), 1.0)
        self.tell = _scaled(nn.Linear(told, told), GAIN)
        if config.num_classes:
            self.classes = nn.Embedding(config.num_classes + 1, told)  # the last: no class
        if config.augment_probability > 0:
            self.moves = _scaled(nn.Linear(NUM_MOVES, told, bias=False), 1.0)
        widths, pixels = config.widths(), config.channels * config.patch_size**2
        self.look = _scaled(nn.Conv2d(pixels, widths[0], 3, padding=1), 1.0)
        self.down = nn.ModuleList(Stage(width, config) for width in widths)
        self.up = nn.ModuleList(Stage(width, config) for width in widths)
        self.widen = nn.ModuleList(
            _scaled(nn.Conv2d(a, b, 1, bias=False), 1.0) for a, b in pairwise(widths)
        )
        self.narrow = nn.ModuleList(
            _scaled(nn.Conv2d(b, a, 1, bias=False), 1.0) for a, b in pairwise(widths)
        )
        coarsest = widths[-1] * math.prod(config.grids()[-1])
        self.flatten = _scaled(nn.Linear(coarsest, dense), GAIN)
        self.dense = nn.ModuleList(ResidualDense(config) for _ in range(config.dense_blocks))
        self.unflatten = _scaled(nn.Linear(dense, coarsest), GAIN)
        self.paint = _scaled(nn.Conv2d(widths[0], pixels, 3, padding=1), 0.0)
        self.to(memory_format=torch.channels_last)  # 1.1 to 1.7 times as fast on a CPU

    @torch.no_grad()
    def normalise_by(self, pixels: "Rows") -> None:
        """Take over mean and deviation of the images (N, C, H, W) uint8 that will be learned.

        The mean of every pixel of its own, so that what is left to learn is how images differ.
        """
        if pixels.shape.numel() > SUMMED_AT_ONCE:
            mean, spread = _moments(pixels)
            self.mean.copy_(mean)
        else:
            everything = torch.arange(len(pixels), device=pixels.device)
            images = pixels[everything].float().div_(255)
            self.mean.copy_(images.mean(0))
            spread = images.sub_(self.mean).square_().mean().sqrt()
        self.deviation.copy_(spread.clamp(min=1 / 255))  # of equal images: one level

    def normalised(self, images: Tensor) -> Tensor:
        """Images in [0, 1] with a mean of about 0 and a variance of about 1."""
        return (images - self.mean) / self.deviation

    def images_of(self, points: Tensor) -> Tensor:
        """The inverse of `normalised`, cut to [0, 1]."""
        return (points * self.deviation + self.mean).clamp(0, 1)

    def forward(
        self,
        points: Tensor,
        times: Tensor,
        labels: Tensor | None = None,
        moves: Tensor | None = None,
    ) -> Tensor:
        """The velocity (B, C, H, W) at points (B, C, H, W) of the normalised space.

        times: (B,) in [0, 1]; labels: (B,) int64 where the model has classes, `num_classes` for
        none of them; moves: (B, 4) in [-1, 1], how augmentation moved each image, or None.
        """
        t = times[:, None, None, None]
        norm = (t.square() + (1 - t).square()).sqrt()  # deviation of a point
        known = (2 * t - 1) / norm.square() * points
        learned = self._learned(points / norm, self._told(times, labels, moves))
        return known + learned / norm

    def _told(self, times: Tensor, labels: Tensor | None, moves: Tensor | None) -> Tensor:
        """Time, class and augmentation as (B, E)."""
        # the angle in which noise turns into an image, evenly spread from 0 to pi
        angles = 2 * torch.atan2(times, 1 - times)
        waves = angles[:, None] * torch.arange(1, NUM_WAVES + 1, device=times.device)
        told: Tensor = self.tell(F.silu(self.times(torch.cat([waves.cos(), waves.sin()], dim=1))))
        if self.config.num_classes:
            assert labels is not None, "this network is class-conditional: labels are needed"
            told = told + self.classes(labels)
        if self.config.augment_probability > 0 and moves is not None:
            told = told + self.moves(moves)
        return F.silu(told)

    def _learned(self, points: Tensor, told: Tensor) -> Tensor:
        """What the network adds: (B, C, H, W) in and out, both of variance 1."""
        config, (rows, columns) = self.config, self.config.grids()[0]
        margins = (
            columns * config.patch_size - config.width,
            rows * config.patch_size - config.height,
        )
        x = F.pad(points, (0, margins[0], 0, margins[1]))
        x = F.pixel_unshuffle(x, config.patch_size)  # (B, C p p, rows, columns)
        x = self.look(x.contiguous(memory_format=torch.channels_last))
        seen = []
        for level, stage in enumerate(self.down):
            if level > 0:
                x = self.widen[level - 1](F.avg_pool2d(x, 2))
            x = stage(x, told)  # (B, width, rows, columns)
            seen.append(x)
        h = self.flatten(F.silu(x).flatten(1))  # (B, D)
        for block in self.dense:
            h = block(h, told)
        x = x + self.unflatten(F.silu(h)).view(x.shape)
        for level in reversed(range(len(self.up))):
            if level < len(self.narrow):
                x = F.interpolate(self.narrow[level](x), scale_factor=2, mode="nearest")
                x = x + seen[level]
            x = self.up[level](x, told)
        x = F.pixel_shuffle(self.paint(F.silu(x)), config.patch_size)
        return x[:, :, : config.height, : config.width]


def _scaled(layer: Layer, gain: float) -> Layer:
    """Normal weights of standard deviation gain / sqrt(fan in), no bias at the start."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
