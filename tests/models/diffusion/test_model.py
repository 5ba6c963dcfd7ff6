"""The velocity network, what it is taught, its samples, its likelihood and its training loop."""

import dataclasses
import hashlib
import json
import math
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from models.diffusion import likelihood, sampling
from models.diffusion.augmentation import moved
from models.diffusion.config import DiffusionConfig
from models.diffusion.likelihood import bits_per_dimension, log_density, log_likelihood
from models.diffusion.model import Diffusion, labelled_batches, make_optimizer, velocity_steps
from models.diffusion.networks import VelocityNetwork
from models.diffusion.recipe import diffusion_recipe
from models.diffusion.sampling import images_of, noise_of, sample
from models.presets import ImageShape
from models.training.batches import ImageBatches
from models.training.checkpoint import TrainingState
from models.training.config import FitConfig
from models.training.loops import Diverged
from models.training.stored_data import StoredRows

TINY = DiffusionConfig(
    num_classes=2,
    base_width=4,
    dense_width=8,
    dense_blocks=1,
    embedding_size=8,
)
PLAIN = dataclasses.replace(TINY, num_classes=0)


def squares(num_images: int = 64) -> tuple[Tensor, Tensor]:
    """Class 0: a bright left half; class 1: a bright right half; brightness varies."""
    labels = torch.arange(num_images) % 2
    images = torch.zeros(num_images, 1, 8, 8, dtype=torch.uint8)
    bright = torch.linspace(150, 250, num_images).to(torch.uint8)[:, None, None]
    images[labels == 0, 0, :, :4] = bright[labels == 0]
    images[labels == 1, 0, :, 4:] = bright[labels == 1]
    return images, labels


def state_of(model: Diffusion, rate: float) -> TrainingState:
    modules = {name: getattr(model, name) for name in ("network", "average")}
    return TrainingState(modules, {"all": make_optimizer(model, FitConfig(learning_rate=rate))})


def digest(module: nn.Module) -> str:
    parts = [value.contiguous().numpy().tobytes() for value in module.state_dict().values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def shaken(config: DiffusionConfig, seed: int = 0) -> VelocityNetwork:
    """A network none of whose layers is zero: what it learns in training, it has by chance."""
    torch.manual_seed(seed)
    network = VelocityNetwork(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


class GaussianVelocity(VelocityNetwork):
    """The best velocity where images are normal of a known covariance (D, D)."""

    def __init__(self, config: DiffusionConfig, covariance: Tensor) -> None:
        super().__init__(config)
        self.covariance = covariance

    def forward(self, points, times, labels=None, moves=None):
        t, one = float(times[0]), torch.eye(len(self.covariance))
        between = t**2 * self.covariance + (1 - t) ** 2 * one
        mean = torch.linalg.solve(between, t * self.covariance - (1 - t) * one)
        return (points.flatten(1) @ mean.mT).view_as(points)


def correlated(size: int = 64) -> Tensor:
    """Neighbouring pixels alike, and some much more varied than others."""
    places = torch.arange(size)
    scales = torch.linspace(0.5, 1.5, size)
    return 0.6 ** (places[:, None] - places).abs() * scales * scales[:, None]


@pytest.mark.parametrize("height", [8, 13, 28, 64])
@pytest.mark.parametrize(("width", "channels"), [(8, 1), (31, 3)])
def test_any_image_size_goes_through_the_network(height, width, channels):
    config = dataclasses.replace(TINY, height=height, width=width, channels=channels)
    network = shaken(config)
    points = torch.randn(3, channels, height, width, requires_grad=True)

    velocity = network(points, torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0, 1, 0]))

    assert velocity.shape == points.shape
    assert velocity.isfinite().all()


def test_every_pixel_is_painted_and_seen():
    config = dataclasses.replace(PLAIN, height=13, width=9)
    network = shaken(config)
    points = torch.randn(1, 1, 13, 9, requires_grad=True)

    learned = network._learned(points, torch.randn(1, 8))
    (gradient,) = torch.autograd.grad(learned[0, 0, 0, 0], points)

    assert learned.std() > 0
    assert (learned != 0).all()
    assert (gradient != 0).all()  # the dense layers join all places


def test_grids_halve_until_the_shorter_side_is_small():
    config = DiffusionConfig(height=28, width=64)

    assert config.grids() == [(14, 32), (7, 16)]
    assert config.widths() == [config.base_width, min(2 * config.base_width, config.max_width)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", 7),
        ("width", 65),
        ("channels", 2),
        ("num_classes", -1),
        ("base_width", 0),
        ("dense_blocks", -1),
        ("dropout", 1.0),
        ("label_dropout", -0.1),
        ("time_mean", float("nan")),
        ("time_spread", 0.0),
        ("augment_probability", 1.5),
        ("augment_shift", -1.0),
        ("augment_turn", float("nan")),
        ("ema_half_life_fraction", 0.0),
        ("solver", "rk45"),
        ("sampling_steps", 0),
        ("sampling_spread", float("inf")),
        ("time_shift", 0.0),
        ("guidance", float("nan")),
    ],
)
def test_an_impossible_setting_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} must .*{value}"):
        DiffusionConfig(**{field: value})


def test_guidance_without_images_of_no_class_is_refused():
    with pytest.raises(ValueError, match="label_dropout needs num_classes"):
        DiffusionConfig(label_dropout=0.1)
    with pytest.raises(ValueError, match=r"guidance must be 1 where label_dropout is 0, got 2\.0"):
        DiffusionConfig(num_classes=3, guidance=2.0)
    assert DiffusionConfig(num_classes=3, guidance=2.0, label_dropout=0.1).guidance == 2


def test_a_new_network_has_the_best_velocity_for_normal_images():
    """E[z - e | x] = (2 t - 1) / (t^2 + (1 - t)^2) x for z, e ~ N(0, 1), by least squares."""
    network = VelocityNetwork(PLAIN)
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 200_000, generator=generator)

    for time in (0.0, 0.2, 0.5, 0.9, 1.0):
        points = time * images + (1 - time) * noise
        slope = (points @ (images - noise)) / (points @ points)  # regression through the origin
        probe = torch.randn(2, 1, 8, 8)
        velocity = network(probe, torch.full((2,), time))
        torch.testing.assert_close(velocity, slope * probe, atol=0.03, rtol=0.01)


def test_the_loss_of_a_new_network_is_what_no_linear_velocity_can_know():
    """The variance of z - e given x is 1 / (t^2 + (1 - t)^2), averaged over the times."""
    model = Diffusion(dataclasses.replace(PLAIN, time_spread=1.5))
    pixels = torch.randint(256, (512, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    model.normalise_by(pixels.to(torch.uint8))
    torch.manual_seed(0)

    errors, times = model.squared_errors((pixels / 255, None))
    torch.manual_seed(0)
    terms = model.losses((pixels / 255, None), 0)

    expected = 1 / (times.square() + (1 - times).square())
    assert errors.mean().item() == pytest.approx(expected.mean().item(), rel=0.01)
    assert terms["loss"] == errors.mean()
    is_early = times < 0.5
    assert terms["loss_near_noise"].item() == pytest.approx(errors[is_early].mean().item())
    assert terms["loss_near_data"].item() == pytest.approx(errors[~is_early].mean().item())


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (-1.0, 0.5)])
def test_times_are_logit_normal_and_come_from_every_slice(mean, spread):
    model = Diffusion(dataclasses.replace(PLAIN, time_mean=mean, time_spread=spread))
    torch.manual_seed(0)

    times = model.times(1000, torch.device("cpu"))

    normal = torch.distributions.Normal(mean, spread)
    slices = (normal.cdf(times.logit()) * 1000).clamp(0, 999.5).long()
    assert len(slices.unique()) > 990  # rounding may carry one across the edge of its slice
    assert abs(torch.corrcoef(torch.stack([times, torch.arange(1000.0)]))[0, 1]) < 0.1


def test_normalising_takes_mean_and_deviation_of_the_images():
    network = VelocityNetwork(PLAIN)
    pixels, _ = squares()

    network.normalise_by(pixels)
    points = network.normalised(pixels / 255)

    assert points.mean(0).abs().max() < 1e-5
    assert points.square().mean().item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(network.images_of(points), pixels / 255)
    network.normalise_by(pixels[:1].expand(3, -1, -1, -1))
    assert network.normalised(pixels / 255).isfinite().all()


def test_moments_of_images_a_part_at_a_time_are_theirs(monkeypatch):
    pixels, _ = squares()
    whole, parts = VelocityNetwork(PLAIN), VelocityNetwork(PLAIN)
    whole.normalise_by(pixels)
    monkeypatch.setattr("models.diffusion.networks.SUMMED_AT_ONCE", 3 * pixels[0].numel())

    parts.normalise_by(StoredRows(pixels.numpy()))

    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.deviation, whole.deviation)


def test_a_missing_label_is_refused():
    with pytest.raises(AssertionError, match="labels are needed"):
        VelocityNetwork(TINY)(torch.zeros(1, 1, 8, 8), torch.zeros(1))


def test_the_label_changes_what_is_drawn():
    network = shaken(TINY)
    noise = noise_of(TINY, 4, seed=0)

    first, second = (images_of(network, noise, torch.full((4,), label)) for label in (0, 1))

    assert (first - second).abs().mean() > 0.01


def test_shuffled_labels_move_with_their_images():
    images, labels = squares()
    batches = ImageBatches(images, 16, seed=3)

    batch, chosen = labelled_batches(batches, labels)(5)

    assert chosen is not None
    assert ((batch[:, 0, 0, 7] > 0).long() == chosen).all()
    assert labelled_batches(batches, None)(5)[1] is None


@pytest.mark.parametrize("time_shift", [1.0, 0.5])
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("multistep", 2)])
def test_more_steps_come_nearer_to_the_exact_samples_in_the_solvers_order(
    solver, order, time_shift
):
    """The flow of a normal distribution is known: noise e becomes the root of the covariance e."""
    config = dataclasses.replace(PLAIN, solver=solver, time_shift=time_shift)
    network = GaussianVelocity(config, correlated())
    noise = noise_of(config, 8, seed=0)
    values, vectors = torch.linalg.eigh(correlated())
    exact = noise.flatten(1) @ (vectors * values.sqrt()) @ vectors.mT

    errors = [
        (sampling.carried(network, noise, None, steps, 1.0).flatten(1) - exact).abs().mean()
        for steps in (20, 40, 80)
    ]

    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)
    assert errors[-1] < 0.05


def test_a_time_shift_below_one_puts_more_steps_near_the_image():
    even, late = (
        sampling.sampling_times(dataclasses.replace(PLAIN, time_shift=shift), 4)
        for shift in (1.0, 0.5)
    )

    assert even == [0, 0.25, 0.5, 0.75, 1]
    assert late == pytest.approx([0, 0.4, 2 / 3, 6 / 7, 1])
    assert late[-1] == 1


def test_samples_of_a_known_gaussian_have_its_moments():
    config = dataclasses.replace(PLAIN, sampling_steps=20)
    network = GaussianVelocity(config, correlated())
    network.mean.fill_(0.5)
    network.deviation.fill_(0.05)  # ten deviations from black and white

    points = network.normalised(sample(network, 20_000, seed=0)).flatten(1)

    assert points.mean(0).abs().max() < 0.05
    torch.testing.assert_close(points.mT.cov(), correlated(), atol=0.06, rtol=0)


def test_samples_depend_on_the_seed_alone(monkeypatch):
    network = shaken(TINY)
    before = torch.get_rng_state()

    first = sample(network, 5, seed=1)

    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(first, sample(network, 5, seed=1))
    assert not torch.equal(first, sample(network, 5, seed=2))
    assert first.shape == (5, 1, 8, 8)
    assert 0 <= first.min() <= first.max() <= 1
    monkeypatch.setattr(sampling, "DRAWN_AT_ONCE", 2)
    torch.testing.assert_close(first, sample(network, 5, seed=1), atol=1e-4, rtol=0)


def test_without_labels_each_class_is_drawn_in_turn():
    network = shaken(TINY)

    assert torch.equal(sample(network, 4, 0), sample(network, 4, 0, torch.tensor([0, 1, 0, 1])))


def test_a_low_temperature_makes_samples_alike_and_a_spread_is_one():
    network = shaken(PLAIN)
    wide = VelocityNetwork(dataclasses.replace(PLAIN, sampling_spread=1.25)).eval()
    wide.load_state_dict(network.state_dict())

    spreads = [sample(network, 64, 1, temperature=each).std(0).mean() for each in (0.01, 1.0)]

    assert spreads[0] < 0.2 * spreads[1]
    assert torch.equal(sample(wide, 4, 1), sample(network, 4, 1, temperature=1.25))
    assert not torch.equal(sample(wide, 4, 1), sample(network, 4, 1))


def test_guidance_leads_from_no_class_past_the_class_asked_for():
    config = dataclasses.replace(TINY, label_dropout=0.2, solver="euler")
    network = shaken(config)
    noise, labels, none = noise_of(config, 3, 0), torch.tensor([0, 1, 1]), torch.tensor([2, 2, 2])

    def one_step(guidance: float, labels: Tensor = labels) -> Tensor:
        return sampling.carried(network, noise, labels, 1, guidance)

    plain, classless = one_step(1.0), one_step(1.0, none)
    torch.testing.assert_close(one_step(0.0), classless)
    torch.testing.assert_close(one_step(3.0), classless + 3 * (plain - classless))
    with pytest.raises(ValueError, match="guidance must be 1, got 2"):
        sample(shaken(TINY), 1, 0, guidance=2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be positive, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_impossible_wishes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sample(VelocityNetwork(PLAIN), **({"num_samples": 1, "seed": 0} | options))


def test_the_density_of_a_gaussian_is_that_of_the_textbook():
    """At the time END some of the noise is left: covariance + ((1 - END) / END)^2."""
    network = GaussianVelocity(PLAIN, correlated())
    left = ((1 - likelihood.END) / likelihood.END) ** 2
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(64), correlated() + left * torch.eye(64)
    )
    torch.manual_seed(0)
    points = torch.cat([normal.sample((3,)), 2 * torch.randn(3, 64)])
    every_pixel = likelihood._probes(torch.Size([6, 1, 8, 8]), 0, [])

    found = log_density(network, points.view(-1, 1, 8, 8), None, every_pixel, steps=24)

    torch.testing.assert_close(found, normal.log_prob(points).double(), atol=0.02, rtol=1e-4)


def test_more_steps_bring_the_likelihood_nearer_to_its_limit():
    network = GaussianVelocity(PLAIN, correlated())
    pixels = torch.randint(256, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(torch.uint8)

    limit = log_likelihood(network, pixels, steps=80)
    errors = [(log_likelihood(network, pixels, steps=each) - limit).abs().max() for each in (6, 24)]

    assert errors[1] < errors[0] / 20
    assert errors[1] < 0.05


def test_random_directions_estimate_the_divergence_with_the_stated_variance():
    covariance = correlated()
    network = GaussianVelocity(PLAIN, covariance)
    x = torch.zeros(4000, 1, 8, 8)
    generators = [torch.Generator().manual_seed(i) for i in range(4000)]
    probes = likelihood._probes(x.shape, 2, generators)

    _, found = likelihood._velocity(network, x, 0.4, None, probes)

    one = torch.eye(64)
    jacobian = torch.linalg.solve(
        0.16 * covariance + 0.36 * one, 0.4 * covariance - 0.6 * one
    ).double()
    off_diagonal = jacobian - jacobian.diag().diag()
    variance = float((off_diagonal + off_diagonal.mT).square().sum() / 2 / 2)
    assert found.mean().item() == pytest.approx(
        float(jacobian.trace()), abs=4 * math.sqrt(variance / 4000)
    )
    assert found.var().item() == pytest.approx(variance, rel=0.1)
    _, exact = likelihood._velocity(
        network, x[:2], 0.4, None, likelihood._probes(x[:2].shape, 0, [])
    )
    assert exact.tolist() == pytest.approx([float(jacobian.trace())] * 2)


def test_the_levels_of_a_pixel_have_at_most_probability_one():
    """Equal pixels under a new network are independent and alike: its 64th part is one's."""
    network = VelocityNetwork(PLAIN)
    network.deviation.fill_(0.08)
    levels = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 1, 8, 8)

    nats = log_likelihood(network, levels) / 64
    normal = torch.distributions.Normal(0.5, 0.08)
    middles = torch.arange(256) / 255
    exact = (normal.cdf(middles + 0.5 / 255) - normal.cdf(middles - 0.5 / 255)).log()

    assert 0.99 < nats.exp().sum() < 1
    near = (middles - 0.5).abs() < 0.3  # further out single precision ends the differences
    torch.testing.assert_close(nats[near].float(), exact[near], atol=0.02, rtol=0.02)


def test_an_image_is_as_likely_alone_as_in_company(monkeypatch):
    network = shaken(TINY)
    pixels, labels = squares(4)

    together = log_likelihood(network, pixels, labels, seed=3, steps=4)

    assert together.dtype == torch.float64
    monkeypatch.setattr(likelihood, "CARRIED_AT_ONCE", 3)
    torch.testing.assert_close(
        together, log_likelihood(network, pixels, labels, seed=3, steps=4), atol=1e-2, rtol=1e-4
    )
    assert not torch.equal(together, log_likelihood(network, pixels, labels, seed=4, steps=4))
    assert not torch.equal(together, log_likelihood(network, pixels, 1 - labels, seed=3, steps=4))


def test_a_wrong_question_for_the_likelihood_is_refused():
    network = VelocityNetwork(PLAIN)
    with pytest.raises(ValueError, match=r"pixels must be levels, of uint8, got torch\.float32"):
        log_likelihood(network, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"steps must be at least 2 .* got 1 and 1"):
        log_likelihood(network, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), steps=1)


def test_bits_per_dimension_of_a_fair_choice_of_256_levels():
    assert bits_per_dimension(torch.tensor([-64 * math.log(256)]), 64).item() == pytest.approx(8)


def test_a_shift_moves_whole_pixels_and_the_network_is_told():
    config = dataclasses.replace(PLAIN, augment_probability=1.0, augment_shift=1.0)
    image = torch.zeros(64, 1, 8, 8)
    image[:, 0, 4, 4] = 1.0
    torch.manual_seed(0)

    images, shares = moved(image, config)

    places = torch.arange(8.0)
    across = (images[:, 0].sum(1) * places).sum(1)  # centres of mass
    down = (images[:, 0].sum(2) * places).sum(1)
    torch.testing.assert_close(across, 4 + shares[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(down, 4 + shares[:, 1], atol=1e-4, rtol=0)
    assert not shares[:, 2:].any()


def test_a_turn_and_a_zoom_keep_shapes_on_images_that_are_not_square():
    config = DiffusionConfig(
        height=32,
        width=64,
        augment_probability=1.0,
        augment_shift=0.0,
        augment_turn=0.7,
        augment_zoom=0.3,
    )
    rows, columns = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(64) - 31.5, indexing="ij")
    disc = torch.exp(-(rows.square() + (columns - 8).square()) / 8).expand(16, 1, 32, 64)
    torch.manual_seed(0)

    images, shares = moved(disc, config)

    mass = images[:, 0].sum((1, 2))
    across = (images[:, 0] * columns).sum((1, 2)) / mass
    down = (images[:, 0] * rows).sum((1, 2)) / mass
    reach, angle = 8 * (0.3 * shares[:, 2]).exp(), 0.7 * shares[:, 3]
    torch.testing.assert_close(torch.hypot(across, down), reach, atol=0.1, rtol=0)
    torch.testing.assert_close(torch.atan2(down, across), -angle, atol=0.02, rtol=0)


def test_images_that_are_not_chosen_stay_as_they_are():
    config = dataclasses.replace(PLAIN, augment_probability=0.5, augment_zoom=0.2)
    images = torch.rand(64, 1, 8, 8)
    torch.manual_seed(0)

    changed, shares = moved(images, config)

    stays = (shares == 0).all(1)
    assert 16 < stays.sum() < 48
    assert torch.equal(changed[stays], images[stays])
    assert (changed[~stays] != images[~stays]).flatten(1).any(1).all()


def test_a_network_that_is_told_of_no_move_draws_what_was_not_moved():
    network = shaken(dataclasses.replace(PLAIN, augment_probability=0.5))
    points, times = torch.randn(2, 1, 8, 8), torch.rand(2)

    unmoved = network(points, times, moves=torch.zeros(2, 4))

    assert torch.equal(network(points, times), unmoved)
    assert not torch.equal(network(points, times, moves=torch.ones(2, 4)), unmoved)


def train(model: Diffusion, fit: FitConfig) -> None:
    images, labels = squares()
    model.normalise_by(images)
    batch_at = labelled_batches(ImageBatches(images, fit.batch_size, fit.seed), labels)
    for _ in velocity_steps(model, make_optimizer(model, fit), batch_at, fit):
        pass


def test_training_learns_which_half_is_bright():
    torch.manual_seed(0)
    model = Diffusion(dataclasses.replace(TINY, base_width=8, dense_width=32, embedding_size=32))

    train(model, FitConfig(steps=100, batch_size=32, learning_rate=5e-3))

    images = sample(model.average.eval(), 64, seed=0)  # classes in turn
    left, right = images[..., :4].mean(dim=(1, 2, 3)), images[..., 4:].mean(dim=(1, 2, 3))
    is_right = ((right > left).long() == torch.arange(64) % 2).float().mean()
    assert is_right > 0.95


def test_the_averaged_network_follows_the_one_that_learns():
    images, labels = squares()
    model = Diffusion(TINY)
    fit = FitConfig(steps=4, batch_size=16, warmup_steps=1)
    batch_at = labelled_batches(ImageBatches(images, 16, 0), labels)
    weight, average = model.network.paint.weight, model.average.paint.weight
    expected = weight.detach().clone()

    for step in velocity_steps(model, make_optimizer(model, fit), batch_at, fit):
        decay = model.average_decay_at(step.step - 1)
        expected = decay * expected + (1 - decay) * weight.detach()
        torch.testing.assert_close(average, expected)

    assert [model.average_decay_at(step) for step in (0, 1, 40)] == [0.0, 0.5, 0.5 ** (1 / 2)]
    assert not average.requires_grad


def test_a_resumed_run_equals_an_uninterrupted_one():
    images, labels = squares()
    fit = FitConfig(steps=12, batch_size=16, learning_rate=1e-3)
    batch_at = labelled_batches(ImageBatches(images, 16, fit.seed), labels)
    config = dataclasses.replace(
        TINY, augment_probability=0.5, label_dropout=0.3, dropout=0.2, height=8
    )
    torch.manual_seed(0)
    whole = Diffusion(config)
    torch.manual_seed(0)
    broken = Diffusion(config)

    train(whole, fit)
    broken.normalise_by(images)
    state = state_of(broken, fit.learning_rate)
    for step in velocity_steps(broken, state.optimizers["all"], batch_at, fit):
        state.step = step.step
        if step.step == 5:
            break
    tensors, record = state.snapshot()
    torch.manual_seed(7)
    again = Diffusion(config)
    resumed = state_of(again, fit.learning_rate)
    resumed.restore(load(save(tensors)), json.loads(json.dumps(record)))
    for _ in velocity_steps(again, resumed.optimizers["all"], batch_at, fit, start=resumed.step):
        pass

    assert digest(again.network) == digest(whole.network) != digest(broken.network)
    assert digest(again.average) == digest(whole.average)


def test_a_saved_network_draws_and_judges_the_same():
    network = shaken(TINY)
    network.normalise_by(squares()[0])
    told = json.loads(json.dumps(dataclasses.asdict(TINY)))
    twin = VelocityNetwork(DiffusionConfig(**told)).eval()

    plain = {name: value.contiguous() for name, value in network.state_dict().items()}
    twin.load_state_dict(load(save(plain)))

    pixels, labels = squares(2)
    assert torch.equal(sample(twin, 4, seed=0), sample(network, 4, seed=0))
    assert torch.equal(
        log_likelihood(twin, pixels, labels, steps=3),
        log_likelihood(network, pixels, labels, steps=3),
    )


def test_training_that_diverges_is_stopped_before_the_update():
    images, labels = squares()
    model = Diffusion(TINY)
    model.normalise_by(images)
    fit = FitConfig(steps=5, batch_size=16, learning_rate=1e-3)
    with torch.no_grad():
        model.network.look.weight.fill_(math.inf)
    before = digest(model.average)

    with pytest.raises(Diverged, match="step 1: loss"):
        next(
            velocity_steps(
                model,
                make_optimizer(model, fit),
                labelled_batches(ImageBatches(images, 16, 0), labels),
                fit,
            )
        )
    assert digest(model.average) == before


def test_weight_decay_spares_biases_and_the_average_is_not_optimised():
    model = Diffusion(TINY)

    weights, others = make_optimizer(model, FitConfig(weight_decay=0.1)).param_groups

    assert (weights["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim == 1 for p in others["params"])
    held = {id(p) for group in (weights, others) for p in group["params"]}
    assert held == {id(p) for p in model.network.parameters()}


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 30), (3, 32, 32), (1, 64, 64)], ids=str)
@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_recipe_trains_on_any_shape(shape, num_classes):
    images = torch.randint(256, (6, *shape), dtype=torch.uint8)
    labels = torch.arange(6) % 3 if num_classes else None
    config, fit = diffusion_recipe("quick", ImageShape(*shape, num_classes), 0).values()
    model, batches = Diffusion(config), ImageBatches(images, 6, seed=0)
    model.normalise_by(images)

    steps = velocity_steps(
        model, make_optimizer(model, fit), labelled_batches(batches, labels), fit
    )

    assert {"loss", "loss_near_noise", "loss_near_data"} <= set(next(steps).terms)
    assert sample(model.average.eval(), 2, seed=0).shape == (2, *shape)


def test_a_fuller_preset_trains_longer_and_the_seed_goes_through():
    fits = [
        diffusion_recipe(preset, ImageShape(1, 8, 8, 10), 5)["training"]
        for preset in ("quick", "standard", "full")
    ]

    assert [fit.seed for fit in fits] == [5] * 3
    steps = [fit.steps for fit in fits]
    assert steps == sorted(steps)
    assert len(set(steps)) == 3
