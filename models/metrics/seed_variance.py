"""What chance alone does to a comparison of two models: resampled distances, and other seeds.

References: Efron and Tibshirani 1993, "An introduction to the bootstrap"; Heusel et al. 2017 (the
Frechet distance); Gelman et al. 2013, "Bayesian data analysis", section 2.6 (the pooled variance).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def resampled_frechet_distances(
    real: Tensor, fake: Tensor, num_resamples: int = 400, seed: int = 0
) -> NDArray[np.float64]:
    """The squared Frechet distance of bootstrap resamples of real items: (num_resamples,) float64.

    real: (N, D), fake: (M, D) features. The distance is no mean of items, so its chance is not in
    any item's score: rows of `real` are drawn with replacement, and the distance is computed anew.
    Samples cost nothing: draw so many (M of at least 5 N) that their own chance does not matter;
    they are not resampled. The rows drawn depend on N and the seed alone, so the distances of two
    models' samples to the same real set are paired: their differences hold no chance that both
    share. Each is biased upwards, by about as much for both models; read the spread of the
    differences, not their mean. Raises ValueError below 2 rows or for unequal feature counts.
    """
    if min(len(real), len(fake)) < 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"wanted 2 rows or more of equally many features, got {tuple(real.shape)} and"
            f" {tuple(fake.shape)}"
        )
    generator = np.random.default_rng(seed)
    means, covariances = _resampled_moments(real, num_resamples, generator)
    drawn = fake.detach().cpu().double()
    root = _square_root(torch.cov(drawn.T))
    overlap = torch.linalg.eigvalsh(root @ covariances @ root).clamp(min=0).sqrt().sum(-1)
    traces = _trace(covariances) + drawn.var(0).sum()
    distances = (means - drawn.mean(0)).square().sum(-1) + traces - 2 * overlap
    found: NDArray[np.float64] = distances.clamp(min=0).numpy()
    return found


def _resampled_moments(
    features: Tensor, num_resamples: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Means (R, D) and covariances (R, D, D) of resampled rows, each row weighed by its count."""
    x = features.detach().cpu().double()
    x = x - x.mean(0)  # smaller numbers cancel less; a shift of both sets alike is put back below
    number = len(x)
    means, covariances = [], []
    for _ in range(num_resamples):
        drawn = generator.integers(number, size=number)
        counts = torch.from_numpy(np.bincount(drawn, minlength=number)).double()
        mean = counts @ x / number
        second = (x * counts[:, None]).T @ x
        means.append(mean)
        covariances.append((second - number * torch.outer(mean, mean)) / (number - 1))
    return torch.stack(means) + features.detach().cpu().double().mean(0), torch.stack(covariances)


def _square_root(matrices: Tensor) -> Tensor:
    """The symmetric root of a positive semi-definite matrix, or of several (..., D, D)."""
    values, vectors = torch.linalg.eigh(matrices)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT
    return root


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)


class SeedSpread(NamedTuple):
    """How far results of one recipe lie apart when only the seed differs."""

    relative: float
    """Standard deviation over the mean."""
    degrees_of_freedom: int
    """Of what it was estimated from: how much it is worth."""


def pooled_spread(groups: Sequence[Sequence[float]], prior: SeedSpread) -> SeedSpread:
    """The spread within groups of results, pooled with what is known beforehand.

    groups: the results of each recipe, one per seed; all above 0. Groups of one tell nothing. The
    prior counts as `prior.degrees_of_freedom` further observations, so a short history is not
    believed more than it is worth, and a long one decides. Raises ValueError for results that are
    not positive.
    """
    degrees_of_freedom = prior.degrees_of_freedom
    squares = prior.relative**2 * degrees_of_freedom
    for group in groups:
        values = np.asarray(group, dtype=np.float64)
        if len(values) < 2:
            continue
        if not (values > 0).all():
            raise ValueError(f"a relative spread wants results above 0, got {values.min()}")
        relative = values / values.mean()
        squares += float(((relative - 1) ** 2).sum())
        degrees_of_freedom += len(values) - 1
    return SeedSpread(float(np.sqrt(squares / max(1, degrees_of_freedom))), degrees_of_freedom)
