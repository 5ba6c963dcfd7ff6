"""Numbers about generated images: distances, coverage, copies.

Everything is a pure function of arrays, computed in float64. A set is an array whose first
dimension counts items; further dimensions are flattened. `features` are those of a classifier
(models/metrics/classifier.py); the same formulas hold in any space, pixels included. A distance
between two finite sets of the *same* source is not zero: report it beside the distance of real data
held out from training, computed with as many items.

References: Heusel et al. 2017 (Frechet distance); Binkowski et al. 2018 (kernel distance);
Kynkaanniemi et al. 2019 (precision, recall); Naeem et al. 2020 (density, coverage).
"""

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.memory_maps import release

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
    a, b = paired(features_a, features_b, ("features_a", "features_b"), least=2)
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
    a, b = paired(features_a, features_b, ("features_a", "features_b"), least=4)
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
    real, fake = paired(real, fake, ("real", "fake"), least=k + 1)
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
    first = _matrix(train_uint8[:1], "train_uint8", 1)
    for name, images in (("generated_uint8", generated), ("train_uint8", first)):
        if images.dtype != torch.uint8:
            raise ValueError(f"{name} holds {images.dtype}, wanted torch.uint8 (bytes 0..255)")
    _check_sizes(generated, first, ("generated_uint8", "train_uint8"))
    drawn = [row.tobytes() for row in generated.cpu().numpy()]
    wanted, copied = set(drawn), set[bytes]()
    # The training set may be larger than memory: a part at a time.
    for some in _row_parts(len(train_uint8), first.shape[1]):
        part = _matrix(train_uint8[some], "train_uint8", 1).cpu().numpy()
        copied.update(wanted.intersection(row.tobytes() for row in part))
        if isinstance(train_uint8, np.ndarray):
            release(train_uint8)
    return sum(row in copied for row in drawn) / len(drawn)


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


def paired(a: Array, b: Array, names: tuple[str, str], least: int) -> tuple[Tensor, Tensor]:
    """Two sets as (items, numbers per item) float64 on one device.

    Raises ValueError, with these names, for fewer items than `least` or for unequal sizes.
    """
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
