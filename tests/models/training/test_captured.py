"""Updates as a GPU records them. Without a GPU: their form, run as it is; with one: their bits.

The tests on a GPU need PyTorch alone: `python -m pytest tests/models/training/test_captured.py`.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from models.diffusion.model import Diffusion, velocity_steps
from models.diffusion.model import labelled_batches as diffusion_batches
from models.diffusion.model import make_optimizer as diffusion_optimizer
from models.diffusion.recipe import diffusion_recipe
from models.gan.model import Gan, labelled_batches, optimizers_of
from models.gan.recipe import gan_recipe
from models.gan.stability import ControlConfig, StabilityMonitor, controlled_state, controlled_steps
from models.gpt.model import Gpt
from models.gpt.model import make_optimizer as gpt_optimizer
from models.gpt.recipe import gpt_recipe
from models.presets import ImageShape, TextShape
from models.training import captured
from models.training.adversarial import Unscaled, adversarial_steps, captured_adversarial_steps
from models.training.batches import ImageBatches, TokenBatches, generator_at
from models.training.captured import Watch, held, refill
from models.training.checkpoint import TrainingState
from models.training.config import FitConfig
from models.training.device import make_repeatable
from models.training.loops import (
    Diverged,
    Step,
    captured_likelihood_steps,
    likelihood_steps,
    update_ema,
)
from models.vae.model import Vae
from models.vae.model import make_optimizer as vae_optimizer
from models.vae.recipe import vae_recipe

NUM_STEPS = 24
on_a_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU that PyTorch can use"
)
Steps = Callable[[int], Iterator[Step]]


@pytest.fixture
def repeatable() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    make_repeatable()
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def pixels(device: str) -> tuple[Tensor, Tensor]:
    generator = generator_at(0, 0)
    images = torch.randint(256, (200, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return images.to(device), (torch.arange(200) % 10).to(device)


def vae(device: str, loop: Any = likelihood_steps) -> tuple[TrainingState, Steps]:
    config, fit = vae_recipe("quick", ImageShape(1, 8, 8), 0).values()
    fit = replace(fit, steps=NUM_STEPS, batch_size=16)
    torch.manual_seed(0)
    model = Vae(replace(config, kl_warmup_steps=10)).to(device)
    optimizer = vae_optimizer(model, fit)
    batches = ImageBatches(pixels(device)[0], fit.batch_size, fit.seed)
    state = TrainingState({"model": model}, {"all": optimizer})
    return state, lambda start: loop(model, optimizer, batches.at, fit, start)


def gpt(device: str, loop: Any = likelihood_steps) -> tuple[TrainingState, Steps]:
    config, fit = gpt_recipe("quick", TextShape("characters", 65, 4000), 0).values()
    fit = replace(fit, steps=NUM_STEPS, batch_size=4, weight_decay=0.1)
    torch.manual_seed(0)
    model = Gpt(replace(config, ngram_rows=64, dropout=0.1)).to(device)
    optimizer = gpt_optimizer(model, fit)
    tokens = torch.randint(65, (4000,), generator=generator_at(0, 0)).to(device)
    batches = TokenBatches(tokens, config.context_length, fit.batch_size, fit.seed)
    state = TrainingState({"model": model}, {"all": optimizer})
    return state, lambda start: loop(model, optimizer, batches.at, fit, start)


def gan(device: str, loss: str = "relativistic") -> tuple[TrainingState, Steps]:
    """Under its monitor, as the product trains it."""
    config, fit = gan_recipe("quick", ImageShape(1, 8, 8, 10), 0, loss).values()  # type: ignore[arg-type]
    fit = replace(fit, steps=NUM_STEPS, batch_size=16)
    torch.manual_seed(0)
    model = Gan(replace(config, discriminator_updates=2, augment_probability=0.5)).to(device)
    images, labels = pixels(device)
    monitor = StabilityMonitor(
        ControlConfig(check_interval=5, grace_steps=5), (images.float() / 255, labels)
    )
    state = controlled_state(model, optimizers_of(model, fit.learning_rate), monitor)
    batches = labelled_batches(ImageBatches(images, fit.batch_size, fit.seed), labels)
    return state, lambda _: controlled_steps(model, state, batches, fit, monitor)


def diffusion(device: str, loop: Any = velocity_steps) -> tuple[TrainingState, Steps]:
    """With moved images and dropout, which a preset may lack."""
    config, fit = diffusion_recipe("quick", ImageShape(1, 8, 8, 10), 0).values()
    fit = replace(fit, steps=NUM_STEPS, batch_size=16)
    torch.manual_seed(0)
    model = Diffusion(replace(config, augment_probability=0.5, dropout=0.1)).to(device)
    images, labels = pixels(device)
    model.normalise_by(images)
    optimizer = diffusion_optimizer(model, fit)
    batches = diffusion_batches(ImageBatches(images, fit.batch_size, fit.seed), labels)
    state = TrainingState({"model": model}, {"all": optimizer})
    return state, lambda start: loop(model, optimizer, batches, fit, start)


def played(state: TrainingState, steps: Steps, upto: int, start: int = 0) -> dict[str, float]:
    for step in islice(steps(start), upto - start):
        state.step = step.step
    return step.numbers()


FAMILIES = pytest.mark.parametrize(
    "family",
    [
        vae,
        gpt,
        diffusion,
        gan,
        lambda device: gan(device, "hinge"),
        lambda device: gan(device, "wasserstein"),
    ],
    ids=["vae", "gpt", "diffusion", "gan", "gan-hinge", "gan-wasserstein"],
)


@pytest.mark.parametrize("family", [vae, gpt, diffusion], ids=["vae", "gpt", "diffusion"])
def test_the_form_that_is_recorded_makes_the_same_updates(family: Any) -> None:
    # A few steps: rounding grows, as in all training.
    plain = played(*family("cpu"), 8)
    recorded = played(*family("cpu", captured_likelihood_steps), 8)

    assert recorded == pytest.approx(plain, rel=1e-4)


def test_the_recorded_form_of_a_game_makes_the_same_moves() -> None:
    def last_of(loop: Any) -> dict[str, float]:
        config, fit = gan_recipe("quick", ImageShape(1, 8, 8, 10), 0).values()
        fit = replace(fit, steps=NUM_STEPS, batch_size=16)
        torch.manual_seed(0)
        model = Gan(replace(config, discriminator_updates=2, augment_probability=0.5))
        images, labels = pixels("cpu")
        batches = labelled_batches(ImageBatches(images, 16, 0), labels)
        optimizers = optimizers_of(model, fit.learning_rate)
        *_, step = loop(model, optimizers, batches, fit, 0, Unscaled())
        found: dict[str, float] = step.numbers()
        return found | {"average": float(model.average.paint.weight.detach().std())}

    assert last_of(captured_adversarial_steps) == pytest.approx(
        last_of(adversarial_steps), rel=1e-3
    )


def test_a_state_with_rates_on_the_device_is_json() -> None:
    state, steps = vae("cpu", captured_likelihood_steps)
    played(state, steps, 5)
    record = json.loads(json.dumps(state.snapshot()[1]))

    assert 0 < record["optimizers"]["all"]["groups"][0]["lr"] < 1


def test_after_a_broken_update_no_weight_changes_any_more() -> None:
    for family, name in ((vae, "encoder.heads.bias"), (gpt, "blocks.0.expand")):
        state, steps = family("cpu", captured_likelihood_steps)
        model = state.modules["model"]
        whole = model.losses

        def losses(batch: Any, step: Tensor, whole: Any = whole) -> dict[str, Tensor]:
            terms: dict[str, Tensor] = whole(batch, step)
            return terms | {"loss": terms["loss"] * (math.nan if int(step) == 7 else 1)}

        model.losses = losses  # type: ignore[assignment, method-assign]
        before = None
        with pytest.raises(Diverged, match=r"^step 8: loss nan.*lower the learning rate"):
            for step in steps(0):
                if step.step == 7:
                    before = model.state_dict()[name].clone()
        assert before is not None
        assert torch.equal(model.state_dict()[name], before)


def test_a_watch_remembers_the_first_fault() -> None:
    watch, step = Watch(torch.device("cpu")), torch.tensor(3.0)
    watch.look(0, step, torch.tensor(1.0), torch.tensor(2.0))
    assert watch.verdict() is None

    watch.look(1, step + 1, torch.tensor(math.inf), torch.tensor(2.0))
    watch.look(0, step + 2, torch.tensor(1.0), torch.tensor(2.0))

    assert watch.verdict() == (1, 4, math.inf, 2.0)


def test_batches_are_written_into_the_same_memory() -> None:
    memory = held((torch.zeros(2, 2).T, None))
    where = memory[0].data_ptr()
    refill(memory, (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), None))

    assert memory[0].tolist() == [[1, 2], [3, 4]]
    assert memory[0].data_ptr() == where
    assert memory[1] is None


def test_an_average_with_its_decay_in_a_tensor() -> None:
    averages = [torch.nn.Linear(2, 2) for _ in range(2)]
    averages[1].load_state_dict(averages[0].state_dict())
    model = torch.nn.Linear(2, 2)
    for average, decay in zip(averages, (0.75, torch.tensor(0.75)), strict=True):
        update_ema(average, model, decay)

    assert torch.allclose(averages[0].weight, averages[1].weight)


@on_a_gpu
@FAMILIES
@pytest.mark.usefixtures("repeatable")
def test_one_seed_gives_the_same_bits_on_a_gpu(family: Any) -> None:
    found = []
    for _ in range(2):
        state, steps = family("cuda")
        played(state, steps, NUM_STEPS)
        found.append(state.snapshot()[0])

    assert_same_bits(*found)


@on_a_gpu
@FAMILIES
@pytest.mark.usefixtures("repeatable")
def test_replaying_gives_the_bits_of_running(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state, steps = family("cuda")
    played(state, steps, NUM_STEPS)
    monkeypatch.setattr(captured, "PLAIN_UPDATES", NUM_STEPS)
    plain, plain_steps = family("cuda")
    played(plain, plain_steps, NUM_STEPS)

    assert_same_bits(state.snapshot()[0], plain.snapshot()[0])


@on_a_gpu
@FAMILIES
@pytest.mark.usefixtures("repeatable")
def test_a_training_on_a_gpu_resumes_bit_for_bit(family: Any) -> None:
    whole, steps = family("cuda")
    played(whole, steps, NUM_STEPS)
    first, steps = family("cuda")
    played(first, steps, NUM_STEPS // 2)
    tensors, record = first.snapshot()
    second, steps = family("cuda")
    second.restore(load(save(tensors)), json.loads(json.dumps(record)))
    played(second, steps, NUM_STEPS, NUM_STEPS // 2)

    assert_same_bits(whole.snapshot()[0], second.snapshot()[0])


@on_a_gpu
@pytest.mark.usefixtures("repeatable")
def test_a_broken_update_is_noticed_on_a_gpu_and_changes_no_weight() -> None:
    class Fragile(torch.nn.Module):
        is_capturable = True

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

        def losses(self, batch: Tensor, step: Tensor) -> dict[str, Tensor]:
            loss = ((self.weight - batch) ** 2).mean()
            factor = torch.where(step == 9, torch.full_like(loss, math.inf), torch.ones_like(loss))
            return {"loss": loss * factor}

    model = Fragile().to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    fit = FitConfig(steps=60, learning_rate=0.1, warmup_steps=0)
    batch, weights = torch.zeros(2, device="cuda"), []
    with pytest.raises(Diverged, match=r"^step 10: loss inf"):
        for _ in likelihood_steps(model, optimizer, lambda _: batch, fit):
            weights.append(model.weight.detach().clone())

    assert torch.equal(model.weight, weights[8])
    assert not torch.equal(weights[8], weights[7])


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert set(one) == set(other)
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
