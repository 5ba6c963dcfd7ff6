"""Densities and divergences in closed form, in nats.

Reference: Salimans et al. 2017, "PixelCNN++" (the discretised logistic).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) of every unit, in nats."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def log_mean_exp(values: Tensor) -> Tensor:
    """log of the mean of exp(values) over the first dimension, without overflow."""
    return torch.logsumexp(values, dim=0) - math.log(len(values))


def logistic_log_likelihood(images: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log of the mass that a logistic density puts on each pixel's level, of 256, in nats.

    images and mean in [0, 1], any shape; levels 0 and 255 take the tails, so the 256 masses sum to
    one. With s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), no difference of small numbers is taken.
    """
    half_bin, sharpness = 1 / 510, (-log_scale.clamp(min=-7)).exp()
    is_black, is_white = images < half_bin, images > 1 - half_bin
    below = F.logsigmoid((images + half_bin - mean) * sharpness).masked_fill(is_white, 0)
    above = F.logsigmoid((mean - images + half_bin) * sharpness).masked_fill(is_black, 0)
    width = torch.log(-torch.expm1(-2 * half_bin * sharpness)).expand_as(below)
    return below + above + width.masked_fill(is_black | is_white, 0)
