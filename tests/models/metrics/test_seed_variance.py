import numpy as np
import pytest
import torch

from models.metrics.images import frechet_distance
from models.metrics.seed_variance import SeedSpread, pooled_spread, resampled_frechet_distances


def features(number: int, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, 8, generator=torch.Generator().manual_seed(seed)) + shift


def test_resampling_every_row_once_would_give_the_frechet_distance():
    real, fake = features(4000), features(4000, shift=0.5, seed=1)

    resampled = resampled_frechet_distances(real, fake, num_resamples=50)

    exact = frechet_distance(real, fake)
    assert resampled.mean() == pytest.approx(exact, rel=0.03)
    assert resampled.std() > 0


def test_their_spread_is_that_of_fresh_real_items():
    """The standard error from one set matches what many sets scatter by; samples stay as drawn."""
    drawn = features(3000, shift=0.5, seed=901)
    fresh = [frechet_distance(features(300, seed=i), drawn) for i in range(200)]

    resampled = resampled_frechet_distances(features(300, seed=900), drawn)

    assert resampled.std() == pytest.approx(np.std(fresh), rel=0.35)


def test_resamples_of_one_set_are_the_same_for_models_with_different_numbers_of_samples():
    real, drawn = features(300), features(3000, shift=0.5, seed=1)

    first, second = (resampled_frechet_distances(real, each, 20) for each in (drawn, drawn[:2000]))

    assert np.corrcoef(first, second)[0, 1] > 0.99


def test_two_models_distances_are_paired():
    """Near twins differ less from resample to resample than either does by itself."""
    real, fake = features(300), features(300, shift=0.5, seed=1)
    twin = fake + 0.02 * features(300, seed=2)

    first, second = (resampled_frechet_distances(real, each, seed=5) for each in (fake, twin))

    assert np.std(first - second) < 0.2 * np.std(first)


def test_fewer_rows_than_features_are_no_special_case():
    assert np.isfinite(resampled_frechet_distances(features(5), features(6, seed=1), 10)).all()


def test_unequal_feature_counts_are_refused():
    with pytest.raises(ValueError, match="equally many features"):
        resampled_frechet_distances(features(5), features(5)[:, :3])


def test_the_pooled_spread_is_the_prior_until_there_is_a_history():
    prior = SeedSpread(0.01, 4)

    assert pooled_spread([], prior) == prior
    assert pooled_spread([[3.0], [5.0]], prior) == prior


def test_a_history_is_pooled_within_its_groups():
    """Worked by hand: the relative deviations of 9 and 11 are -0.1 and 0.1, so 2 hundredths."""
    spread = pooled_spread([[9.0, 11.0], [90.0, 110.0]], SeedSpread(0.1, 2))

    assert spread.degrees_of_freedom == 4
    assert spread.relative == pytest.approx(((0.02 + 0.02 + 2 * 0.01) / 4) ** 0.5)


def test_a_spread_of_results_below_zero_has_no_meaning():
    with pytest.raises(ValueError, match="above 0"):
        pooled_spread([[1.0, -1.0]], SeedSpread(0.1, 2))
