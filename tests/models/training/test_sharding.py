"""Batches in shards: what is cut, in which order gradients are added, and what stays the same."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from models.gan.recipe import gan_recipe
from models.presets import ImageShape
from models.training.adversarial import adversarial_steps
from models.training.batches import NOISE_STREAM, ImageBatches, seed_at
from models.training.config import FitConfig
from models.training.loops import likelihood_steps
from models.training.sharding import GroupBroken, GroupDisagrees, Shards, shards_of, tree_sum

FIT = FitConfig(steps=6, batch_size=8, learning_rate=0.1, warmup_steps=0, shards=4)
Tensors = list[Tensor]


def test_a_batch_is_cut_into_neighbouring_examples_of_their_own_memory() -> None:
    batch = torch.arange(8), None, (torch.arange(16).reshape(8, 2),)
    shards = Shards(4)

    numbers, nothing, (pairs,) = shards.part(batch, 2)

    assert numbers.tolist() == [4, 5]
    assert nothing is None
    assert pairs.tolist() == [[8, 9], [10, 11]]
    numbers.zero_()
    assert batch[0].tolist() == list(range(8))


@pytest.mark.parametrize("size", [0, 2, 10])
def test_a_batch_that_cannot_be_cut_evenly_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"batch of {size} examples cannot be cut into 4 equal"):
        Shards(4).part(torch.zeros(size), 0)


def test_a_small_data_set_is_served_but_for_what_cannot_be_cut() -> None:
    images = torch.zeros(83, 1, 8, 8, dtype=torch.uint8)

    assert len(ImageBatches(images, 96, 0).at(0)) == 83
    batches = ImageBatches(images, 96, 0, shards=4)
    assert len(batches.at(0)) == len(batches.at(1)) == 80
    assert set(batches.indices_at(0).tolist()) != set(batches.indices_at(1).tolist())
    assert len(ImageBatches(images, 64, 0, shards=4).at(0)) == 64


def test_packs_must_fit_into_shards() -> None:
    given = {"model.num_packed": 16, "model.class_weight": 0.0}
    gan_recipe("standard", ImageShape(1, 8, 8, 10), 0, given)

    with pytest.raises(ValueError, match="num_packed is 16, and of 96 images in 4 shards each has"):
        gan_recipe("standard", ImageShape(1, 8, 8, 10), 0, {**given, "training.shards": 4})


def test_shards_and_batch_size_must_agree() -> None:
    with pytest.raises(ValueError, match="batch_size must be a multiple of shards, got 18 and 4"):
        FitConfig(batch_size=18, shards=4)


def test_processes_must_share_evenly() -> None:
    with pytest.raises(ValueError, match="4 shards cannot be shared evenly by 3 processes"):
        Shards(4, 0, 3)
    assert [list(Shards(4, rank, 2).own) for rank in (0, 1)] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("count", "num_processes"), [(4, 2), (4, 4), (8, 2), (6, 3), (6, 2), (12, 3), (12, 4), (5, 5)]
)
def test_the_sum_is_the_same_on_any_number_of_processes(
    count: int, num_processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process is asked in turn; the last one has met what all of them sent."""
    rows = list(torch.randn(count, 1000, generator=torch.Generator().manual_seed(count)))
    expected = Shards(count)._total(rows)
    sent: Tensors = []

    def gather(gathered: Tensor, mine: Tensor) -> None:
        sent.append(mine)
        whole = torch.cat(sent)
        gathered.zero_()[: len(whole)] = whole

    monkeypatch.setattr(distributed, "all_gather_into_tensor", gather)
    for rank in range(num_processes):
        shards = Shards(count, rank, num_processes)
        total = shards._total([rows[each] for each in shards.own])

    assert torch.equal(total, expected)
    in_a_row = sum(rows[1:], start=rows[0])
    assert torch.allclose(total, in_a_row, atol=1e-4)
    assert count < 4 or not torch.equal(total, in_a_row)  # the order does matter


def test_a_tree_adds_neighbours_first() -> None:
    large, small = torch.tensor(1e8), torch.tensor(1.0)

    assert tree_sum([large, -large, small, small]).item() == 2
    assert tree_sum([small, large, small, -large]).item() == 0
    assert tree_sum([small]).item() == 1


def test_processes_that_made_other_updates_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(gathered: Tensor, mine: Tensor) -> None:
        gathered.copy_(torch.cat([mine, mine]))
        gathered[1, -1] += 1

    monkeypatch.setattr(distributed, "all_gather_into_tensor", gather)
    shards = Shards(2, 0, 2)
    shards.agree(torch.tensor(3.0))

    with pytest.raises(GroupDisagrees, match=r"\[3.0, 4.0\]"):
        shards._total([torch.zeros(4)])


def test_a_lost_process_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(*_: Tensor) -> None:
        raise RuntimeError("Connection closed by peer\nmore")

    monkeypatch.setattr(distributed, "all_gather_into_tensor", gather)

    with pytest.raises(GroupBroken, match=r"^Connection closed by peer$"):
        Shards(2, 0, 2)._total([torch.zeros(4)])
    assert issubclass(GroupBroken, ConnectionError)  # which a fit is tried again after


class Regression(nn.Module):
    """Least squares with a rarely touched table, dropout, and a buffer that each pass changes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.weight = nn.Parameter(torch.randn(3))
        self.unused = nn.Parameter(torch.zeros(2))
        self.table = nn.Parameter(torch.randn(50, 1))
        self.rate = 0.5
        self.seen: Tensors = []
        self.passes: Tensor
        self.register_buffer("passes", torch.zeros(1))

    def losses(self, batch: tuple[Tensor, Tensor], step: int | Tensor) -> dict[str, Tensor]:
        x, rows = batch
        self.seen.append(self.passes.clone())
        self.passes += x.sum()
        noise = nn.functional.dropout(torch.ones_like(x), self.rate, self.training)
        from_table = nn.functional.embedding(rows, self.table, sparse=True)[:, 0]
        error = ((x * noise) @ self.weight + from_table - 1).square().mean()
        return {"loss": error, "size": torch.tensor(float(len(x)))}


def batch_at(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    rows = torch.randint(6, (8,), generator=generator)
    return torch.randn(8, 3, generator=generator), rows


def losses_in(model: Regression, shards: Shards) -> Callable[[int], dict[str, Tensor]]:
    return lambda shard: model.losses(shards.part(batch_at(0), shard), 0)


def test_gradients_are_those_of_the_whole_batch() -> None:
    model, shards = Regression(), Shards(4)
    model.rate = 0.0
    model.losses(batch_at(0), 0)["loss"].backward()
    expected = {name: p.grad for name, p in model.named_parameters()}

    terms = shards.backward(losses_in(model, shards), "loss", list(model.parameters()))

    assert terms["size"] == 2
    assert model.unused.grad is None
    assert expected["weight"] is not None and expected["table"] is not None
    assert model.weight.grad is not None and model.table.grad is not None
    assert torch.allclose(model.weight.grad, expected["weight"], atol=1e-6)
    assert model.table.grad.is_sparse
    dense = model.table.grad.to_dense(), expected["table"].to_dense()
    assert torch.allclose(*dense, atol=1e-6)
    assert 0 < dense[0].count_nonzero() <= 6


def test_every_shard_sees_the_buffers_of_the_beginning_and_the_first_ones_stay() -> None:
    model, shards = Regression(), Shards(4)
    shards.backward(losses_in(model, shards), "loss", list(model.parameters()), [model.passes])

    assert [float(each) for each in model.seen] == [0, 0, 0, 0]
    assert model.passes.item() == pytest.approx(batch_at(0)[0][:2].sum().item())


def test_gradients_keep_the_layout_of_their_weights() -> None:
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))

    Shards(2).backward(lambda _: {"loss": weight.square().sum()}, "loss", [weight])

    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()
    assert torch.allclose(weight.grad, 2 * weight)


def trained(start: int = 0, model: Regression | None = None, **changes: Any) -> Regression:
    model, fit = model or Regression(), replace(FIT, **changes)
    optimizer = torch.optim.SGD([model.weight, model.table], lr=0.1)
    for _ in likelihood_steps(model, optimizer, batch_at, fit, start):
        pass
    return model


def test_a_training_in_shards_resumes_bit_for_bit_and_differs_from_one_without() -> None:
    whole = trained(schedule="wsd", decay_fraction=0)
    half = trained(steps=3, schedule="wsd", decay_fraction=0)
    resumed = trained(start=3, model=half, schedule="wsd", decay_fraction=0)

    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.passes, whole.passes)
    other = trained(shards=2, schedule="wsd", decay_fraction=0)
    assert not torch.equal(other.weight, whole.weight)


def test_each_shard_has_noise_of_its_own() -> None:
    seeds = {seed_at(3, 7, NOISE_STREAM, shard) for shard in range(8)}

    assert len(seeds) == 8
    assert seed_at(3, 7, NOISE_STREAM) in seeds  # the first shard's is that of a whole batch


class Game:
    """One number against another; the discriminator's pass uses up noise."""

    discriminator_updates = 2

    def __init__(self) -> None:
        self.generator, self.discriminator, self.average = (nn.Linear(1, 1) for _ in range(3))
        self.drawn: list[tuple[list[float], list[float]]] = []

    def draw(self, batch: Tensor) -> Tensor:
        noise = torch.randn(len(batch), 1)
        self.drawn.append((batch[:, 0].tolist(), noise[:, 0].tolist()))
        found: Tensor = self.generator(noise)
        return found

    def discriminator_terms(
        self, batch: Tensor, fake: Tensor, progress: float | Tensor, scale: float | Tensor
    ) -> dict[str, Tensor]:
        assert len(batch) == len(fake) == 2
        return {
            "discriminator_loss": self.discriminator(fake.detach()).mean()
            - self.discriminator(batch).mean()
        }

    def generator_terms(
        self, batch: Tensor, fake: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        return {"generator_loss": -self.discriminator(fake).mean()}

    def average_decay_at(self, step: int) -> float:
        return 0.5


@pytest.fixture
def game() -> Iterator[Game]:
    torch.manual_seed(0)
    yield Game()


def test_a_game_meets_within_shards_and_draws_once_for_both_updates(game: Game) -> None:
    optimizers = {
        name: torch.optim.SGD(getattr(game, name).parameters(), lr=0.1)
        for name in ("generator", "discriminator")
    }
    before = [each.clone() for each in game.generator.parameters()]

    def batches(step: int) -> Tensor:
        return torch.arange(8.0)[:, None] + 100 * step

    (step,) = adversarial_steps(game, optimizers, batches, replace(FIT, steps=1))

    assert [each for each, _ in game.drawn] == [
        [float(100 * turn + first), float(100 * turn + first + 1)]
        for turn in (0, 1)
        for first in (0, 2, 4, 6)
    ]
    assert len({noise for _, both in game.drawn for noise in both}) == 16
    assert {"discriminator_gradient_norm", "generator_gradient_norm"} <= step.terms.keys()
    assert not torch.equal(before[0], next(iter(game.generator.parameters())))
    assert game.average.weight.item() != 0


def test_only_a_training_with_shards_has_some() -> None:
    assert shards_of(replace(FIT, shards=1)) is None
    found = shards_of(FIT)
    assert found is not None and list(found.own) == [0, 1, 2, 3]
