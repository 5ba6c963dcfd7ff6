"""What measuring a model gives, and what its numbers are called."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

EVALUATION_SEED = 2**31 - 1  # apart from the seeds that people train and sample with


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """What measuring one model gives, before it is stored."""

    main_metric: str
    """The metric that decides; lower is better for all families."""
    unit: str
    """What the main metric counts; numbers of different units are never compared."""
    metrics: dict[str, float]
    faults: list[str]
    scores: np.ndarray
    """(N,) What the main metric is the mean of, item by item; or its resampled values."""
    are_resamples: bool
    """Whether the scores are the metric of bootstrap resamples, for a metric that is no mean."""
    low: float
    """The main metric's 95 % interval over the held-out items."""
    high: float
    files: dict[str, bytes]
    """Pictures or texts, by file name."""
    example: str


_TITLES = {
    "test_nll_nats": "negative log-likelihood, nats per image",
    "test_negative_elbo_nats": "negative ELBO, nats per image",
    "test_reconstruction_nats": "reconstruction loss, nats per image",
    "test_kl_nats": "KL divergence, nats per image",
    "test_reconstruction_error": "mean squared reconstruction error",
    "test_bits_per_dimension": "bits per dimension (a colour of a pixel)",
    "test_frechet_distance": "Fréchet distance",
    "rubbish_frechet_distance": "Fréchet distance of the nearest rubbish",
    "test_class_entropy_nats": "entropy of the drawn classes, nats",
    "test_novel_12gram_share": "share of new spans of 12 characters",
}


def title(metric: str) -> str:
    """A metric's name for people: `test_bits_per_byte` is "bits per byte"."""
    return _TITLES.get(metric, metric.removeprefix("test_").replace("_", " "))


def beside(main_metric: str, metrics: Mapping[str, float]) -> str:
    """What is told wherever the main value is; empty where there is nothing to tell.

    A Fréchet distance says nothing without the one of real data.
    """
    told = []
    floor = metrics.get(f"floor_{main_metric.removeprefix('test_')}")
    if floor is not None:
        told.append(f"real data: {floor:.4f}")
    bits = metrics.get("test_bits_per_dimension")
    if bits is not None:
        told.append(f"{bits:.3f} bits per dimension")
    return ", ".join(told)


def not_finite(metrics: dict[str, float]) -> list[str]:
    """The metrics that are no finite number, in words."""
    values = metrics.items()
    return [f"{title(name)} is not finite" for name, value in values if not math.isfinite(value)]
