import json
import math

import pytest
import torch
from torch import nn

from models.training.batches import (
    DATA_STREAM,
    NOISE_STREAM,
    ImageBatches,
    TokenBatches,
    generator_at,
    seed_at,
)
from models.training.checkpoint import TrainingState, num_parameters
from models.training.config import FitConfig
from models.training.loops import Diverged, likelihood_steps, update_ema


class NoisyRegression(nn.Module):
    """Two weights, a loss that uses the batch, the step and fresh noise, and a buffer."""

    def __init__(self, bad_step=None):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, -2.0]))
        self.register_buffer("num_seen", torch.tensor(0.0))
        self.bad_step = bad_step

    def losses(self, batch, step):
        self.num_seen += 1
        noise = torch.randn(2)
        loss = ((self.weight - batch + 0.1 * noise) ** 2).mean()
        if step == self.bad_step:
            loss = loss * math.inf
        return {"loss": loss, "noise": noise.sum()}


def batch_at(step):
    return torch.rand(2, generator=generator_at(0, step))


def images(count):
    """Image i is full of the value i."""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)


def test_seeds_differ_between_runs_steps_and_streams():
    seeds = {seed_at(s, n, k) for s in range(5) for n in range(5) for k in range(5)}

    assert len(seeds) == 125
    assert seed_at(1, 2, NOISE_STREAM) == seed_at(1, 2, NOISE_STREAM)
    assert seed_at(1, 2, NOISE_STREAM) != seed_at(1, 2, DATA_STREAM)


def test_a_generator_ignores_the_global_random_state():
    torch.manual_seed(1)
    first = torch.rand(3, generator=generator_at(7, 9))
    torch.manual_seed(2)

    assert torch.equal(first, torch.rand(3, generator=generator_at(7, 9)))


@pytest.mark.parametrize(
    "batches",
    [
        lambda seed: ImageBatches(images(23), 5, seed),
        lambda seed: TokenBatches(torch.arange(100), 8, 5, seed),
    ],
)
def test_a_batch_depends_on_seed_and_step_alone(batches):
    def at(seed, step, visited=()):
        source = batches(seed)
        for earlier in visited:
            source.at(earlier)
        batch = source.at(step)
        return batch if isinstance(batch, torch.Tensor) else batch[0]

    expected = at(3, 11)

    assert torch.equal(at(3, 11, visited=[50, 2, 12, 10]), expected)
    assert not torch.equal(at(4, 11), expected)
    assert not torch.equal(at(3, 12), expected)


def test_an_epoch_shows_no_image_twice_and_each_epoch_another_order():
    batches = ImageBatches(images(20), 5, seed=1)
    epochs = [
        torch.cat([batches.indices_at(4 * epoch + n) for n in range(4)]) for epoch in range(3)
    ]

    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(20))
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])


def test_an_incomplete_last_batch_is_dropped():
    batches = ImageBatches(images(13), 5, seed=1)
    seen = torch.cat([batches.indices_at(0), batches.indices_at(1)])

    assert len(set(seen.tolist())) == 10
    assert len(set(torch.cat([batches.indices_at(2), batches.indices_at(3)]).tolist())) == 10
    assert all(len(batches.indices_at(step)) == 5 for step in range(6))


def test_fewer_images_than_a_batch_are_served_whole():
    batches = ImageBatches(images(3), 5, seed=1)

    assert sorted(batches.indices_at(4).tolist()) == [0, 1, 2]


def test_images_arrive_between_zero_and_one():
    batches = ImageBatches(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), 3, 0)
    batch = batches.at(0)

    assert batch.dtype == torch.float32
    assert sorted(batch.flatten().tolist()) == pytest.approx([0.0, 0.2, 1.0])


def test_targets_are_the_inputs_shifted_by_one():
    inputs, targets = TokenBatches(torch.arange(100, dtype=torch.uint8), 8, 16, seed=2).at(0)

    assert inputs.shape == targets.shape == (16, 8)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs + 1, targets)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_windows_reach_both_ends_of_the_text():
    batches = TokenBatches(torch.arange(12), 8, 64, seed=0)
    inputs, targets = batches.at(0)

    assert set(inputs[:, 0].tolist()) == {0, 1, 2, 3}
    assert targets.max() == 11


def test_the_shortest_usable_text_has_one_window():
    inputs, targets = TokenBatches(torch.arange(9), 8, 2, seed=0).at(0)

    assert inputs.tolist() == [list(range(8))] * 2
    assert targets.tolist() == [list(range(1, 9))] * 2
    with pytest.raises(ValueError, match="has 8 tokens; a context of 8 needs more"):
        TokenBatches(torch.arange(8), 8, 2, seed=0)


def test_the_learning_rate_warms_up_and_decays_along_a_cosine():
    config = FitConfig(steps=14, warmup_steps=4, final_learning_rate_fraction=0.2)
    rates = [config.rate_at(step) for step in range(15)]

    # 1/4 to 4/4; the peak; then 0.2 + 0.8 * (1 + cos(pi * n / 10)) / 2.
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[9] == pytest.approx(0.6)  # half way
    assert rates[14] == pytest.approx(0.2)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert config.rate_at(1000) == pytest.approx(0.2)
    assert FitConfig(warmup_steps=0, steps=10).rate_at(0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("learning_rate", -1.0),
        ("learning_rate", math.nan),
        ("gradient_clip", 0.0),
        ("final_learning_rate_fraction", 1.5),
        ("seed", -1),
        ("seed", 2**31),
    ],
)
def test_fit_options_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must .* got {value}"):
        FitConfig(**{field: value})


def test_a_step_applies_the_schedule_to_each_groups_own_peak():
    model = NoisyRegression()
    other = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD(
        [{"params": [model.weight], "lr": 0.1}, {"params": [other]}], lr=0.5
    )
    config = FitConfig(steps=3, warmup_steps=2, final_learning_rate_fraction=0.5)
    rates = []
    for _ in likelihood_steps(model, optimizer, batch_at, config):
        rates.append([group["lr"] for group in optimizer.param_groups])

    assert rates[0] == pytest.approx([0.05, 0.25])
    assert rates[1] == rates[2] == pytest.approx([0.1, 0.5])


def test_gradients_are_clipped_to_their_norm():
    model = NoisyRegression()
    before = model.weight.detach().clone()
    config = FitConfig(steps=1, warmup_steps=0, gradient_clip=1e-3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    list(likelihood_steps(model, optimizer, batch_at, config))

    assert (model.weight.detach() - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_a_step_reports_detached_terms_and_counts_from_one():
    model = NoisyRegression()
    steps = likelihood_steps(
        model, torch.optim.SGD(model.parameters(), lr=0.1), batch_at, FitConfig(steps=2)
    )
    first = next(steps)

    assert first.step == 1
    assert set(first.numbers()) == {"loss", "noise"}
    assert not first.terms["loss"].requires_grad
    assert [step.step for step in steps] == [2]


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_diverged_step_leaves_the_weights_untouched(kind):
    model = NoisyRegression(bad_step=3)
    if kind == "gradient":
        model.bad_step = None
        calls = iter(range(100))
        # Turns the gradient of the fourth step into NaN while its loss stays finite.
        model.weight.register_hook(lambda g: g * math.nan if next(calls) == 3 else g)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    weights = model.weight.detach().clone()
    done = []
    with pytest.raises(Diverged, match="step 4: loss"):
        for step in likelihood_steps(model, optimizer, batch_at, FitConfig(steps=9)):
            done.append(step.step)
            weights = model.weight.detach().clone()

    assert done == [1, 2, 3]
    assert torch.equal(model.weight, weights)
    assert optimizer.state[model.weight]["step"] == 3


def new_run():
    model = NoisyRegression()
    return TrainingState(
        {"model": model}, {"adam": torch.optim.AdamW(model.parameters(), lr=0.05, amsgrad=True)}
    )


def train(state, until, config):
    model, optimizer = state.modules["model"], state.optimizers["adam"]
    noises = []
    for step in likelihood_steps(model, optimizer, batch_at, config, start=state.step):
        state.step = step.step
        noises.append(step.numbers()["noise"])
        if step.step == until:
            break
    return noises


@pytest.mark.parametrize("stop", [1, 7, 19])
def test_an_interrupted_run_ends_bit_for_bit_as_an_uninterrupted_one(stop):
    config = FitConfig(steps=20, warmup_steps=5, seed=6)
    whole = new_run()
    noises = train(whole, 20, config)
    killed = new_run()
    train(killed, stop, config)
    tensors, record = killed.snapshot()
    train(killed, 20, config)  # a snapshot is a copy: later steps must not change it
    torch.manual_seed(12345)
    resumed = new_run()
    resumed.restore(tensors, json.loads(json.dumps(record)))

    assert resumed.step == stop
    assert train(resumed, 20, config) == noises[stop:]
    expected, ended = whole.snapshot(), resumed.snapshot()
    assert expected[0].keys() == ended[0].keys()
    assert all(torch.equal(expected[0][name], ended[0][name]) for name in expected[0])
    assert "module/model/num_seen" in ended[0]
    assert "optimizer/adam/0/max_exp_avg_sq" in ended[0]
    assert json.dumps(expected[1]) == json.dumps(ended[1])  # a tuple comes back as a list


class Counter:
    """A control: something beside weights that must survive a restart."""

    def __init__(self):
        self.rollbacks = 0

    def state_dict(self):
        return {"rollbacks": self.rollbacks}

    def load_state_dict(self, state):
        self.rollbacks = state["rollbacks"]


def test_controls_are_saved_and_restored():
    first, second = Counter(), Counter()
    first.rollbacks = 3
    tensors, record = TrainingState({}, {}, {"monitor": first}).snapshot()
    TrainingState({}, {}, {"monitor": second}).restore(tensors, json.loads(json.dumps(record)))

    assert second.rollbacks == 3


def test_an_average_moves_by_its_share_and_copies_buffers():
    average, model = NoisyRegression(), NoisyRegression()
    with torch.no_grad():
        model.weight += 10
        model.num_seen += 4
    update_ema(average, model, 0.75)

    assert average.weight.tolist() == pytest.approx([5.5, 0.5])
    assert average.num_seen == 4
    assert model.weight.tolist() == pytest.approx([13.0, 8.0])


def test_frozen_parameters_are_not_counted():
    layers = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1).requires_grad_(False))

    assert num_parameters(layers) == 3 * 2 + 2
