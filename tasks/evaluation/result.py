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
    failed_checks: list[str]
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


REAL_DATA = "real_data_"
"""How the names of metrics of real held-out data begin; those of a model begin with `test_`."""
_REAL_DATA_BEFORE = "floor_"


def of_real_data(metric: str) -> str:
    """The name of what real data score in a metric of a model."""
    return REAL_DATA + metric.removeprefix("test_")


def with_present_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of any version of this project by the names of today.

    Runs, tags and galleries of before call what real data score `floor_`.
    """
    renamed = {
        REAL_DATA + name.removeprefix(_REAL_DATA_BEFORE): value
        for name, value in metrics.items()
        if name.startswith(_REAL_DATA_BEFORE)
    }
    others = {n: value for n, value in metrics.items() if not n.startswith(_REAL_DATA_BEFORE)}
    return {**renamed, **others}


def references(main_metric: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are told wherever the main one is, by name; empty where there are none.

    A Fréchet distance says nothing without the one of real data; likelihoods of colours can be
    compared with others' in bits per dimension.
    """
    named = with_present_names(metrics)
    return {name: named[name] for name in (of_real_data(main_metric), _BITS) if name in named}


_BITS = "test_bits_per_dimension"


def reference_words(told: Mapping[str, float]) -> str:
    """What `references` gives, as words; empty where there are none."""
    return ", ".join(
        f"{value:.3f} bits per dimension" if name == _BITS else f"real data: {value:.4f}"
        for name, value in told.items()
    )


def references_told(main_metric: str, words: str) -> dict[str, float]:
    """What `reference_words` told of a main metric, to the digits that it told."""
    real = of_real_data(main_metric)
    return {
        _BITS if of_bits else real: float(of_bits or of_real) for of_bits, of_real in _TOLD(words)
    }


_NUMBER = r"(-?(?:\d+\.\d+|inf|nan))"
_TOLD = re.compile(f"{_NUMBER} bits per dimension|real data: {_NUMBER}").findall


def not_finite(metrics: dict[str, float]) -> list[str]:
    """The metrics that are no finite number, in words."""
    values = metrics.items()
    return [f"{title(name)} is not finite" for name, value in values if not math.isfinite(value)]
