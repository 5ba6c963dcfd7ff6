"""Intervals around means: what a number of held-out items can tell.

Reference: Efron and Tibshirani 1993, "An introduction to the bootstrap".
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

RESAMPLED_AT_ONCE = 2**22
"""Items drawn by a bootstrap at one time: 64 MiB. Part of the seeded draw: do not change."""


class Interval(NamedTuple):
    """A mean and the ends of its interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean_interval(
    values: Sequence[float] | NDArray[Any] | Tensor,
    num_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of independent values and its percentile bootstrap interval.

    values: (N,). Neighbouring tokens are not independent: give one value per document or per block
    of text. Too narrow for small N (by a tenth at N = 10). Deterministic given the seed.
    Source: Efron and Tibshirani 1993, chapter 13. Raises ValueError below 2 values.
    """
    numbers = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    numbers = numbers.astype(np.float64)
    if numbers.ndim != 1 or len(numbers) < 2:
        raise ValueError(f"wanted at least 2 values in one row, got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError("values must be finite")
    if num_resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"wanted num_resamples of at least 1 and 0 < level < 1, got {num_resamples} and {level}"
        )
    generator = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    at_once = max(1, RESAMPLED_AT_ONCE // len(numbers))
    for start in range(0, num_resamples, at_once):
        size = (min(at_once, num_resamples - start), len(numbers))
        means[start : start + size[0]] = numbers[generator.integers(len(numbers), size=size)].mean(
            1
        )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(numbers.mean()), float(low), float(high))


def paired_bootstrap(
    differences: Sequence[float] | NDArray[Any] | Tensor,
    num_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Whether one model beats another on the same items: mean difference and its interval.

    differences: (N,) the loss of the one minus the loss of the other, item by item. An interval
    that lies wholly below 0 says that the one is better on items like these; one that holds 0 says
    that the items cannot tell. Seeds of training are another source of chance, not in it.
    """
    return bootstrap_mean_interval(differences, num_resamples, seed, level)
