import math

import numpy as np
import pytest
import torch

from models.metrics.classes import (
    class_counts,
    class_entropy,
    class_fidelity,
    mode_kl,
    mode_kl_floor,
    within_class_variance_ratio,
)


def test_modes_count_combinations_of_channels():
    counts = class_counts(np.array([[0, 2], [1, 0], [1, 0]]), num_classes=3)

    assert counts.tolist() == [0, 0, 1, 2, 0, 0, 0, 0, 0]
    assert class_counts(torch.tensor([1, 1, 0]), 4).tolist() == [1, 2, 0, 0]
    with pytest.raises(ValueError, match=r"labels lie in 0\.\.3, wanted 0\.\.2"):
        class_counts(np.array([0, 3]), 3)


def test_entropy_runs_from_one_class_to_all_classes():
    assert class_entropy(np.array([2, 2, 2]), 4) == 0
    assert class_entropy(np.array([0, 1, 2, 3]), 4) == pytest.approx(math.log(4))
    assert class_entropy(np.array([0, 0, 0, 1]), 4) == pytest.approx(
        0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    )


def test_mode_divergence_is_worked_by_hand():
    assert mode_kl(np.array([5, 5, 5])) == pytest.approx(0, abs=1e-15)
    assert mode_kl(np.array([8, 0, 0, 0])) == pytest.approx(math.log(4))
    assert mode_kl(np.array([3, 1])) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


@pytest.mark.parametrize(
    ("num_samples", "expected"), [(26_000, 0.0236), (50_000, 0.0144), (100_000, 0.0094)]
)
def test_floor_of_stacked_mnist_is_the_known_one(num_samples, expected):
    mnist = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])

    floor = mode_kl_floor(mnist, num_samples)

    assert floor.value == pytest.approx(expected, abs=0.0003)
    assert floor.standard_error < 0.0013
    assert floor == mode_kl_floor(mnist, num_samples)


def test_floor_of_few_modes_follows_the_chi_square_limit():
    """2 N KL is asymptotically chi-square with K - 1 degrees: mean (K - 1) / 2N."""
    floor = mode_kl_floor(np.ones(11), num_samples=5000, channels=1, num_draws=4000)

    assert floor.value == pytest.approx(10 / 10_000, rel=0.05)
    assert floor.standard_error == pytest.approx(math.sqrt(20) / 10_000, rel=0.1)


def test_variance_ratio_is_worked_by_hand():
    real = np.array([[0.0, 0], [2, 0], [10, 10], [10, 14]])  # variances 2 and 8
    generated = np.array([[5.0, 5], [6, 5], [7, 7]])  # class 0: 0.5; class 1: a single item

    ratio = within_class_variance_ratio(
        generated, np.array([0, 0, 1]), real, torch.tensor([0, 0, 1, 1])
    )

    assert ratio == pytest.approx(0.5 / 10)
    assert within_class_variance_ratio(real, [0, 0, 1, 1], real + 7, [0, 0, 1, 1]) == 1


def test_fidelity_is_the_share_of_agreement():
    assert class_fidelity(torch.tensor([1, 2, 3, 3]), np.array([1, 2, 3, 0])) == 0.75


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: class_entropy(np.array([], dtype=int), 3), "labels is empty"),
        (lambda: mode_kl(np.zeros(4)), "sum 0"),
        (
            lambda: class_fidelity(np.ones(3), np.ones(2)),
            r"predicted has shape \(3,\), wanted \(2,\)",
        ),
        (
            lambda: within_class_variance_ratio(np.ones((2, 1)), [0, 0], np.ones((2, 1)), [0, 1]),
            "class 0 of real has 1 item",
        ),
    ],
)
def test_bad_input_is_named(compute, message):
    with pytest.raises(ValueError, match=message):
        compute()
