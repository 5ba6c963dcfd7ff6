"""The likelihood of held-out images under a VAE, and the use that it makes of z."""

import math
from typing import Any

import numpy as np
import torch

from models.metrics.likelihood import Likelihood
from models.vae import elbo

NLL_IMAGES, NLL_SAMPLES = 1000, 100


def likelihood(model: Any, pixels: np.ndarray, seed: int) -> Likelihood:
    """Importance-weighted bounds of (N, C, H, W) uint8 images, of 1000 at most.

    model: ours, or one that a registered version brought along.
    """
    grey = torch.from_numpy(pixels[:: max(1, len(pixels) // NLL_IMAGES)].copy()).float() / 255
    is_binary = bool(model.config.likelihood == "bernoulli")
    seen = elbo.binarize(grey, seed) if is_binary else grey
    losses = elbo.negative_elbo(model, seen, seed)
    nll = elbo.importance_weighted_nll(model, seen, NLL_SAMPLES, seed).double()
    num_active = elbo.active_units(model, seen)
    error = (model.reconstruct(seen) - grey).square().mean()
    alarm = elbo.collapse_alarm(float(losses["kl"].mean()), num_active, model.config.latent_size)
    metrics = {
        "test_nll_nats": float(nll.mean()),
        "test_negative_elbo_nats": float(losses["negative_elbo"].mean()),
        "test_reconstruction_nats": float(losses["reconstruction"].mean()),
        "test_kl_nats": float(losses["kl"].mean()),
        "test_reconstruction_error": float(error),
        "test_active_units": float(num_active),
        "test_active_units_fraction": num_active / model.config.latent_size,
    }
    if not is_binary:
        metrics["test_bits_per_dimension"] = (
            metrics["test_nll_nats"] / grey[0].numel() / math.log(2)
        )
    return Likelihood(
        metrics=metrics,
        nats=nll.cpu().numpy(),
        unit="binarised pixels" if is_binary else "256 levels",
        failed_checks=[alarm] if alarm and alarm.startswith("posterior") else [],
    )
