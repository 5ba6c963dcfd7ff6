"""A variational auto-encoder: images to points of a latent space, and back.

Convolution, pooling and flattening lead down to a Gaussian over the latent point z; a decoder leads
from any z back to an image. What is minimised is the negative ELBO, the sum of two losses that are
always reported apart: the reconstruction, -E[log p(x|z)], and the KL divergence of q(z|x) from the
standard normal prior. All losses are nats per image, summed over pixels and latent units.

References: Kingma and Welling 2013 (the VAE); Burda et al. 2015 (importance weighting, active
units); Kingma et al. 2016 (free bits); Salimans et al. 2017 (discretised logistic).
"""

import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training.batches import generator_at
from models.training.config import FitConfig
from models.vae.config import VaeConfig
from models.vae.densities import gaussian_kl, log_mean_exp, logistic_log_likelihood

Sampler = Literal["normal", "mixture"]

SAMPLE_STREAM = 10  # of a seed's randomness, apart from those of training

DECODED_AT_ONCE = 1000
"""Latent points decoded in one go outside training: bounds memory, changes no number."""


class ResidualBlock(nn.Module):
    """x + convolutions of x; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        change: Tensor = self.outer(F.silu(self.inner(F.silu(x))))
        return x + change


class Encoder(nn.Module):
    """Convolve and pool, level by level; flatten; two heads: mean and log-variance of z."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming = config.channels
        for outgoing in config.level_widths:
            layers += [
                nn.Conv2d(incoming, outgoing, 3, padding=1),
                nn.MaxPool2d(2, ceil_mode=True),
                *(ResidualBlock(outgoing) for _ in range(config.num_residual_blocks)),
                nn.SiLU(),
            ]
            incoming = outgoing
        self.levels = nn.Sequential(*layers)
        self.hidden = nn.Linear(incoming * math.prod(config.inner_size), config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.heads = nn.Linear(config.hidden_size, 2 * config.latent_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] to the mean and log-variance of z, each (B, Z)."""
        x = self.levels(2 * images - 1).flatten(1)
        mean, raw = self.heads(self.dropout(F.silu(self.hidden(x)))).chunk(2, dim=1)
        return mean, 8 * torch.tanh(raw / 8)  # bounded: exp never overflows, z never degenerates


class Decoder(nn.Module):
    """Unflatten z, then convolve and upsample, level by level, to one logit per pixel."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = config.level_widths
        self.image_size = config.height, config.width
        self.inner_shape = widths[-1], *config.inner_size
        self.hidden = nn.Linear(config.latent_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.unflatten = nn.Linear(config.hidden_size, math.prod(self.inner_shape))
        layers: list[nn.Module] = []
        for incoming, outgoing in zip(
            widths[::-1], [*widths[-2::-1], config.channels], strict=True
        ):
            layers += [
                *(ResidualBlock(incoming) for _ in range(config.num_residual_blocks)),
                nn.SiLU(),
                nn.Conv2d(incoming, 4 * outgoing, 3, padding=1),
                nn.PixelShuffle(2),
            ]
        self.levels = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Latent points (B, Z) to logits (B, C, H, W)."""
        x = self.unflatten(self.dropout(F.silu(self.hidden(z))))
        height, width = self.image_size
        logits: Tensor = self.levels(x.view(-1, *self.inner_shape))
        return logits[:, :, :height, :width]


class Vae(nn.Module):
    """A latent-variable model of images: prior N(0, I), decoder p(x|z), encoder q(z|x)."""

    mixture_weights: Tensor
    mixture_means: Tensor
    mixture_factors: Tensor
    is_capturable = True

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.likelihood == "logistic":
            self.log_scale = nn.Parameter(torch.full((config.channels, 1, 1), -2.0))
        components, size = config.num_mixture_components, config.latent_size
        self.register_buffer("mixture_weights", torch.full((components,), 1 / components))
        self.register_buffer("mixture_means", torch.zeros(components, size))
        self.register_buffer("mixture_factors", torch.eye(size).repeat(components, 1, 1))
        self.initialise()
        self.to(memory_format=torch.channels_last)  # 1.5 times as fast on a CPU

    def initialise(self) -> None:
        """Draw every weight from torch's global generator: normal, deviation gain / sqrt(inputs).

        layers behind a SiLU   gain 1.6: keeps the size of signals, halves the steps needed
        layers that see images or z    gain 1
        pixel logits           gain 0.3: every pixel starts undecided
        heads                  deviation 0.01: q(z|x) starts near the prior
        end of residual blocks, biases   zero
        """
        behind_silu = 1.6
        gains = {
            self.encoder.levels[0]: 1.0,
            self.decoder.hidden: 1.0,
            self.decoder.levels[-2]: 0.3,
        }
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                deviation = gains.get(module, behind_silu) / math.sqrt(module.weight[0].numel())
                nn.init.normal_(module.weight, std=deviation)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, ResidualBlock):
                nn.init.zeros_(module.outer.weight)
        nn.init.normal_(self.encoder.heads.weight, std=0.01)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] to the mean and log-variance of q(z|x), each (B, Z)."""
        return self.encoder(images)  # type: ignore[no-any-return]

    def decode(self, z: Tensor) -> Tensor:
        """Latent points (B, Z) to logits (B, C, H, W); their sigmoid is the expected image."""
        return self.decoder(z)  # type: ignore[no-any-return]

    def log_likelihood(self, images: Tensor, logits: Tensor) -> Tensor:
        """log p(x|z) of images and logits (..., C, H, W), in nats: (...)."""
        if self.config.likelihood == "bernoulli":
            pixels = images * logits - F.softplus(logits)
        else:
            pixels = logistic_log_likelihood(images, torch.sigmoid(logits), self.log_scale)
        return pixels.flatten(-3).sum(-1)

    def weigh(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, C, H, W) seen through draws z = mean + deviation * noise, noise (K, B, Z).

        Returns log p(x|z), (K, B); log p(z) - log q(z|x), (K, B); the KL of every unit, (B, Z).
        """
        mean, log_variance = self.encode(images)
        z = mean + (log_variance / 2).exp() * noise  # (K, B, Z)
        logits = self.decode(z.flatten(0, 1))
        log_ratio = (noise.square() + log_variance - z.square()).sum(-1) / 2
        logits = logits.view(*noise.shape[:2], *images.shape[1:])
        return self.log_likelihood(images, logits), log_ratio, gaussian_kl(mean, log_variance)

    def losses(self, images: Tensor, step: int | Tensor) -> dict[str, Tensor]:
        """The two losses of a batch of images (B, C, H, W) in [0, 1], apart and together.

        Scalars in nats per image: "reconstruction", "kl", their sum "negative_elbo", and "loss",
        which differs from that sum by the warm-up's "kl_weight", free bits and importance samples.
        Noise comes from torch's global generator, which `likelihood_steps` seeds at each step.
        """
        config = self.config
        kl_weight = (step + 1) / (config.kl_warmup_steps + 1)
        kl_weight = (
            kl_weight.clamp(max=1.0) if isinstance(kl_weight, Tensor) else min(1.0, kl_weight)
        )
        if config.likelihood == "bernoulli":
            images = torch.bernoulli(images)
        shape = config.num_importance_samples, len(images), config.latent_size
        noise = torch.randn(shape, device=images.device)
        log_likelihood, log_ratio, unit_kl = self.weigh(images, noise)
        reconstruction, kl = -log_likelihood.mean(), unit_kl.mean(0)
        if config.num_importance_samples > 1:
            loss = -log_mean_exp(log_likelihood + kl_weight * log_ratio).mean()
        else:
            loss = reconstruction + kl_weight * kl.clamp(min=config.free_bits_nats).sum()
        return {
            "loss": loss,
            "reconstruction": reconstruction,
            "kl": kl.sum(),
            "negative_elbo": reconstruction + kl.sum(),
            "kl_weight": torch.as_tensor(kl_weight),
        }

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """The expected image at the posterior mean of each image; (B, C, H, W) in [0, 1]."""
        return torch.sigmoid(self.decode(self.encode(images)[0]))

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        seed: int = 0,
        temperature: float = 1.0,
        sampler: Sampler = "normal",
    ) -> Tensor:
        """Expected images at random latent points: (N, C, H, W) in [0, 1].

        The points come from the prior ("normal") or from the mixture that
        `models.vae.latent_mixture` fitted on the codes ("mixture"); temperature scales their
        deviations. A seed's points are the same on every device, and torch's global generator is
        not touched.
        """
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        if sampler not in ("normal", "mixture"):
            raise ValueError(f'sampler must be "normal" or "mixture", got {sampler!r}')
        generator = generator_at(seed, 0, SAMPLE_STREAM)
        noise = torch.randn(num_samples, self.config.latent_size, generator=generator) * temperature
        z = noise.to(self.mixture_means.device)
        if sampler == "mixture":
            weights = self.mixture_weights.cpu()
            chosen = torch.multinomial(weights, num_samples, replacement=True, generator=generator)
            chosen = chosen.to(z.device)
            spread = (self.mixture_factors[chosen] @ z[:, :, None]).squeeze(-1)
            z = self.mixture_means[chosen] + spread
        return torch.cat([torch.sigmoid(self.decode(part)) for part in in_parts(z)])

    @torch.no_grad()
    def interpolate(self, first: Tensor, last: Tensor, num_steps: int) -> Tensor:
        """Expected images on the straight line between the codes of two images (C, H, W).

        (num_steps, C, H, W) in [0, 1]; the ends are the reconstructions of the two images.
        """
        start, end = self.encode(torch.stack([first, last]))[0]
        shares = torch.linspace(0, 1, num_steps, device=start.device)[:, None]
        return torch.sigmoid(self.decode(torch.lerp(start, end, shares)))


def make_optimizer(model: Vae, fit: FitConfig) -> torch.optim.Optimizer:
    """AdamW; weight decay acts on weights, not on biases and scales."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": fit.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=fit.learning_rate, betas=(0.9, 0.99), fused=True)


def in_parts(points: Tensor) -> Iterator[Tensor]:
    """A tensor in consecutive parts that are decoded, or encoded, in one go."""
    for start in range(0, len(points), DECODED_AT_ONCE):
        yield points[start : start + DECODED_AT_ONCE]
