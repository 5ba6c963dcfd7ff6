"""The monitor: what it calls a fault, what it does then, and that both survive a restart."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
import torch

from models.gan.config import GanConfig
from models.gan.model import Gan, labelled_batches, optimizers_of
from models.gan.stability import (
    ControlConfig,
    StabilityMonitor,
    controlled_state,
    controlled_steps,
    entropy_of,
    spread_within_classes,
)
from models.training.adversarial import adversarial_steps
from models.training.batches import ImageBatches
from models.training.checkpoint import TrainingState
from models.training.config import FitConfig
from models.training.loops import Diverged

TINY = GanConfig(
    num_classes=2,
    latent_size=4,
    base_width=8,
    dense_width=32,
    dense_blocks=1,
    blocks_per_stage=1,
    penalty=0.3,
    final_penalty_fraction=0.1,
)
OFTEN = ControlConfig(check_interval=5, grace_steps=20, num_samples=64)
HEALTHY = {
    "discriminator_accuracy_real": 0.7,
    "discriminator_accuracy_fake": 0.6,
    "discriminator_gradient_norm": 1.0,
    "generator_gradient_norm": 1.0,
    "diversity": 0.9,
}


def bars() -> tuple[torch.Tensor, torch.Tensor]:
    """A bright bar somewhere in the left half (class 0) or in the right half (class 1)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    for index, row in enumerate(torch.randint(0, 7, (64,), generator=generator)):
        column = 4 * int(labels[index])
        images[index, 0, row : row + 2, column : column + 4] = 230
    return images, labels


def game(
    learning_rate: float, steps: int = 200, control: ControlConfig = OFTEN
) -> tuple[Gan, TrainingState, object, FitConfig, StabilityMonitor]:
    images, labels = bars()
    fit = FitConfig(
        steps=steps,
        batch_size=16,
        learning_rate=learning_rate,
        gradient_clip=1e6,
        warmup_steps=1,
        final_learning_rate_fraction=1.0,
        seed=1,
    )
    torch.manual_seed(0)
    gan = Gan(TINY)
    monitor = StabilityMonitor(control, (images.float() / 255, labels))
    state = controlled_state(gan, optimizers_of(gan, learning_rate), monitor)
    batch_at = labelled_batches(ImageBatches(images, 16, fit.seed), labels)
    return gan, state, batch_at, fit, monitor


def monitor_of(config: ControlConfig, **options: object) -> StabilityMonitor:
    images, labels = bars()
    return StabilityMonitor(config, (images.float() / 255, labels), **options)


def digest(state: TrainingState) -> str:
    tensors, record = state.snapshot()
    parts = [name.encode() + value.numpy().tobytes() for name, value in sorted(tensors.items())]
    return hashlib.sha256(b"".join(parts) + json.dumps(record).encode()).hexdigest()


def test_the_spread_is_half_the_mean_squared_distance_within_a_class():
    images = torch.tensor([0.0, 2.0, 10.0, 16.0]).reshape(4, 1, 1, 1)

    # class 0: (0 - 2)^2 / 2 = 2; class 1: (10 - 16)^2 / 2 = 18; mean 10
    assert spread_within_classes(images, torch.tensor([0, 0, 1, 1])) == pytest.approx(10)
    assert spread_within_classes(images, None) == pytest.approx(164 / 3)  # mean 7


def test_single_images_of_each_class_have_no_spread():
    with pytest.raises(ValueError, match="2 images with no two of one class"):
        spread_within_classes(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))


def test_the_entropy_of_a_histogram_is_in_nats():
    assert entropy_of(torch.tensor([0, 1, 2, 3])) == pytest.approx(math.log(4))
    assert entropy_of(torch.tensor([5, 5, 5])) == 0


@pytest.mark.parametrize(
    ("change", "diagnosis"),
    [
        ({"diversity": 0.01}, "collapse: samples vary 0.010 times"),
        ({"diversity": 9.0}, "noise: samples vary 9.0 times"),
        ({"generator_gradient_norm": 500.0}, "exploding gradients: generator_gradient_norm is 500"),
        (
            {"generator_gradient_norm": 1e-9},
            "vanishing gradients: generator_gradient_norm is 1e-09",
        ),
        (
            {
                "discriminator_accuracy_real": 1.0,
                "discriminator_accuracy_fake": 1.0,
                "generator_gradient_norm": 0.01,
            },
            "discriminator overwhelms: it is right on 100.0% of both sides",
        ),
    ],
)
def test_a_lasting_fault_is_named(change, diagnosis):
    monitor = monitor_of(ControlConfig(patience=3, grace_steps=0))

    assert monitor.observe(25, HEALTHY) is None
    assert monitor.observe(50, HEALTHY | change) is None
    assert monitor.observe(75, HEALTHY | change) is None
    found = monitor.observe(100, HEALTHY | change)

    assert found is not None
    assert diagnosis in found


def test_a_fault_that_passes_is_forgiven():
    monitor = monitor_of(ControlConfig(patience=2, grace_steps=0))

    for step in range(1, 9):
        diversity = 0.01 if step % 2 else 0.9
        assert monitor.observe(step, HEALTHY | {"diversity": diversity}) is None


def test_a_number_that_is_not_finite_needs_no_patience():
    found = monitor_of(ControlConfig()).observe(25, HEALTHY | {"r1": math.nan})

    assert found == "step 25: non-finite: r1 stopped being finite"


def test_poor_samples_are_no_fault_at_the_start():
    monitor = monitor_of(ControlConfig(patience=1, grace_steps=100))

    assert monitor.observe(100, HEALTHY | {"diversity": 0.0}) is None
    assert not monitor.is_healthy(100)
    assert monitor.observe(125, HEALTHY | {"diversity": 0.0}) is not None


def test_samples_that_were_better_before_are_a_relapse():
    monitor = monitor_of(ControlConfig(patience=2, grace_steps=0, largest_distance_growth=2.5))

    assert monitor.observe(1, HEALTHY | {"distance": 3.0}) is None
    assert monitor.observe(2, HEALTHY | {"distance": 1.0}) is None
    assert monitor.observe(3, HEALTHY | {"distance": 2.4}) is None
    assert monitor.is_healthy(3)
    assert monitor.observe(4, HEALTHY | {"distance": 2.6}) is None
    assert not monitor.is_healthy(4)
    found = monitor.observe(5, HEALTHY | {"distance": 8.0})
    assert found == (
        "step 5: relapse: samples are 8.0 times as far from the real images as the best so far"
    )


def test_a_look_measures_how_far_the_samples_are_from_real_images():
    gan, *_, monitor = game(2e-3)
    looks = monitor.measures(gan, seed=0, step=0)
    for module in gan.generator.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.zeros_(module.weight)  # grey everywhere
    grey = monitor.measures(gan, seed=0, step=0)
    real = (bars()[0].float() / 255).flatten(1).double()
    expected = (real.mean(0) - 0.5).square().sum() + real.var(0).sum()

    assert grey["distance"] == pytest.approx(float(expected), rel=1e-6)
    assert looks["distance"] != grey["distance"]


def test_a_share_of_the_entropy_that_is_too_small_is_a_collapse():
    monitor = monitor_of(ControlConfig(patience=1, grace_steps=0))

    assert monitor.observe(1, HEALTHY | {"class_entropy_share": 0.9}) is None
    found = monitor.observe(2, HEALTHY | {"class_entropy_share": 0.1})

    assert found is not None
    assert "collapse: the classes of the samples have 0.10 of the entropy" in found


def test_a_discriminator_that_knows_classes_tells_which_are_missing():
    """Its scores are set by hand: the right half's brightness for class 1, a constant for 0."""
    torch.manual_seed(0)
    gan = Gan(replace(TINY, class_weight=0.1))
    gan.discriminator.scores = lambda images: torch.stack(
        [torch.full((len(images),), -0.99), images[..., 4:].mean(dim=(1, 2, 3))], dim=1
    )
    monitor = monitor_of(ControlConfig(num_samples=64))
    gan.generator.forward = lambda latents, labels: bars()[0] / 127.5 - 1
    both = monitor.measures(gan, seed=0, step=0)
    gan.generator.forward = lambda latents, labels: -torch.ones(64, 1, 8, 8)
    none = monitor.measures(gan, seed=0, step=0)

    assert both["class_entropy_share"] == pytest.approx(1.0)
    assert none["class_entropy_share"] == 0.0
    assert "class_entropy_share" not in monitor.measures(Gan(TINY), seed=0, step=0)


@pytest.mark.slow
def test_a_healthy_run_is_left_as_it_is():
    gan, state, batch_at, fit, monitor = game(4e-3, steps=100)
    plain, plain_state, *_ = game(4e-3, steps=100)

    steps = list(controlled_steps(gan, state, batch_at, fit, monitor))
    for _ in adversarial_steps(plain, plain_state.optimizers, batch_at, fit):
        pass

    assert monitor.num_rollbacks == 0
    assert [step.step for step in steps] == list(range(1, 101))
    assert "diversity" in steps[4].terms
    assert "diversity" not in steps[3].terms
    for ours, theirs in zip(gan.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_going_back_restores_the_kept_state_more_than_once():
    gan, state, batch_at, fit, monitor = game(2e-3, steps=12)
    networks = ("generator", "discriminator", "average")
    steps = adversarial_steps(gan, state.optimizers, batch_at, fit)
    for step in steps:
        state.step = step.step
        if step.step == 3:
            break
    monitor.keep(state)
    kept = [{k: v.clone() for k, v in getattr(gan, n).state_dict().items()} for n in networks]

    for rollback in (1, 2):
        for step in adversarial_steps(gan, state.optimizers, batch_at, fit, state.step, monitor):
            state.step = step.step
        assert state.step == 12
        monitor.roll_back(state, "test")
        assert state.step == 3
        assert monitor.learning_rate_scale == 0.25**rollback
        assert monitor.penalty_scale == 1.5**rollback
        for name, tensors in zip(networks, kept, strict=True):
            for key, value in getattr(gan, name).state_dict().items():
                assert torch.equal(value, tensors[key])


def test_giving_up_tells_every_diagnosis():
    control = ControlConfig(max_rollbacks=2)
    _, state, _, _, monitor = game(2e-3, control=control)
    monitor.keep(state)
    monitor.roll_back(state, "first reason")
    monitor.roll_back(state, "second reason")

    with pytest.raises(Diverged, match=r"failed 3 times.*first reason; second reason; third"):
        monitor.roll_back(state, "third reason")


def test_a_batch_that_is_not_finite_ends_in_a_diagnosis():
    gan, state, batch_at, fit, monitor = game(2e-3, steps=5)

    def poisoned(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = batch_at(step)
        return images * (math.nan if step == 3 else 1), labels

    with pytest.raises(Diverged, match=r"failed 6 times.*non-finite: step 4: discriminator loss"):
        list(controlled_steps(gan, state, poisoned, fit, monitor))


@pytest.mark.slow
def test_a_sabotaged_run_fails_alone_and_is_saved_by_control():
    rate = 50 * 4e-3  # the recipe of the healthy run above, times 50
    alone, alone_state, batch_at, fit, judge = game(rate)
    for _ in adversarial_steps(alone, alone_state.optimizers, batch_at, fit):
        pass
    gan, state, batch_at, fit, monitor = game(rate)
    for _ in controlled_steps(gan, state, batch_at, fit, monitor):
        pass

    assert judge.measures(alone, seed=0, step=0)["diversity"] < 0.05
    assert judge.measures(gan, seed=0, step=0)["diversity"] > 0.25
    assert 1 <= monitor.num_rollbacks <= OFTEN.max_rollbacks
    assert all("step" in diagnosis for diagnosis in monitor.diagnoses)


@pytest.mark.parametrize("stop_at", [23, 30])
def test_a_run_resumed_before_a_fault_equals_an_uninterrupted_one(stop_at):
    """Training goes back at step 35; the run was killed before: between two looks, or at one."""
    gan, state, batch_at, fit, monitor = game(50 * 4e-3, steps=50)
    numbers = [step.step for step in controlled_steps(gan, state, batch_at, fit, monitor)]
    assert monitor.num_rollbacks >= 1
    assert max(numbers) == 50

    first = game(50 * 4e-3, steps=50)
    for step in controlled_steps(*first):
        if step.step == stop_at:
            break
    tensors, record = first[1].snapshot()
    second = game(50 * 4e-3, steps=50)
    second[1].restore(tensors, json.loads(json.dumps(record)))
    for _ in controlled_steps(*second):
        pass

    assert digest(second[1]) == digest(state)


@pytest.mark.parametrize(
    ("field", "value"), [("patience", 0), ("learning_rate_factor", 1.0), ("penalty_factor", 0.5)]
)
def test_a_control_that_cannot_help_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must .*{value}"):
        ControlConfig(**{field: value})
