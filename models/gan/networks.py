"""The two networks of a GAN, and how samples are drawn from one of them.

Networks without normalisation layers, residual blocks that start as the identity (Huang et al.
2024, R3GAN); spectral normalisation where the hinge loss wants it (Miyato et al. 2018).
"""

import math
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from models.gan.config import GanConfig

SLOPE = 0.2  # of the leaky ReLU
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the variance through a leaky ReLU
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class ResidualConvolutions(nn.Module):
    """x + two convolutions of 3x3; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _scaled(nn.Conv2d(width, width, 3, padding=1), GAIN)
        self.last = _scaled(nn.Conv2d(width, width, 3, padding=1), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        change: Tensor = self.last(F.leaky_relu(self.first(F.leaky_relu(x, SLOPE)), SLOPE))
        return x + change


class ResidualDense(nn.Module):
    """x + two dense layers; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _scaled(nn.Linear(width, width), GAIN)
        self.last = _scaled(nn.Linear(width, width), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to the same shape."""
        change: Tensor = self.last(F.leaky_relu(self.first(F.leaky_relu(x, SLOPE)), SLOPE))
        return x + change


class Generator(nn.Module):
    """From a latent point (and a class) to an image in [-1, 1]."""

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.config = config
        widths, dense = config.widths()[::-1], config.dense_width
        self.coarsest = config.grids()[-1]
        embedded = config.latent_size if config.num_classes else 0
        if config.num_classes:
            self.classes = nn.Embedding(config.num_classes, embedded)
        self.enter = _scaled(nn.Linear(config.latent_size + embedded, dense), 1.0)
        self.dense = nn.Sequential(*[ResidualDense(dense) for _ in range(config.dense_blocks)])
        if config.num_branches > 1:
            self.part = _scaled(nn.Linear(dense, config.num_branches * dense), GAIN)
            self.alone = nn.Sequential(*[ResidualDense(dense) for _ in range(config.dense_blocks)])
        self.unflatten = _scaled(nn.Linear(dense, widths[0] * math.prod(self.coarsest)), GAIN)
        self.stages = nn.ModuleList(
            nn.Sequential(*[ResidualConvolutions(width) for _ in range(config.blocks_per_stage)])
            for width in widths
        )
        self.narrow = nn.ModuleList(
            _scaled(nn.Conv2d(a, b, 1, bias=False), 1.0) for a, b in pairwise(widths)
        )
        painted = config.channels // config.num_branches * config.patch_size**2
        self.paint = _scaled(nn.Conv2d(widths[-1], painted, 3, padding=1), GAIN)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """latents (B, Z), labels (B,) int64 where the model has classes; gives (B, C, H, W)."""
        config = self.config
        if config.num_classes:
            assert labels is not None, "this generator is class-conditional: labels are needed"
            latents = torch.cat([latents, self.classes(labels)], dim=1)  # (B, 2Z)
        h = self.dense(self.enter(latents))  # (B, D)
        if config.num_branches > 1:
            h = self.alone(self.part(F.leaky_relu(h, SLOPE)).reshape(-1, config.dense_width))
        x = self.unflatten(F.leaky_relu(h, SLOPE))
        x = x.reshape(len(latents) * config.num_branches, -1, *self.coarsest)
        for level, stage in enumerate(self.stages):
            if level > 0:
                x = F.interpolate(self.narrow[level - 1](x), scale_factor=2, mode="nearest")
            x = stage(x)  # (B, width, rows, columns)
        # saturation lets black be black: without it a grey haze takes a third of the contrast
        x = F.pixel_shuffle(self.paint(F.leaky_relu(x, SLOPE)), config.patch_size).tanh()
        x = x[:, :, : config.height, : config.width]
        return x.reshape(len(latents), config.channels, config.height, config.width)


class Discriminator(nn.Module):
    """From an image in [-1, 1] (and a class) to a score: higher looks more real."""

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.config = config
        widths, dense = config.widths(), config.dense_width
        rows, columns = config.grids()[0]
        self.margins = (
            columns * config.patch_size - config.width,
            rows * config.patch_size - config.height,
        )
        seen = config.channels // config.num_branches * config.patch_size**2 * config.num_packed
        self.look = _scaled(nn.Conv2d(seen, widths[0], 3, padding=1), 1.0)
        self.stages = nn.ModuleList(
            nn.Sequential(*[ResidualConvolutions(width) for _ in range(config.blocks_per_stage)])
            for width in widths
        )
        self.widen = nn.ModuleList(
            _scaled(nn.Conv2d(a, b, 1, bias=False), 1.0) for a, b in pairwise(widths)
        )
        cells = math.prod(config.grids()[-1])
        self.flatten = _scaled(nn.Linear(widths[-1] * cells, dense), GAIN)
        if config.num_branches > 1:
            self.alone = nn.Sequential(*[ResidualDense(dense) for _ in range(config.dense_blocks)])
            self.join = _scaled(nn.Linear(config.num_branches * dense, dense), GAIN)
        self.dense = nn.Sequential(*[ResidualDense(dense) for _ in range(config.dense_blocks)])
        self.score = _scaled(nn.Linear(dense, max(1, config.num_classes)), GAIN)
        if config.loss == "hinge":
            _normalise_spectra(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """images (B, C, H, W), labels (B,) int64 where the model has classes: (B / packed,)."""
        return self.chosen(self.scores(images), labels)

    def scores(self, images: Tensor) -> Tensor:
        """The score of (B, C, H, W) as each class, or the only one: (B / packed, classes or 1)."""
        config = self.config
        assert len(images) % config.num_packed == 0, (len(images), config.num_packed)
        x = F.pad(images, (0, self.margins[0], 0, self.margins[1]), value=-1.0)
        x = F.pixel_unshuffle(x, config.patch_size)  # (B, C p p, rows, columns)
        towers, size = config.num_branches, x.shape[2:]
        if towers > 1:  # a tower sees its channel of every image of a pack
            x = x.reshape(-1, config.num_packed, towers, config.patch_size**2, *size)
            x = x.transpose(1, 2)
        x = self.look(x.reshape(-1, self.look.in_channels, *size))
        for level, stage in enumerate(self.stages):
            if level > 0:
                x = self.widen[level - 1](F.avg_pool2d(x, 2))
            x = stage(x)  # (B, width, rows, columns)
        x = F.leaky_relu(x, SLOPE).reshape(len(images) // config.num_packed * towers, -1)
        h = self.flatten(x)  # (B towers, D)
        if towers > 1:
            h = self.join(F.leaky_relu(self.alone(h), SLOPE).reshape(-1, towers * h.shape[1]))
        h = self.dense(h)  # (B, D)
        scores: Tensor = self.score(F.leaky_relu(h, SLOPE))
        return scores

    def chosen(self, scores: Tensor, labels: Tensor | None) -> Tensor:
        """Of (B / packed, classes) the scores as the class at hand, labels (B,): (B / packed,)."""
        if self.config.num_classes:
            assert labels is not None, "this discriminator is class-conditional: labels are needed"
            return scores.gather(1, labels.reshape(-1, self.config.num_packed)).sum(dim=1)
        return scores.squeeze(1)


def fixed_latents(config: GanConfig, num_samples: int, seed: int) -> Tensor:
    """Latent points to follow through training: (N, Z), the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_samples, config.latent_size, generator=generator)


@torch.no_grad()
def sample(
    generator: Generator,
    num_samples: int,
    seed: int,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    batch_size: int = 1024,
) -> Tensor:
    """Images (N, C, H, W) float in [0, 1]; the same for the same seed.

    Without labels a class-conditional generator takes each class in turn. A temperature below 1
    draws latent points nearer to the middle: cleaner, less varied images.
    """
    config = generator.config
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    latents = fixed_latents(config, num_samples, seed) * config.sampling_spread * temperature
    if labels is None and config.num_classes:
        labels = torch.arange(num_samples) % config.num_classes
    return images_of(generator, latents, labels, batch_size)


@torch.no_grad()
def images_of(
    generator: Generator, latents: Tensor, labels: Tensor | None = None, batch_size: int = 1024
) -> Tensor:
    """The images of given latent points (N, Z): (N, C, H, W) float in [0, 1]."""
    device = next(generator.parameters()).device
    parts = []
    for start in range(0, len(latents), batch_size):
        chosen = None if labels is None else labels[start : start + batch_size].to(device)
        images = generator(latents[start : start + batch_size].to(device), chosen)
        parts.append((images / 2 + 0.5).clamp(0, 1))
    return torch.cat(parts)


def _scaled(layer: Layer, gain: float) -> Layer:
    """Normal weights of standard deviation gain / sqrt(fan in), no bias at the start."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _normalise_spectra(network: nn.Module) -> None:
    """Bound the gain of every layer by one; a zero weight has no direction to normalise."""
    for layer in list(network.modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if not layer.weight.any():
                nn.init.normal_(layer.weight, std=GAIN / math.sqrt(layer.weight[0].numel()))
            spectral_norm(layer)
