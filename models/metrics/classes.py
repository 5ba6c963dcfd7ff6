"""Numbers about the classes of generated images: fidelity, variance, modes.

Everything is a pure function of arrays, computed in float64; labels are integers from a
classifier or from a request.

Reference: Lin et al. 2018, "PacGAN" (modes of Stacked MNIST).
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.metrics.images import Array, Estimate, paired


def class_counts(labels: Array, num_classes: int) -> NDArray[np.int64]:
    """How often each class occurs: (num_classes,) int64.

    Labels of shape (N, channels) count combinations: num_classes^channels modes, the first channel
    the slowest to change; this is the histogram of Stacked MNIST (1000 modes).
    Raises ValueError if there are no labels or one lies outside 0..num_classes - 1.
    """
    numbers = _labels(labels, "labels")
    if numbers.min() < 0 or numbers.max() >= num_classes:
        raise ValueError(
            f"labels lie in {numbers.min()}..{numbers.max()}, wanted 0..{num_classes - 1}"
        )
    channels = numbers.reshape(len(numbers), -1)
    shape = (num_classes,) * channels.shape[1]
    modes = np.ravel_multi_index(tuple(channels.T), shape)
    return np.bincount(modes, minlength=math.prod(shape)).astype(np.int64)


def class_entropy(labels: Array, num_classes: int) -> float:
    """Entropy of the labels' histogram in nats: 0 (one class) to log(num_classes) (all equal)."""
    shares = class_counts(labels, num_classes) / len(labels)
    present = shares[shares > 0]
    return max(0.0, float(-(present * np.log(present)).sum()))


def mode_kl(counts: Array) -> float:
    """KL divergence of a histogram of modes from the uniform one, sum p log(K p), in nats.

    A finite sample of a perfect model scores above 0: see `mode_kl_floor`.
    Source: the Stacked MNIST protocol of Lin et al. 2018. Raises ValueError without counts.
    """
    numbers = _labels(counts, "counts").astype(np.float64)
    _check_counts(numbers, "counts")
    return float(_kl_from_uniform(numbers[None])[0])


def mode_kl_floor(
    label_counts: Array,
    num_samples: int,
    channels: int = 3,
    num_draws: int = 200,
    seed: int = 0,
) -> Estimate:
    """What `mode_kl` a perfect model scores with so many samples: mean and spread of one score.

    Draws multinomial histograms over the num_classes^channels combinations of independent channels
    whose classes occur as in `label_counts` (training labels per class). `standard_error` is the
    standard deviation of a single score. For MNIST and 26 000 samples: 0.0236 +- 0.001 nats.
    """
    numbers = _labels(label_counts, "label_counts").astype(np.float64)
    _check_counts(numbers, "label_counts")
    if num_samples < 1 or channels < 1 or num_draws < 2:
        raise ValueError(
            "num_samples and channels must be at least 1 and num_draws at least 2; got"
            f" {num_samples}, {channels} and {num_draws}"
        )
    shares = modes = numbers / numbers.sum()
    for _ in range(channels - 1):
        modes = np.outer(modes, shares).ravel()
    drawn = np.random.default_rng(seed).multinomial(num_samples, modes, size=num_draws)
    scores = _kl_from_uniform(drawn)
    return Estimate(float(scores.mean()), float(scores.std(ddof=1)))


def _kl_from_uniform(counts: NDArray[Any]) -> NDArray[np.float64]:
    shares = counts / counts.sum(1, keepdims=True)  # (histograms, K)
    logs = np.log(np.where(shares > 0, shares * counts.shape[1], 1.0))
    kl: NDArray[np.float64] = (shares * logs).sum(1)
    return kl


def within_class_variance_ratio(
    generated: Array, generated_labels: Array, real: Array, real_labels: Array
) -> float:
    """Spread of generated items around their class's mean over that of real ones; ideal 1.

    The spread of a class is the unbiased variance summed over pixels; both spreads are averaged
    over the classes of the real set, each with the same weight. A class of which fewer than two
    items were generated counts as a spread of 0. Noise raises the ratio: read it beside the
    fidelity. No unit.
    Raises ValueError for empty sets, unequal lengths or a real class with a single item.
    """
    made, found = paired(generated, real, ("generated", "real"), least=1)
    made_labels = _labels(generated_labels, "generated_labels", len(made))
    found_labels = _labels(real_labels, "real_labels", len(found))
    spreads = []
    for label in np.unique(found_labels):
        items = found[torch.as_tensor(found_labels == label)]
        if len(items) < 2:
            raise ValueError(f"class {label} of real has 1 item; a variance wants at least 2")
        twins = made[torch.as_tensor(made_labels == label)]
        spread = float(twins.var(0).sum()) if len(twins) > 1 else 0.0
        spreads.append((spread, float(items.var(0).sum())))
    ours, theirs = map(sum, zip(*spreads, strict=True))
    if theirs == 0:
        raise ValueError("real items do not vary within any class; the ratio is undefined")
    return ours / theirs


def class_fidelity(predicted: Array, requested: Array) -> float:
    """Share of items that a classifier recognises as the class they were made for.

    Bounded by the classifier: report its accuracy on real test images beside it.
    Raises ValueError if there are no items or the lengths differ.
    """
    wanted = _labels(requested, "requested")
    return float((_labels(predicted, "predicted", len(wanted)) == wanted).mean())


def _labels(labels: Array, name: str, length: int | None = None) -> NDArray[Any]:
    numbers = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if numbers.size == 0:
        raise ValueError(f"{name} is empty, wanted at least 1 number")
    if length is not None and numbers.shape != (length,):
        raise ValueError(f"{name} has shape {numbers.shape}, wanted ({length},)")
    return numbers


def _check_counts(counts: NDArray[np.float64], name: str) -> None:
    if counts.ndim != 1 or counts.min() < 0 or not 0 < counts.sum() < math.inf:
        raise ValueError(
            f"{name} must be one row of counts, none below 0 and some above; got shape"
            f" {counts.shape}, minimum {counts.min():g} and sum {counts.sum():g}"
        )
