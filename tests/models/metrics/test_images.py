import math

import numpy as np
import pytest
import torch

from models.metrics import images as images_module
from models.metrics.images import (
    exact_copy_rate,
    frechet_distance,
    kernel_distance,
    nearest_neighbour_distances,
    nearest_neighbour_ratio,
    precision_recall_density_coverage,
)


def with_moments(mean, covariance, num_items=50, seed=0):
    """Points whose sample mean and covariance (N - 1) are exactly the given ones."""
    points = np.random.default_rng(seed).normal(size=(num_items, len(mean)))
    points -= points.mean(0)
    whitened = points @ np.linalg.inv(np.linalg.cholesky(np.cov(points.T, ddof=1))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_lines_is_worked_by_hand():
    a = [[-1.0], [1.0]]  # mean 0, variance 2
    b = [[0.0], [3.0], [6.0]]  # mean 3, variance 9

    assert frechet_distance(np.array(a), np.array(b)) == pytest.approx(
        9 + (math.sqrt(2) - 3) ** 2, rel=1e-14
    )


def test_frechet_distance_of_tilted_gaussians_follows_the_closed_form():
    """For 2 x 2 matrices tr (S_a S_b)^(1/2) = sqrt(tr S_a S_b + 2 sqrt(det S_a S_b))."""
    a, b = np.array([[4.0, 1.0], [1.0, 2.0]]), np.array([[1.0, -0.7], [-0.7, 3.0]])
    trace = math.sqrt(np.trace(a @ b) + 2 * math.sqrt(np.linalg.det(a @ b)))
    expected = 1 + 4 + np.trace(a) + np.trace(b) - 2 * trace

    got = frechet_distance(with_moments([0, 0], a), with_moments([1, 2], b, num_items=80, seed=1))

    assert got == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_survives_fewer_items_than_features():
    generator = np.random.default_rng(0)
    few = generator.normal(size=(5, 40))
    axis_a, axis_b = np.zeros((2, 3)), np.zeros((2, 3))
    axis_a[:, 0] = axis_b[:, 1] = [-1, 1]  # variance 2 along orthogonal axes: no overlap

    assert frechet_distance(few, few) < 1e-12
    assert frechet_distance(few, few + 1) == pytest.approx(40, rel=1e-12)
    assert frechet_distance(axis_a, axis_b) == pytest.approx(4, rel=1e-14)


def test_frechet_distance_is_symmetric_and_keeps_float32_input_exact():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(30, 7, generator=generator) + 1000
    b = torch.randn(40, 7, generator=generator) * 2 + 1000

    forth, back = frechet_distance(a, b), frechet_distance(b, a)

    assert forth == pytest.approx(back, rel=1e-10)
    assert forth == pytest.approx(frechet_distance(a.double() - 1000, b.double() - 1000), rel=1e-9)


def cubic(x, y):
    return (sum(i * j for i, j in zip(x, y, strict=True)) / len(x) + 1) ** 3


def brute_discrepancy(a, b):
    within = [
        sum(cubic(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j)
        / (len(s) * (len(s) - 1))
        for s in (a, b)
    ]
    return sum(within) - 2 * sum(cubic(x, y) for x in a for y in b) / (len(a) * len(b))


def test_kernel_distance_averages_to_the_full_unbiased_estimate():
    """The mean over subsets of a U-statistic is the U-statistic of the whole sets."""
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(12, 3)), generator.normal(0.7, size=(16, 3))

    value, error = kernel_distance(a, b, num_subsets=1500)

    assert value == pytest.approx(brute_discrepancy(a, b), abs=4 * error / math.sqrt(1500))


def test_kernel_distance_worked_by_hand_on_four_points():
    a, b = [[1.0]] * 4, [[-1.0]] * 4  # within each set the kernel is 8, across it is 0

    assert kernel_distance(np.array(a), np.array(b)) == (16.0, 0.0)


@pytest.mark.parametrize("subset_size", [1000, 20])
def test_kernel_distance_error_is_the_spread_between_fresh_samples(subset_size):
    generator = np.random.default_rng(0)
    estimates = []
    for _ in range(150):
        a, b = generator.normal(size=(60, 2)), generator.normal(1, size=(90, 2))
        estimates.append(kernel_distance(a, b, 50, subset_size))
    values, errors = np.array(estimates).T

    assert errors.mean() == pytest.approx(values.std(), rel=0.25)


def test_kernel_distance_of_one_source_has_mean_zero():
    generator = np.random.default_rng(0)
    values = [
        kernel_distance(*generator.normal(size=(2, 60, 4)), num_subsets=20).value
        for _ in range(200)
    ]

    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(200)


def test_kernel_distance_repeats_with_its_seed():
    a, b = np.random.default_rng(0).normal(size=(2, 30, 4))

    assert kernel_distance(a, b, seed=3) == kernel_distance(a, b, seed=3)
    assert kernel_distance(a, b, seed=3) != kernel_distance(a, b, seed=4)


def brute_shares(real, fake, k):
    """The definitions of Naeem et al. 2020, item by item."""

    def distance(x, y):
        return math.sqrt(sum((i - j) ** 2 for i, j in zip(x, y, strict=True)))

    def radii(items):
        return [sorted(distance(x, y) for y in items)[k] for x in items]  # itself is the 0-th

    of_real, of_fake = radii(real), radii(fake)
    balls = [sum(distance(r, f) < of_real[i] for i, r in enumerate(real)) for f in fake]
    recalled = [any(distance(r, f) < of_fake[j] for j, f in enumerate(fake)) for r in real]
    covered = [any(distance(r, f) < of_real[i] for f in fake) for i, r in enumerate(real)]
    return {
        "precision": float(np.mean([count > 0 for count in balls])),
        "recall": float(np.mean(recalled)),
        "density": float(np.mean(balls)) / k,
        "coverage": float(np.mean(covered)),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_shares_agree_with_the_definitions_item_by_item(k, monkeypatch):
    monkeypatch.setattr("models.metrics.images.ENTRIES_AT_ONCE", 200)  # several parts
    generator = np.random.default_rng(k)
    real, fake = generator.normal(size=(40, 4)), generator.normal(0.5, 0.8, size=(33, 4)) + 100
    real = real + 100

    got = precision_recall_density_coverage(real, fake, k)

    assert got == pytest.approx(brute_shares(real.tolist(), fake.tolist(), k), abs=1e-12)
    assert 0 < got["recall"] < 1 and 0 < got["coverage"] < 1


def test_shares_worked_by_hand_on_a_line():
    real = np.array([[0.0], [1.0], [3.0]])  # radii for k = 1: 1, 1, 2
    fake = np.array([[0.5], [10.0]])  # radii for k = 1: 9.5, 9.5

    assert precision_recall_density_coverage(real, fake, k=1) == {
        "precision": 1 / 2,
        "recall": 1.0,
        "density": 2 / 2,  # 0.5 lies in the balls of 0 and 1, 10.0 in none
        "coverage": 2 / 3,
    }


def test_a_dropped_mode_costs_recall_and_coverage_but_no_precision():
    generator = np.random.default_rng(0)
    real = np.concatenate([generator.normal(size=(100, 2)), generator.normal(50, size=(100, 2))])
    fake = generator.normal(size=(200, 2))

    got = precision_recall_density_coverage(real, fake)

    assert got["precision"] > 0.9
    assert got["recall"] < 0.55 and got["coverage"] <= 0.5


def test_coverage_of_one_source_tends_to_one_minus_a_power_of_two():
    real, fake = np.random.default_rng(0).normal(size=(2, 2000, 3))

    got = precision_recall_density_coverage(real, fake, k=3)

    assert got["coverage"] == pytest.approx(1 - 2**-3, abs=0.03)
    assert got["density"] == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_shares_of_two_large_gaussians_match_the_published_ones():
    """The reference implementation's README: 10 000 draws each, 1000 dimensions, k = 5."""
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 10_000, 1000, generator=generator)

    got = precision_recall_density_coverage(real, fake, k=5)

    assert got["precision"] == pytest.approx(0.4772, abs=0.02)
    assert got["recall"] == pytest.approx(0.4705, abs=0.02)
    assert got["density"] == pytest.approx(1.0555, abs=0.04)
    assert got["coverage"] == pytest.approx(0.9735, abs=0.008)


def test_nearest_neighbours_agree_with_all_pairs(monkeypatch):
    monkeypatch.setattr("models.metrics.images.ENTRIES_AT_ONCE", 5000)  # several parts of each
    generator = np.random.default_rng(0)
    queries = generator.integers(0, 256, size=(2000, 1, 2, 2), dtype=np.uint8)
    references = generator.integers(0, 256, size=(37, 1, 2, 2), dtype=np.uint8)
    differences = queries[:, None].astype(float) - references
    expected = np.sqrt((differences**2).sum((2, 3, 4)).min(1))

    assert nearest_neighbour_distances(queries, references) == pytest.approx(expected, rel=1e-12)


def test_an_exact_copy_is_at_distance_zero_even_far_from_the_origin():
    references = np.random.default_rng(0).normal(1000, 1, size=(50, 64))

    distances = nearest_neighbour_distances(references[[7, 49]] + [[0], [0.5]], references)

    assert distances[0] == 0
    assert distances[1] == pytest.approx(math.sqrt(64) * 0.5, rel=1e-3)


def test_nearest_neighbour_ratio_is_worked_by_hand():
    train, test = np.array([[0.0], [10.0]]), np.array([[1.0], [13.0]])  # distances 1 and 3

    assert nearest_neighbour_ratio(np.array([[0.0], [9.0]]), test, train) == 0.25
    assert nearest_neighbour_ratio(train, test, train) == 0
    with pytest.raises(ValueError, match="every test item is in train"):
        nearest_neighbour_ratio(test, train, train)


def test_copies_are_counted_byte_for_byte():
    train = np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4)
    train.flags.writeable = False  # as a memory map is
    generated = np.concatenate([train[[2, 0, 2]], train[[1]] + 1])

    assert exact_copy_rate(generated, train) == 0.75
    with pytest.raises(ValueError, match=r"generated_uint8 holds torch\.float64"):
        exact_copy_rate(generated / 255, train)


def test_copies_are_found_in_every_part_of_a_mapped_training_set(tmp_path, monkeypatch):
    monkeypatch.setattr(images_module, "ENTRIES_AT_ONCE", 32)  # two images of 16 pixels
    random = np.random.default_rng(0)
    np.save(tmp_path / "train.npy", random.integers(0, 256, (7, 1, 4, 4), dtype=np.uint8))
    train = np.load(tmp_path / "train.npy", mmap_mode="r")
    generated = np.concatenate([train[[6, 3, 0, 6]], 255 - train[:4]])

    assert exact_copy_rate(generated, train) == 0.5
    with pytest.raises(ValueError, match="train_uint8 has 0 items"):
        exact_copy_rate(generated, train[:0])


def test_binarised_images_and_read_only_arrays_are_taken():
    images = np.random.default_rng(0).random((20, 1, 4, 4)) > 0.5
    images.flags.writeable = False

    assert nearest_neighbour_distances(~images[:3], ~images).tolist() == [0, 0, 0]
    assert frechet_distance(images, images) < 1e-12


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: frechet_distance(np.ones((1, 3)), np.ones((4, 3))), "features_a has 1 items"),
        (lambda: frechet_distance(np.ones((3, 3)), np.ones((4, 2))), "have 3 numbers"),
        (lambda: frechet_distance(np.full((3, 3), np.nan), np.ones((4, 3))), "not finite"),
        (lambda: kernel_distance(np.ones((4, 3)), np.ones((3, 3))), "features_b has 3 items"),
        (lambda: precision_recall_density_coverage(np.ones((5, 3)), np.ones((9, 3))), "real has 5"),
        (lambda: nearest_neighbour_distances(np.ones((0, 3)), np.ones((4, 3))), "queries has 0"),
    ],
)
def test_bad_input_is_named(compute, message):
    with pytest.raises(ValueError, match=message):
        compute()
