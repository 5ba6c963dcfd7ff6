import numpy as np
import pytest
import torch

from models.vae.config import VaeConfig
from models.vae.evaluation import likelihood
from models.vae.model import Vae


def test_bits_per_dimension_are_the_nats_of_a_pixels_colour() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)
    model = Vae(
        VaeConfig(channels=3, height=8, width=8, likelihood="logistic", latent_size=2, base_width=8)
    ).eval()

    found = likelihood(model, pixels, seed=0)

    assert found.nats.shape == (20,)
    expected = found.nats.mean() / (3 * 8 * 8) / np.log(2)
    assert found.metrics["test_bits_per_dimension"] == pytest.approx(expected)
    assert found.unit == "256 levels"


def test_grey_pixels_are_binarised_by_the_seed_and_have_no_bits_per_dimension() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)
    model = Vae(VaeConfig(channels=1, height=8, width=8, latent_size=2, base_width=8)).eval()

    found, again = (likelihood(model, pixels, seed) for seed in (0, 0))

    assert found.unit == "binarised pixels"
    assert "test_bits_per_dimension" not in found.metrics
    assert found.metrics["test_nll_nats"] == pytest.approx(found.nats.mean())
    assert (found.nats == again.nats).all()
    assert (found.nats != likelihood(model, pixels, 1).nats).any()
