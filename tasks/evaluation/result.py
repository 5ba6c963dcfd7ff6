"""What measuring a model gives, and what its numbers are called."""

import math
import re
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


def references(main_metric: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are told wherever the main one is, by name; empty where there are none.

    A Fréchet distance says nothing without the one of real data; likelihoods of colours can be
    compared with others' in bits per dimension.
    """
    names = (f"floor_{main_metric.removeprefix('test_')}", _BITS)
    return {name: metrics[name] for name in names if name in metrics}


_BITS = "test_bits_per_dimension"


def reference_words(told: Mapping[str, float]) -> str:
    """What `references` gives, as words; empty where there are none."""
    return ", ".join(
        f"{value:.3f} bits per dimension" if name == _BITS else f"real data: {value:.4f}"
        for name, value in told.items()
    )


def references_told(main_metric: str, words: str) -> dict[str, float]:
    """What `reference_words` told of a main metric, to the digits that it told."""
    floor = f"floor_{main_metric.removeprefix('test_')}"
    return {
        _BITS if of_bits else floor: float(of_bits or of_floor)
        for of_bits, of_floor in _TOLD(words)
    }


_NUMBER = r"(-?(?:\d+\.\d+|inf|nan))"
_TOLD = re.compile(f"{_NUMBER} bits per dimension|real data: {_NUMBER}").findall


def not_finite(metrics: dict[str, float]) -> list[str]:
    """The metrics that are no finite number, in words."""
    values = metrics.items()
    return [f"{title(name)} is not finite" for name, value in values if not math.isfinite(value)]
