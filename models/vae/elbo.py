"""What a VAE is worth: bounds on the likelihood of held-out images, and the use it makes of z.

Reference: Burda et al. 2015, "Importance weighted autoencoders" (the bound; active units).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from models.training.batches import generator_at
from models.vae.densities import log_mean_exp
from models.vae.model import DECODED_AT_ONCE, Vae, in_parts

BINARY_STREAM, DRAW_STREAM = 11, 12
"""Streams of a seed's randomness, apart from those of training and sampling."""


def binarize(images: Tensor, seed: int) -> Tensor:
    """One fixed Bernoulli draw of grey images in [0, 1]: the binary images of a test."""
    noise = torch.rand(images.shape, generator=generator_at(seed, 0, BINARY_STREAM))
    return (noise.to(images.device) < images).to(images.dtype)


def negative_elbo(model: Vae, images: Tensor, seed: int) -> dict[str, Tensor]:
    """By name "reconstruction", "kl" and their sum "negative_elbo" of each image: (N,), in nats.

    One draw of z per image; the KL is exact. Images as for `importance_weighted_nll`.
    """
    reconstructions, kls = [], []
    for log_likelihood, _, unit_kl in _weighed(model, images, 1, seed):
        reconstructions.append(-log_likelihood[0])
        kls.append(unit_kl.sum(1))
    reconstruction, kl = torch.cat(reconstructions), torch.cat(kls)
    return {"reconstruction": reconstruction, "kl": kl, "negative_elbo": reconstruction + kl}


def importance_weighted_nll(model: Vae, images: Tensor, num_samples: int, seed: int) -> Tensor:
    """Upper bound on -log p(x) from num_samples draws of z per image: (N,), in nats.

    Exact in log space (Burda et al. 2015, equation 8); more samples make it tighter. Every image
    has its own noise, so neither batching nor the other images change its number. A Bernoulli model
    wants binary images (see `binarize`), as grey ones have no probability under it: ValueError.
    """
    weighed = _weighed(model, images, num_samples, seed)
    return torch.cat([-log_mean_exp(likelihood + ratio) for likelihood, ratio, _ in weighed])


@torch.no_grad()
def _weighed(
    model: Vae, images: Tensor, num_samples: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """`Vae.weigh` over blocks of images, with noise that depends on seed and image index alone."""
    if model.config.likelihood == "bernoulli" and not ((images == 0) | (images == 1)).all():
        raise ValueError(
            "a Bernoulli model gives probabilities to binary images only, got grey levels;"
            " pass binarize(images, seed)"
        )
    shape = num_samples, model.config.latent_size
    num_images = max(1, DECODED_AT_ONCE // num_samples)
    for start in range(0, len(images), num_images):
        block = images[start : start + num_images]
        generators = [generator_at(seed, start + i, DRAW_STREAM) for i in range(len(block))]
        noise = torch.stack([torch.randn(shape, generator=g) for g in generators], dim=1)
        parts = [model.weigh(block, part.to(images.device)) for part in in_parts(noise)]
        yield (
            torch.cat([likelihood for likelihood, _, _ in parts]),
            torch.cat([ratio for _, ratio, _ in parts]),
            parts[0][2],
        )


@torch.no_grad()
def active_units(model: Vae, images: Tensor, threshold: float = 0.01) -> int:
    """Number of latent units whose posterior mean varies between images: Var_x E[z|x] > threshold.

    Burda et al. 2015, section 5.2. Images as for `importance_weighted_nll`.
    """
    means = torch.cat([model.encode(part)[0] for part in in_parts(images)])
    return int((means.var(0) > threshold).sum())


def collapse_alarm(kl_nats: float, num_active: int, latent_size: int) -> str | None:
    """What is wrong with the use of the latent point, in a sentence; None if nothing is.

    kl_nats: mean KL of an image; num_active: from `active_units`.
    """
    if num_active == 0 or kl_nats < 0.1:
        return (
            f"posterior collapse: {num_active} of {latent_size} latent units are active and z"
            f" carries {kl_nats:.2f} nats per image, so the decoder ignores it; lengthen"
            " kl_warmup_steps or raise free_bits_nats"
        )
    if num_active < latent_size / 2:
        return (
            f"partial posterior collapse: only {num_active} of {latent_size} latent units are"
            " active; lower latent_size or raise free_bits_nats"
        )
    return None
