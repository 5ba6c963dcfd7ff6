import math

import numpy as np
import pytest
import torch

from models.metrics.bootstrap import bootstrap_mean_interval, paired_bootstrap


def test_interval_covers_the_true_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(400):
        interval = bootstrap_mean_interval(generator.exponential(size=80), 500, seed=trial)
        hits += interval.low < 1 < interval.high

    assert 0.90 < hits / 400 < 0.97  # percentile intervals of skewed data cover slightly less


def test_interval_has_the_width_of_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, size=2000)

    interval = paired_bootstrap(values, num_resamples=4000)

    error = values.std() / math.sqrt(2000)
    assert interval.mean == pytest.approx(values.mean(), rel=1e-12)
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_interval_narrows_with_its_level_and_repeats_with_its_seed():
    values = [1.0, 2.0, 4.0, 8.0, 9.0]
    wide, narrow = bootstrap_mean_interval(values), bootstrap_mean_interval(values, level=0.5)

    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high
    assert bootstrap_mean_interval(values, seed=1) == bootstrap_mean_interval(values, seed=1)
    assert bootstrap_mean_interval(values, 50, seed=1) != bootstrap_mean_interval(values, 50)
    assert bootstrap_mean_interval(torch.full((5,), 2.0)) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: bootstrap_mean_interval([1.0]), "at least 2 values"),
        (lambda: paired_bootstrap([1.0, math.inf]), "finite"),
        (lambda: bootstrap_mean_interval([1.0, 2.0], level=1.0), "0 < level < 1"),
    ],
)
def test_bad_input_is_named(compute, message):
    with pytest.raises(ValueError, match=message):
        compute()
