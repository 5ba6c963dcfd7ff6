import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from models.training.batches import ImageBatches
from models.training.config import FitConfig
from models.training.loops import likelihood_steps
from models.vae.config import VaeConfig
from models.vae.densities import gaussian_kl, log_mean_exp, logistic_log_likelihood
from models.vae.elbo import (
    active_units,
    binarize,
    collapse_alarm,
    importance_weighted_nll,
    negative_elbo,
)
from models.vae.latent_mixture import fit_mixture
from models.vae.model import Vae, make_optimizer


def tiny_vae(**changes):
    defaults = {"height": 8, "width": 8, "latent_size": 3, "base_width": 4, "hidden_size": 16}
    torch.manual_seed(0)
    return Vae(VaeConfig(**(defaults | changes))).eval()


def random_images(count, config, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, config.channels, config.height, config.width)
    return torch.randint(256, shape, generator=generator).float() / 255


def two_patterns(count):
    """Grey images of two kinds, left half or top half bright, with some noise: uint8."""
    generator = torch.Generator().manual_seed(5)
    images = torch.zeros(count, 1, 8, 8)
    images[::2, :, :, :4] = 200
    images[1::2, :, :4, :] = 200
    return (images + 50 * torch.rand(images.shape, generator=generator)).to(torch.uint8)


def fitted(model, images, **changes):
    config = FitConfig(**({"steps": 150, "batch_size": 32, "learning_rate": 3e-3} | changes))
    optimizer = make_optimizer(model, config)
    for _ in likelihood_steps(model, optimizer, ImageBatches(images, 32, 0).at, config):
        pass
    return model.eval()


class LinearDecoder(nn.Module):
    """The first pixel's logit is 3 z + 1, the others' 0, so that z can be integrated out."""

    def forward(self, z):
        return torch.cat([3 * z + 1, torch.zeros(len(z), 63)], dim=1).view(-1, 1, 8, 8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (30, 17), (8, 64), (64, 64), (9, 33)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic"])
def test_images_of_any_size_can_be_learned_and_drawn(channels, size, likelihood):
    model = tiny_vae(
        channels=channels,
        height=size[0],
        width=size[1],
        likelihood=likelihood,
        num_residual_blocks=1,
    )
    images = random_images(2, model.config)

    terms = model.losses(images, step=0)
    terms["loss"].backward()

    assert all(p.grad is not None for p in model.parameters())
    assert model.sample(2, seed=0).shape == model.reconstruct(images).shape == images.shape


def test_the_encoder_halves_images_until_seven_pixels_are_left():
    levels = {(8, 8): 1, (28, 28): 2, (30, 17): 3, (32, 32): 3, (64, 8): 4}

    for (height, width), num_levels in levels.items():
        assert VaeConfig(height=height, width=width).num_levels == num_levels
    assert VaeConfig(height=30, width=17).inner_size == (4, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 2}, "channels must be 1 (grey) or 3 (colour), got 2"),
        ({"height": 7}, "height must be between 8 and 64, got 7"),
        ({"width": 65}, "width must be between 8 and 64, got 65"),
        ({"latent_size": 0}, "latent_size must be between 1 and 4,096, got 0"),
        ({"free_bits_nats": -1.0}, "free_bits_nats must be between 0 and 1,000, got -1.0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"likelihood": "gauss"}, "likelihood must be one of bernoulli, logistic, got 'gauss'"),
        ({"free_bits_nats": 0.1, "num_importance_samples": 5}, "free_bits_nats needs"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        VaeConfig(**changes)


def test_the_kl_of_a_gaussian_equals_the_textbook_formula():
    mean, log_variance = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, math.log(4)])

    assert gaussian_kl(mean, log_variance).tolist() == pytest.approx(
        [0.0, 0.5, (4 - 1 - math.log(4)) / 2]
    )


def test_the_negative_elbo_is_the_sum_of_the_two_losses():
    model = tiny_vae()

    terms = model.losses(random_images(4, model.config), step=0)

    assert terms["kl"] > 0
    assert terms["negative_elbo"] == terms["reconstruction"] + terms["kl"] == terms["loss"]


def test_the_kl_weight_rises_linearly_to_one():
    model = tiny_vae(kl_warmup_steps=3)
    images = random_images(4, model.config)

    for step, weight in [(0, 0.25), (1, 0.5), (3, 1.0), (100, 1.0)]:
        torch.manual_seed(1)
        terms = model.losses(images, step)
        assert terms["kl_weight"] == weight
        expected = terms["reconstruction"] + weight * terms["kl"]
        assert terms["loss"].item() == pytest.approx(expected.item())


def test_free_bits_do_not_press_units_below_their_allowance():
    model = tiny_vae(free_bits_nats=0.5)  # three units near the prior: each has less than 0.5 nats
    terms = model.losses(random_images(4, model.config), step=0)

    assert terms["loss"].item() == pytest.approx(terms["reconstruction"].item() + 3 * 0.5)
    kl_gradient = torch.autograd.grad(
        terms["loss"] - terms["reconstruction"], model.encoder.heads.bias, allow_unused=True
    )[0]
    assert kl_gradient is None or not kl_gradient.any()


def test_the_importance_weighted_loss_lies_below_the_elbo_loss():
    torch.manual_seed(0)
    model = tiny_vae(num_importance_samples=50)
    model.decoder = LinearDecoder()
    model.config = VaeConfig(height=8, width=8, latent_size=1, num_importance_samples=50)
    model.encoder.heads = nn.Linear(16, 2)

    terms = model.losses(random_images(8, model.config), step=0)

    assert terms["loss"] < terms["negative_elbo"] - 0.01


def test_the_logistic_masses_of_all_levels_sum_to_one():
    levels = (torch.arange(256, dtype=torch.float64) / 255).view(256, 1, 1, 1)

    for mean in (0.0, 0.3, 0.999):
        for log_scale in (-9.0, -3.0, 1.0):
            log_masses = logistic_log_likelihood(
                levels, torch.tensor(mean), torch.tensor(log_scale, dtype=torch.float64)
            )
            assert log_masses.isfinite().all()
            assert log_masses.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_a_logistic_mass_equals_the_difference_of_two_sigmoids():
    level = torch.tensor([100 / 255], dtype=torch.float64)
    upper = 1 / (1 + math.exp(-(100.5 / 255 - 0.5) / 0.1))
    lower = 1 / (1 + math.exp(-(99.5 / 255 - 0.5) / 0.1))

    log_mass = logistic_log_likelihood(
        level, torch.tensor(0.5), torch.tensor(math.log(0.1), dtype=torch.float64)
    )

    assert log_mass.item() == pytest.approx(math.log(upper - lower), rel=1e-9)


def test_log_mean_exp_of_known_numbers():
    values = torch.tensor([[0.0, 1000.0], [math.log(3), 1000.0]])

    assert log_mean_exp(values).tolist() == pytest.approx([math.log(2), 1000.0])


def test_a_decoder_that_ignores_z_is_scored_exactly():
    """With q = prior, every bound equals -log p(x) of independent pixels."""
    model = tiny_vae()
    nn.init.zeros_(model.decoder.hidden.weight)
    nn.init.zeros_(model.encoder.heads.weight)
    images = binarize(random_images(5, model.config), seed=3)
    probabilities = torch.sigmoid(model.decode(torch.zeros(1, 3)))
    exact = -torch.where(images == 1, probabilities, 1 - probabilities).log().sum((1, 2, 3))

    terms = negative_elbo(model, images, seed=0)
    nll = importance_weighted_nll(model, images, num_samples=7, seed=0)

    torch.testing.assert_close(terms["reconstruction"], exact)
    assert not terms["kl"].any()
    torch.testing.assert_close(nll, exact)


def test_importance_weighting_converges_to_the_integral_over_z():
    """p(first pixel is on) = E over z ~ N(0, 1) of sigmoid(3 z + 1), by quadrature."""
    model = tiny_vae(latent_size=1)
    model.decoder = LinearDecoder()
    nn.init.normal_(model.encoder.heads.weight, std=0.1)
    images = torch.zeros(2, 1, 8, 8)
    images[1, 0, 0, 0] = images[1, 0, 5, 5] = 1
    points, masses = np.polynomial.hermite_e.hermegauss(100)
    lit = np.sum(masses / masses.sum() / (1 + np.exp(-3 * points - 1)))
    exact = [63 * math.log(2) - math.log(1 - lit), 63 * math.log(2) - math.log(lit)]

    nll = importance_weighted_nll(model, images, num_samples=20_000, seed=0)
    elbos = negative_elbo(model, images.repeat(500, 1, 1, 1), seed=0)["negative_elbo"]

    assert nll.tolist() == pytest.approx(exact, abs=0.02)
    assert elbos.mean() > np.mean(exact) + 0.05


def test_more_importance_samples_tighten_the_bound():
    model = tiny_vae(latent_size=1)
    model.decoder = LinearDecoder()
    images = binarize(random_images(300, model.config), seed=0)

    bounds = [negative_elbo(model, images, seed=0)["negative_elbo"].mean()]
    bounds += [importance_weighted_nll(model, images, k, seed=0).mean() for k in (5, 100)]

    assert bounds[0] > bounds[1] > bounds[2]


def test_an_image_scores_the_same_alone_and_in_company():
    model = tiny_vae()
    images = binarize(random_images(1200, model.config), seed=0)

    together = importance_weighted_nll(model, images, num_samples=3, seed=4)
    fewer = importance_weighted_nll(model, images[:7], num_samples=3, seed=4)

    torch.testing.assert_close(together[:7], fewer)
    assert together[0] != importance_weighted_nll(model, images[:1], num_samples=3, seed=5)


def test_grey_images_have_no_probability_under_a_bernoulli_model():
    model = tiny_vae()
    with pytest.raises(ValueError, match="binarize"):
        importance_weighted_nll(model, random_images(2, model.config), num_samples=2, seed=0)
    logistic = tiny_vae(likelihood="logistic")
    assert negative_elbo(logistic, random_images(2, model.config), 0)["kl"].shape == (2,)


def test_binarisation_is_a_fixed_fair_draw():
    images = torch.full((50, 1, 20, 20), 0.25)

    binary = binarize(images, seed=1)

    assert set(binary.unique().tolist()) == {0.0, 1.0}
    assert binary.mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(binary, binarize(images, seed=1))
    assert not torch.equal(binary, binarize(images, seed=2))
    assert torch.equal(binarize(binary, seed=7), binary)


def test_active_units_are_those_whose_posterior_mean_varies():
    model = tiny_vae(latent_size=3)
    images = random_images(50, model.config)
    with torch.no_grad():
        model.encoder.heads.weight[0] *= 1000
        model.encoder.heads.weight[1:3] = 0

    assert active_units(model, images) == 1
    assert active_units(model, images, threshold=-1) == 3


def test_the_alarm_tells_collapse_from_health():
    assert collapse_alarm(0.05, 0, 16).startswith("posterior collapse: 0 of 16")
    assert collapse_alarm(9.0, 7, 16).startswith("partial posterior collapse: only 7 of 16")
    assert collapse_alarm(20.0, 8, 16) is None


def test_the_same_seed_draws_the_same_samples_and_leaves_the_global_generator_alone():
    model = tiny_vae()
    before = torch.get_rng_state()

    for sampler in ("normal", "mixture"):
        first = model.sample(5, seed=3, sampler=sampler)
        assert torch.equal(first, model.sample(5, seed=3, sampler=sampler))
        assert not torch.equal(first, model.sample(5, seed=4, sampler=sampler))
    assert torch.equal(before, torch.get_rng_state())
    cold = model.sample(3, seed=0, temperature=0)
    torch.testing.assert_close(cold, torch.sigmoid(model.decode(torch.zeros(3, 3))))


def test_unknown_samplers_and_negative_temperatures_are_refused():
    with pytest.raises(ValueError, match="sampler must be"):
        tiny_vae().sample(1, sampler="vamp")
    with pytest.raises(ValueError, match="temperature must not be negative, got -1"):
        tiny_vae().sample(1, temperature=-1)


def test_an_interpolation_starts_and_ends_at_the_reconstructions():
    model = tiny_vae()
    images = random_images(2, model.config)

    path = model.interpolate(images[0], images[1], num_steps=5)

    torch.testing.assert_close(path[[0, -1]], model.reconstruct(images))
    assert path.shape == (5, 1, 8, 8)


def test_training_learns_two_patterns_and_the_mixture_finds_them():
    images = two_patterns(64)
    model = fitted(tiny_vae(latent_size=2, num_mixture_components=2), images)
    grey = images.float() / 255
    binary = binarize(grey, seed=0)

    fit_mixture(model, grey, seed=0)
    drawn = model.sample(100, seed=1, sampler="mixture", temperature=0.3)

    untrained = tiny_vae(latent_size=2)
    learned, start = (
        negative_elbo(m, binary, 0)["negative_elbo"].mean() for m in (model, untrained)
    )
    assert learned < start - 10
    assert (model.reconstruct(grey) - grey).abs().mean() < 0.12
    patterns = torch.stack([grey[::2].mean(0), grey[1::2].mean(0)])
    distances = (drawn[:, None] - patterns).abs().mean((2, 3, 4))  # (100, 2)
    assert (distances.min(1).values < 0.12).float().mean() > 0.9
    assert 25 < (distances[:, 0] < distances[:, 1]).sum() < 75


def test_the_mixture_recovers_known_gaussians():
    """The encoder is replaced by one that reads the code off two pixels."""

    class ReadPixels(nn.Module):
        def forward(self, images):
            means = images.flatten(1)[:, :2]
            return means, torch.full_like(means, -20.0)

    model = tiny_vae(latent_size=2, num_mixture_components=2)
    model.encoder = ReadPixels()
    generator = torch.Generator().manual_seed(2)
    images = torch.zeros(4000, 1, 8, 8)
    images[:, 0, 0, :2] = 0.5 * torch.randn(4000, 2, generator=generator)
    images[:1000, 0, 0, 0] += 5
    images[1000:, 0, 0, 1] -= 3

    fit_mixture(model, images, seed=0)

    order = model.mixture_weights.argsort()
    assert model.mixture_weights[order].tolist() == pytest.approx([0.25, 0.75], abs=0.01)
    expected = torch.tensor([[5.0, 0.0], [0.0, -3.0]])
    torch.testing.assert_close(model.mixture_means[order], expected, atol=0.06, rtol=0)
    covariances = model.mixture_factors @ model.mixture_factors.mT
    torch.testing.assert_close(covariances, 0.25 * torch.eye(2).expand(2, 2, 2), atol=0.03, rtol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_a_mixture_of_more_gaussians_than_images_is_still_proper(count):
    model = tiny_vae()

    fit_mixture(model, random_images(count, model.config), seed=0)

    assert model.mixture_weights.sum().item() == pytest.approx(1)
    assert model.sample(20, seed=0, sampler="mixture").isfinite().all()


def test_a_saved_model_draws_the_same_from_its_mixture():
    model = fitted(tiny_vae(), two_patterns(32), steps=5)
    fit_mixture(model, two_patterns(32).float() / 255, seed=0)
    twin = tiny_vae()
    before = twin.sample(4, seed=0, sampler="mixture")

    twin.load_state_dict(model.state_dict())

    assert torch.equal(
        twin.sample(4, seed=0, sampler="mixture"), model.sample(4, seed=0, sampler="mixture")
    )
    assert not torch.equal(before, twin.sample(4, seed=0, sampler="mixture"))


def test_weight_decay_spares_biases():
    model = tiny_vae()

    weights, others = make_optimizer(model, FitConfig(weight_decay=0.1)).param_groups

    assert (weights["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim == 1 for p in others["params"])
    assert len(weights["params"]) + len(others["params"]) == len(list(model.parameters()))
