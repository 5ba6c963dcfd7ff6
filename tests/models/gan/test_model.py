"""The GAN's networks, the terms of its game, its sampling and its training loop."""

import dataclasses
import hashlib
import json

import pytest
import torch
from torch import nn

from models.gan.config import GanConfig
from models.gan.model import (
    Gan,
    discriminator_terms,
    generator_terms,
    labelled_batches,
    optimizers_of,
)
from models.gan.networks import Discriminator, Generator, fixed_latents, images_of, sample
from models.training.adversarial import adversarial_steps
from models.training.batches import ImageBatches
from models.training.checkpoint import TrainingState
from models.training.config import FitConfig
from models.training.loops import Diverged

TINY = GanConfig(
    num_classes=2, latent_size=4, base_width=4, dense_width=8, dense_blocks=1, blocks_per_stage=1
)


def squares(num_images: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Class 0: a bright left half; class 1: a bright right half; brightness varies."""
    labels = torch.arange(num_images) % 2
    images = torch.zeros(num_images, 1, 8, 8, dtype=torch.uint8)
    bright = torch.linspace(150, 250, num_images).to(torch.uint8)[:, None, None]
    images[labels == 0, 0, :, :4] = bright[labels == 0]
    images[labels == 1, 0, :, 4:] = bright[labels == 1]
    return images, labels


def state_of(gan: Gan, rate: float) -> TrainingState:
    modules = {name: getattr(gan, name) for name in ("generator", "discriminator", "average")}
    return TrainingState(modules, optimizers_of(gan, rate))


def digest(module: nn.Module) -> str:
    parts = [value.numpy().tobytes() for value in module.state_dict().values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def train(gan: Gan, fit: FitConfig, **options: object) -> TrainingState:
    images, labels = squares()
    batch_at = labelled_batches(ImageBatches(images, fit.batch_size, fit.seed), labels)
    state = state_of(gan, fit.learning_rate)
    for step in adversarial_steps(gan, state.optimizers, batch_at, fit, **options):
        state.step = step.step
    return state


class LinearDiscriminator(nn.Module):
    """Scores an image by 3 times the sum of its pixels: every gradient is known by hand."""

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return self.chosen(self.scores(images), labels)

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        return 3 * images.sum(dim=(1, 2, 3))[:, None] * torch.tensor([1.0, -1.0])

    def chosen(self, scores: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        return scores[:, 0]


@pytest.mark.parametrize("height", [8, 13, 28, 64])
@pytest.mark.parametrize(("width", "channels"), [(8, 1), (31, 3)])
def test_any_image_size_goes_through_both_networks(height, width, channels):
    config = dataclasses.replace(TINY, height=height, width=width, channels=channels)
    gan = Gan(config)

    images = gan.generator(torch.randn(3, 4), torch.tensor([0, 1, 0]))

    assert images.shape == (3, channels, height, width)
    assert gan.discriminator(images, torch.tensor([0, 1, 0])).shape == (3,)


def test_every_pixel_is_painted_and_judged():
    config = GanConfig(height=13, width=9, latent_size=4, base_width=4, dense_width=8)
    gan = Gan(config)
    latents = torch.randn(64, 4)

    images = gan.generator(latents)
    scores = gan.discriminator(images.detach().requires_grad_(True))

    assert (images.std(dim=0) > 0).all()
    probe = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(gan.discriminator(probe).sum(), probe)
    assert (gradient.abs().sum(dim=0) > 0).all()
    assert scores.std() > 0


def test_grids_halve_until_the_shorter_side_is_small():
    config = GanConfig(height=28, width=64)

    assert config.grids() == [(14, 32), (7, 16)]
    assert config.widths() == [config.base_width, 2 * config.base_width]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", 7),
        ("width", 65),
        ("channels", 2),
        ("num_classes", -1),
        ("latent_size", 0),
        ("loss", "vanilla"),
        ("sampling_spread", 0.0),
        ("class_weight", -0.1),
        ("penalty", float("nan")),
        ("augment_probability", 1.5),
        ("ema_half_life_fraction", 0.0),
    ],
)
def test_a_contradiction_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} must .*{value}"):
        GanConfig(**{field: value})


def test_residual_blocks_start_as_the_identity():
    for block in (*Generator(TINY).dense, *Discriminator(TINY).stages[0]):
        assert block.last.weight.abs().sum() == 0
        assert block.first.weight.abs().sum() > 0


def test_the_label_changes_image_and_score():
    torch.manual_seed(0)
    gan = Gan(TINY)
    latents = torch.randn(1, 4)

    first, second = (gan.generator(latents, torch.tensor([label])) for label in (0, 1))

    assert not torch.allclose(first, second)
    assert gan.discriminator(first, torch.tensor([0])) != gan.discriminator(
        first, torch.tensor([1])
    )


def test_a_missing_label_is_refused():
    with pytest.raises(AssertionError, match="labels are needed"):
        Generator(TINY)(torch.zeros(1, 4))


def test_the_relativistic_terms_equal_the_numbers_by_hand():
    # one pixel-sum apart: D(fake) - D(real) = 3 * (-0.5) * 64 / 64 pixels -> -1.5
    real = torch.zeros(2, 1, 8, 8)
    fake = torch.full((2, 1, 8, 8), -0.5 / 64)

    terms = discriminator_terms(LinearDiscriminator(), real, fake, None, "relativistic", 0.1)
    opposite = generator_terms(LinearDiscriminator(), real, fake, None, "relativistic")

    # gradient of every score: 3 at each of 64 pixels, squared norm 9 * 64 = 576
    assert terms["r1"].item() == pytest.approx(576)
    assert terms["r2"].item() == pytest.approx(576)
    assert terms["discriminator_loss"].item() == pytest.approx(
        0.20141327798275246 + 0.05 * 2 * 576, rel=1e-6
    )
    assert opposite["generator_loss"].item() == pytest.approx(1.7014132779827524, rel=1e-6)
    assert terms["discriminator_accuracy_real"] == terms["discriminator_accuracy_fake"] == 1


def test_the_class_loss_sees_real_images_and_the_weight_counts_it():
    real = torch.full((2, 1, 8, 8), 0.5 / 192)  # scores +0.5 as class 0, -0.5 as class 1
    fake = torch.full((2, 1, 8, 8), 100.0)
    labels = torch.tensor([0, 1])
    network = LinearDiscriminator()

    without = discriminator_terms(network, real, fake, labels, "hinge", 0.0)
    weighted = discriminator_terms(network, real, fake, labels, "hinge", 0.0, class_weight=0.25)

    # log(1 + e^-1) for the right label and log(1 + e) for the wrong one
    assert weighted["class_loss"].item() == pytest.approx((0.3132617 + 1.3132617) / 2, rel=1e-5)
    assert weighted["discriminator_loss"].item() == pytest.approx(
        without["discriminator_loss"].item() + 0.25 * weighted["class_loss"].item(), rel=1e-6
    )


@pytest.mark.parametrize("sizes", [{"num_classes": 1}, {"num_classes": 10, "num_packed": 2}])
def test_a_class_loss_without_a_class_to_each_image_is_refused(sizes):
    with pytest.raises(ValueError, match="class_weight above 0 needs num_classes"):
        GanConfig(class_weight=0.1, **sizes)


def test_the_hinge_terms_equal_the_numbers_by_hand():
    real = torch.full((2, 1, 8, 8), 0.25 / 192)  # scores 0.25
    fake = torch.full((2, 1, 8, 8), 0.5 / 192)  # scores 0.5: on the wrong side of the middle

    terms = discriminator_terms(LinearDiscriminator(), real, fake, None, "hinge", 0.1)

    assert terms["discriminator_loss"].item() == pytest.approx(0.75 + 1.5, rel=1e-5)
    assert terms["discriminator_accuracy_real"] == terms["discriminator_accuracy_fake"] == 0


def test_the_wasserstein_penalty_measures_the_slope():
    images = torch.zeros(2, 1, 8, 8)

    terms = discriminator_terms(LinearDiscriminator(), images, images, None, "wasserstein", 10.0)

    # slope 3 * sqrt(64) = 24, so the penalty is (24 - 1)^2
    assert terms["gradient_penalty"].item() == pytest.approx(529, rel=1e-5)
    assert terms["discriminator_loss"].item() == pytest.approx(5290, rel=1e-5)


def test_the_penalty_reaches_the_weights_of_the_discriminator():
    torch.manual_seed(0)
    discriminator = Discriminator(TINY)
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 0, 1, 1])

    norms = []
    for penalty in (0.0, 100.0):
        discriminator.zero_grad()
        terms = discriminator_terms(discriminator, images, images, labels, "relativistic", penalty)
        terms["discriminator_loss"].backward()
        norms.append(float(nn.utils.get_total_norm(p.grad for p in discriminator.parameters())))

    assert norms[0] < 1e-6  # equal images: nothing to tell apart
    assert norms[1] > 1e-2


def test_hinge_bounds_every_layer_by_its_largest_singular_value():
    torch.manual_seed(0)
    discriminator = Discriminator(dataclasses.replace(TINY, loss="hinge"))
    for _ in range(50):
        discriminator(torch.randn(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]))
    discriminator.eval()

    for layer in discriminator.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
            assert largest.item() == pytest.approx(1, abs=0.02)


def test_a_pack_is_judged_as_one():
    config = GanConfig(latent_size=4, base_width=4, dense_width=8, num_packed=2)
    discriminator = Discriminator(config)
    images = torch.randn(6, 1, 8, 8)

    assert discriminator(images).shape == (3,)
    probe = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(probe)[0], probe)
    assert (gradient.abs().sum(dim=(1, 2, 3)) > 0).tolist() == [True, True] + [False] * 4


@pytest.mark.parametrize("num_packed", [1, 2])
def test_towers_treat_every_channel_alike_and_the_dense_layers_join_them(num_packed):
    torch.manual_seed(0)
    config = dataclasses.replace(
        TINY, channels=3, num_classes=0, per_channel_branches=True, num_packed=num_packed
    )
    gan = Gan(config)
    alike = torch.rand(4, 1, 8, 8).expand(4, 3, 8, 8)
    seen = []
    gan.discriminator.join.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    images, scores = gan.generator(torch.randn(4, 4)), gan.discriminator(alike)
    of_towers = seen[0].unflatten(1, (3, -1))

    assert images.shape == (4, 3, 8, 8)
    assert not torch.equal(images[:, 0], images[:, 1])
    assert scores.shape == (4 // num_packed,)
    assert torch.equal(of_towers[:, 0], of_towers[:, 2])
    changed = alike.clone()
    changed[:, 1] = 0
    gan.discriminator(changed)
    again = seen[1].unflatten(1, (3, -1))
    assert torch.equal(again[:, 0], of_towers[:, 0])
    assert not torch.equal(again[:, 1], of_towers[:, 1])


def test_labelled_batches_keep_each_image_with_its_label():
    images, labels = squares()
    batches = ImageBatches(images, 16, seed=3)

    batch, chosen = labelled_batches(batches, labels)(5)

    assert chosen.tolist() == sorted(labels[batches.indices_at(5)].tolist())
    assert ((batch[:, 0, 0, 7] > 0).long() == chosen).all()


def test_augmentation_shifts_whole_images():
    config = dataclasses.replace(TINY, augment_probability=1.0, augment_shift=1)
    image = torch.full((256, 1, 8, 8), -1.0)
    image[:, :, 4, 4] = 1.0
    torch.manual_seed(0)

    moved = Gan(config)._augmented(image, progress=1.0)

    assert (moved.flatten(1).max(dim=1).values == 1).all()
    rows, columns = (moved[:, 0] == 1).nonzero()[:, 1], (moved[:, 0] == 1).nonzero()[:, 2]
    assert set(rows.tolist()) == set(columns.tolist()) == {3, 4, 5}
    assert torch.equal(Gan(config)._augmented(image, progress=0.0), image)


def test_samples_depend_on_the_seed_alone():
    torch.manual_seed(0)
    generator = Generator(TINY)

    first = sample(generator, 5, seed=1)
    torch.manual_seed(99)

    assert torch.equal(first, sample(generator, 5, seed=1))
    assert torch.allclose(first, sample(generator, 5, seed=1, batch_size=2), atol=1e-6)
    assert not torch.equal(first, sample(generator, 5, seed=2))
    assert first.shape == (5, 1, 8, 8)
    assert first.min() >= 0
    assert first.max() <= 1


def test_a_low_temperature_makes_samples_alike():
    torch.manual_seed(0)
    generator = Generator(GanConfig(latent_size=4, base_width=4, dense_width=8))

    spreads = [
        sample(generator, 64, seed=1, temperature=temperature).std(dim=0).mean()
        for temperature in (0.1, 1.0)
    ]

    assert spreads[0] < 0.2 * spreads[1]


def test_a_wider_spread_draws_as_a_higher_temperature_does():
    torch.manual_seed(0)
    wide = Generator(dataclasses.replace(TINY, sampling_spread=1.25))
    torch.manual_seed(0)
    plain = Generator(TINY)

    assert torch.equal(sample(wide, 4, seed=1), sample(plain, 4, seed=1, temperature=1.25))
    assert not torch.equal(sample(wide, 4, seed=1), sample(plain, 4, seed=1))


def test_fixed_latents_give_the_samples_of_their_seed():
    torch.manual_seed(0)
    generator, labels = Generator(TINY), torch.tensor([0, 1, 1])

    followed = images_of(generator, fixed_latents(TINY, 3, seed=4), labels)

    assert torch.equal(followed, sample(generator, 3, seed=4, labels=labels))


def test_a_number_of_samples_below_one_is_refused():
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        sample(Generator(TINY), 0, seed=1)


@pytest.mark.parametrize("loss", ["relativistic", "hinge", "wasserstein"])
def test_training_learns_which_half_is_bright(loss):
    torch.manual_seed(0)
    penalty = 10.0 if loss == "wasserstein" else 0.3
    gan = Gan(dataclasses.replace(TINY, loss=loss, penalty=penalty, base_width=8, dense_width=32))

    train(gan, FitConfig(steps=120, batch_size=16, learning_rate=3e-3, gradient_clip=1e3))

    images = sample(gan.average, 64, seed=0)  # classes in turn
    left, right = images[..., :4].mean(dim=(1, 2, 3)), images[..., 4:].mean(dim=(1, 2, 3))
    is_right = ((right > left).long() == torch.arange(64) % 2).float().mean()
    assert is_right > 0.95


def test_a_resumed_run_equals_an_uninterrupted_one():
    images, labels = squares()
    fit = FitConfig(steps=12, batch_size=16, learning_rate=1e-3)
    batch_at = labelled_batches(ImageBatches(images, 16, fit.seed), labels)
    config = dataclasses.replace(TINY, augment_probability=0.5, discriminator_updates=2)
    torch.manual_seed(0)
    whole = Gan(config)
    torch.manual_seed(0)
    broken = Gan(config)

    train(whole, fit)
    state = state_of(broken, fit.learning_rate)
    for step in adversarial_steps(broken, state.optimizers, batch_at, fit):
        state.step = step.step
        if step.step == 5:
            break
    tensors, record = state.snapshot()
    resumed = state_of(Gan(config), fit.learning_rate)
    resumed.restore(tensors, json.loads(json.dumps(record)))
    again = Gan(config)
    again.generator, again.discriminator, again.average = (
        resumed.modules[name] for name in ("generator", "discriminator", "average")
    )
    for _ in adversarial_steps(again, resumed.optimizers, batch_at, fit, start=resumed.step):
        pass

    for name in ("generator", "discriminator", "average"):
        assert digest(getattr(again, name)) == digest(getattr(whole, name))
    assert digest(whole.generator) != digest(whole.average)


def test_a_step_reports_the_game():
    torch.manual_seed(0)
    images, labels = squares()
    gan = Gan(TINY)
    fit = FitConfig(steps=1, batch_size=16)
    batch_at = labelled_batches(ImageBatches(images, 16, 0), labels)

    numbers = next(adversarial_steps(gan, optimizers_of(gan, 1e-3), batch_at, fit)).numbers()

    assert set(numbers) == {
        "generator_loss",
        "discriminator_loss",
        "r1",
        "r2",
        "discriminator_accuracy_real",
        "discriminator_accuracy_fake",
        "discriminator_gradient_norm",
        "generator_gradient_norm",
    }
    assert all(value >= 0 for value in numbers.values())


def test_each_update_leaves_the_other_network_alone():
    torch.manual_seed(0)
    gan = Gan(TINY)
    fit = FitConfig(steps=1, batch_size=16)
    images, labels = squares()
    batch_at = labelled_batches(ImageBatches(images, 16, 0), labels)
    optimizers = optimizers_of(gan, 1e-3)
    optimizers["generator"].param_groups[0]["lr"] = 0.0
    before = digest(gan.generator), digest(gan.discriminator)

    next(adversarial_steps(gan, optimizers, batch_at, fit))

    assert digest(gan.generator) == before[0]
    assert digest(gan.discriminator) != before[1]


def test_a_loss_that_is_not_finite_stops_before_the_update():
    torch.manual_seed(0)
    gan = Gan(TINY)
    before = digest(gan.discriminator)
    batch_at = lambda step: (torch.full((8, 1, 8, 8), float("nan")), torch.zeros(8).long())  # noqa: E731

    with pytest.raises(Diverged, match="step 1: discriminator loss nan"):
        next(adversarial_steps(gan, optimizers_of(gan, 1e-3), batch_at, FitConfig(steps=1)))

    assert digest(gan.discriminator) == before


def test_the_average_follows_with_a_growing_half_life():
    gan = Gan(dataclasses.replace(TINY, ema_half_life_fraction=0.1))

    assert gan.average_decay_at(0) == 0
    assert gan.average_decay_at(5) == 0.5  # half-life of one update, the shortest
    assert gan.average_decay_at(100) == pytest.approx(0.5 ** (1 / 10))
