"""Numbers about generated images: distances, coverage, copies, classes.

Everything is a pure function of arrays, computed in float64. A set is an array whose first
dimension counts items; further dimensions are flattened. `features` are those of a classifier
(models/classifier.py); the same formulas hold in any space, pixels included. A distance between
two finite sets of the *same* source is not zero: report it beside the distance of real data held
out from training, computed with as many items.

References: Heusel et al. 2017 (Frechet distance); Binkowski et al. 2018 (kernel distance);
Kynkaanniemi et al. 2019 (precision, recall); Naeem et al. 2020 (density, coverage); Lin et al.
2018 (modes of Stacked MNIST).
"""

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[Any] | Tensor

ENTRIES_AT_ONCE = 2**23
"""Distances held in memory at one time: 64 MiB in float64. Changes no number."""


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    standard_error: float


def frechet_distance(features_a: Array, features_b: Array) -> float:
    """Squared Frechet (Wasserstein-2) distance of two Gaussians with the sets' moments.

        |mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    The covariances divide by N - 1. With S = R'R from a QR decomposition of the centred features,
    tr (S_a S_b)^(1/2) is the sum of the singular values of R_a R_b': no matrix is squared or
    inverted, so sets with fewer items than features are no special case.

    Unit: features squared. Biased upwards, for two samples of one source by about D^2 / 2N times
    a feature's variance: compare only equal N. Sees nothing but means and covariances.
    Source: Heusel et al. 2017; Dowson and Landau 1982. Raises ValueError below 2 items.
    """
    a, b = _pair(features_a, features_b, ("features_a", "features_b"), least=2)
    mean_a, mean_b = a.mean(0), b.mean(0)
    root_a = torch.linalg.qr(a - mean_a, mode="r").R / math.sqrt(len(a) - 1)
    root_b = torch.linalg.qr(b - mean_b, mode="r").R / math.sqrt(len(b) - 1)
    overlap = torch.linalg.svdvals(root_a @ root_b.T).sum()
    spread = root_a.square().sum() + root_b.square().sum() - 2 * overlap
    return max(0.0, float((mean_a - mean_b).square().sum() + spread))


def kernel_distance(
    features_a: Array,
    features_b: Array,
    num_subsets: int = 50,
    subset_size: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3: mean and standard error.

    Each of the unbiased estimates that are averaged sees the same fraction f of both sets, drawn
    without replacement: one half, or less where that exceeds `subset_size` items. The spread of
    the estimates times sqrt(f / (1 - f)) is the standard error of their mean as an estimate of the
    distance of the two sources (the delete-d jackknife); where the sources are equal it is too
    wide rather than too narrow.

    No unit; may be negative. The kernel wants features of mean square about 1.
    Source: Binkowski et al. 2018 (KID); Shao and Wu 1989. Raises ValueError below 4 items.
    """
    a, b = _pair(features_a, features_b, ("features_a", "features_b"), least=4)
    for name, number in (("num_subsets", num_subsets), ("subset_size", subset_size)):
        if number < 2:
            raise ValueError(f"{name} must be at least 2, got {number}")
    fraction = min(0.5, subset_size / max(len(a), len(b)))
    num_a, num_b = max(2, round(fraction * len(a))), max(2, round(fraction * len(b)))
    generator = torch.Generator().manual_seed(seed)
    estimates = torch.empty(num_subsets, dtype=torch.float64)
    for subset in range(num_subsets):
        chosen_a = torch.randperm(len(a), generator=generator)[:num_a].to(a.device)
        chosen_b = torch.randperm(len(b), generator=generator)[:num_b].to(b.device)
        estimates[subset] = _unbiased_discrepancy(a[chosen_a], b[chosen_b])
    error = float(estimates.std()) * math.sqrt(fraction / (1 - fraction))
    return Estimate(float(estimates.mean()), error)


def _unbiased_discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """Mean kernel within a plus mean kernel within b (no item with itself) minus twice across."""
    within_a, within_b, across = (
        (x @ y.T).div_(a.shape[1]).add_(1).pow_(3) for x, y in ((a, a), (b, b), (a, b))
    )
    n, m = len(a), len(b)
    mean_a = (within_a.sum() - within_a.trace()) / (n * (n - 1))
    mean_b = (within_b.sum() - within_b.trace()) / (m * (m - 1))
    return mean_a + mean_b - 2 * across.mean()


def precision_recall_density_coverage(real: Array, fake: Array, k: int = 5) -> dict[str, float]:
    """Four shares that tell poor samples from missing ones, by balls around the items.

    The ball of an item reaches to its k-th nearest neighbour in its own set.

    * precision: generated items within the ball of any real item
    * recall: real items within the ball of any generated item
    * density: mean number of real balls that hold a generated item, divided by k; may exceed 1
    * coverage: real items whose ball holds any generated item

    Identical sources do not reach 1: coverage tends to 1 - 2^-k with equal N. Precision and
    recall suffer from outliers; judge by density and coverage. Depends on N: compare equal N.
    Source: Naeem et al. 2020. Raises ValueError unless both sets have more than k items.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    real, fake = _pair(real, fake, ("real", "fake"), least=k + 1)
    real, fake = real - real.mean(0), fake - real.mean(0)  # smaller numbers cancel less
    real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
    num_balls = torch.zeros(len(fake), dtype=torch.long, device=real.device)
    num_recalled, num_covered = 0, 0
    for rows in _row_parts(len(real), len(fake)):
        distances = _squared_distances(real[rows], fake)  # (R, M)
        num_balls += (distances < real_radii[rows, None]).sum(0)
        num_recalled += int((distances < fake_radii).any(1).sum())
        num_covered += int((distances.amin(1) < real_radii[rows]).sum())
    return {
        "precision": float((num_balls > 0).double().mean()),
        "recall": num_recalled / len(real),
        "density": float(num_balls.double().mean()) / k,
        "coverage": num_covered / len(real),
    }


def nearest_neighbour_distances(queries: Array, references: Array) -> NDArray[np.float64]:
    """Euclidean distance of each query to its nearest reference: (Q,) float64.

    The neighbour is sought in float32 (of references that equal there any may be taken), its
    distance then computed in float64. Unit: that of the items (0..255 for uint8 pixels).
    Raises ValueError if either set is empty or if the items' sizes differ.
    """
    wanted, offered = _matrix(queries, "queries", 1), _matrix(references, "references", 1)
    _check_sizes(wanted, offered, ("queries", "references"))
    offered = offered.to(wanted.device)
    centre = offered.mean(0, dtype=torch.float32)  # smaller numbers cancel less
    centred = wanted - centre
    best = torch.full((len(wanted),), math.inf, device=wanted.device)
    neighbour = torch.zeros(len(wanted), dtype=torch.long, device=wanted.device)
    for some in _row_parts(len(offered), max(wanted.shape[1], 1024)):
        part = (offered[some] - centre).float()
        for rows in _row_parts(len(wanted), len(part)):
            distances, places = _squared_distances(centred[rows].float(), part).min(1)
            closer = distances < best[rows]
            best[rows] = torch.where(closer, distances, best[rows])
            neighbour[rows] = torch.where(closer, places + some.start, neighbour[rows])
    exact = torch.empty(len(wanted), dtype=torch.float64)
    for rows in _row_parts(len(wanted), wanted.shape[1]):
        difference = wanted[rows].double() - offered[neighbour[rows]].double()
        exact[rows] = difference.square().sum(1).sqrt().cpu()
    return exact.numpy()


def nearest_neighbour_ratio(generated: Array, test: Array, train: Array) -> float:
    """Mean nearest-training distance of generated items over that of real test items.

    About 1: generated items keep the distance from the training set that new real ones do. Well
    below 1: copies. Above 1: items unlike real ones, or noise. A blurred or blank item can be
    close to everything: read it beside a quality measure. No unit.
    Raises ValueError for empty sets, or if every test item is itself in the training set.
    """
    floor = float(nearest_neighbour_distances(test, train).mean())
    if floor == 0:
        raise ValueError("every test item is in train; the ratio wants test items that are not")
    return float(nearest_neighbour_distances(generated, train).mean()) / floor


def exact_copy_rate(generated_uint8: Array, train_uint8: Array) -> float:
    """Share of generated images equal to a training image in every byte.

    Raises ValueError if a set is empty, is not uint8, or if the images' sizes differ.
    """
    generated = _matrix(generated_uint8, "generated_uint8", 1)
    train = _matrix(train_uint8, "train_uint8", 1)
    for name, images in (("generated_uint8", generated), ("train_uint8", train)):
        if images.dtype != torch.uint8:
            raise ValueError(f"{name} holds {images.dtype}, wanted torch.uint8 (bytes 0..255)")
    _check_sizes(generated, train, ("generated_uint8", "train_uint8"))
    known = {row.tobytes() for row in train.cpu().numpy()}
    return sum(row.tobytes() in known for row in generated.cpu().numpy()) / len(generated)


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
    made, found = _pair(generated, real, ("generated", "real"), least=1)
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


def _matrix(items: Array, name: str, least: int) -> Tensor:
    """A set as (items, numbers per item), checked, of its own type."""
    tensor = items.detach() if isinstance(items, Tensor) else torch.tensor(items)
    tensor = tensor.byte() if tensor.dtype == torch.bool else tensor  # binarised pixels
    if tensor.ndim < 1 or len(tensor) < least:
        got = len(tensor) if tensor.ndim else "a single number"
        raise ValueError(f"{name} has {got} items, wanted at least {least}")
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return tensor.reshape(len(tensor), math.prod(tensor.shape[1:]))


def _pair(a: Array, b: Array, names: tuple[str, str], least: int) -> tuple[Tensor, Tensor]:
    first = _matrix(a, names[0], least).double()
    second = _matrix(b, names[1], least).double().to(first.device)
    _check_sizes(first, second, names)
    return first, second


def _check_sizes(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    mine, theirs = a.shape[1], b.shape[1]
    if mine != theirs or not mine:
        raise ValueError(
            f"items of {names[0]} have {mine} numbers, those of {names[1]} {theirs}; want equal"
        )


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


def _row_parts(num_rows: int, num_columns: int) -> list[slice]:
    """Consecutive rows whose distances to all columns fit into memory together."""
    size = max(1, ENTRIES_AT_ONCE // max(1, num_columns))
    return [slice(start, start + size) for start in range(0, num_rows, size)]


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances of all pairs: (A, D) and (B, D) to (A, B)."""
    lengths = a.square().sum(1, keepdim=True) + b.square().sum(1)
    return torch.addmm(lengths, a, b.T, alpha=-2).clamp_(min=0)


def _squared_radii(items: Tensor, k: int) -> Tensor:
    """Squared distance of each item to its k-th nearest neighbour in the same set: (N,)."""
    radii = torch.empty(len(items), dtype=items.dtype, device=items.device)
    for rows in _row_parts(len(items), len(items)):
        distances = _squared_distances(items[rows], items)
        own = torch.arange(rows.start, rows.start + len(distances), device=items.device)
        distances.scatter_(1, own[:, None], math.inf)
        radii[rows] = distances.topk(k, largest=False).values[:, -1]
    return radii
