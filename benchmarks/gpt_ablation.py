"""What each part of the GPT is worth: short trainings without it, scored on a training hold-out.

Everything is trained on tiny Shakespeare's training part without its last 50,000 characters and
scored on those; the last 10 % of the text take no part. A change is given as the mean and standard
deviation, over seeds, of its difference from the whole recipe under the same seed (so the same
batches). Adam instead of Muon is tried at several rates.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.gpt_training import recipe, trained
from benchmarks.measured import record
from benchmarks.shakespeare import NUM_HELD_OUT, characters
from models.gpt.config import GptConfig
from models.gpt.model import (
    Attention,
    Block,
    Gpt,
    KeyValueCache,
    make_optimizer,
    normalised,
    rotated,
)
from models.gpt.muon import MuonWithAdam
from models.training.config import FitConfig

ADAM_RATES = (0.00075, 0.0015, 0.003, 0.006, 0.012)


class PlainAttention(Attention):
    """Queries and keys as they are, neither normalised nor rotated where the table is neutral."""

    def forward(self, x: Tensor, rotation: Tensor, cache: KeyValueCache | None) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        B, T, C = x.shape
        heads = F.linear(x, self.inputs.view(3 * C, C)).view(B, T, 3, self.num_heads, -1)
        q, k = (rotated(heads[:, :, i], rotation).transpose(1, 2) for i in range(2))
        y = F.scaled_dot_product_attention(q, k, heads[:, :, 2].transpose(1, 2), is_causal=True)
        return F.linear(y.transpose(1, 2).flatten(2), self.output)


class ReluBlock(Block):
    """A feed-forward network with ReLU, not squared."""

    activation: Callable[[Tensor], Tensor] = staticmethod(torch.relu)

    def forward(self, x: Tensor, rotation: Tensor, cache: KeyValueCache | None) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + self.attention(normalised(x), rotation, cache)
        hidden = self.activation(F.linear(normalised(x), self.expand))
        return x + F.linear(hidden, self.contract)


class GeluBlock(ReluBlock):
    """A feed-forward network with GELU."""

    activation = staticmethod(F.gelu)


class LearnedPositions(Gpt):
    """An embedding of each position instead of rotations."""

    def __init__(self, config: GptConfig) -> None:
        super().__init__(config)
        self.positions = nn.Parameter(0.02 * torch.randn(config.context_length, config.width))
        self.rotation[0], self.rotation[1] = 1.0, 0.0  # cosine and sine of no angle

    def embedded(self, tokens: Tensor) -> Tensor:
        """(B, T) to (B, T, C)."""
        return super().embedded(tokens) + self.positions[: tokens.shape[1]]


def without_query_key_norm(config: GptConfig) -> Gpt:
    """Queries and keys are not normalised."""
    model = Gpt(config)
    for block in model.blocks:
        block.attention.__class__ = PlainAttention
    return model


def with_blocks(kind: type[Block], config: GptConfig) -> Gpt:
    """Another feed-forward network."""
    model = Gpt(config)
    for block in model.blocks:
        block.__class__ = kind
    return model


def without_zeros(config: GptConfig) -> Gpt:
    """GPT-2's initialisation where ours is zero: normal, 0.02, smaller into the residual stream."""
    model = Gpt(config)
    for name, weight in model.named_parameters():
        match name.split(".")[-1]:
            case "output" | "contract":
                nn.init.normal_(weight, std=0.02 / (2 * config.num_layers) ** 0.5)
            case "head" | "ngram_embedding":
                nn.init.normal_(weight, std=0.02)
    return model


def with_positions(model: Gpt, fit: FitConfig) -> Optimizer:
    """The recipe's optimizer, and Adam for the positions."""
    others = [model.embedding, model.ngram_embedding, model.head, model.positions]
    rates = {"matrix_rate": fit.learning_rate, "other_rate": fit.learning_rate}
    return MuonWithAdam(model.blocks.parameters(), others, **rates)


def adam(rate: float, model: Gpt, fit: FitConfig) -> Optimizer:
    """Adam for the blocks' matrices at a rate of their own; the rest as in the recipe."""
    optimizer = MuonWithAdam(
        [],
        [model.embedding, model.ngram_embedding, model.head],
        matrix_rate=rate,
        other_rate=fit.learning_rate,
    )
    shared = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    optimizer.add_param_group(shared | {"params": list(model.blocks.parameters()), "lr": rate})
    return optimizer


Run = Callable[[int, int], tuple[float, float]]


def measured(
    build: Callable[[GptConfig], Gpt] = Gpt,
    optimizer_of: Callable[[Gpt, FitConfig], Optimizer] = make_optimizer,
    **changes: int,
) -> Run:
    """Hold-out loss and training seconds as a function of steps and seed."""

    def run(steps: int, seed: int) -> tuple[float, float]:
        train, _, num_symbols = characters()
        config, fit = recipe(num_symbols, steps, seed)
        config = replace(config, **changes)
        seen = train[:-NUM_HELD_OUT]
        model, seconds = trained(seen, config, fit, build, optimizer_of)
        scores = model.score(train, len(seen), config.context_length // 2)
        return -float(scores.mean()), seconds

    return run


VARIANTS = {
    "the whole recipe": measured(),
    "without hashed n-grams": measured(max_ngram=1),
    "hashed n-grams up to 3": measured(max_ngram=3),
    "learned positions": measured(LearnedPositions, with_positions),
    "without normalised queries and keys": measured(without_query_key_norm),
    "ReLU": measured(partial(with_blocks, ReluBlock)),
    "GELU": measured(partial(with_blocks, GeluBlock)),
    "small weights instead of zeros": measured(without_zeros),
} | {
    f"Adam for the matrices, rate {rate}": measured(optimizer_of=partial(adam, rate))
    for rate in ADAM_RATES
}


def main() -> None:
    """Train each variant under each seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    parser.add_argument("--variants", type=int, nargs="*", help="by number; the recipe always runs")
    options = parser.parse_args()
    names = list(VARIANTS)
    wanted = {0, *(range(len(names)) if options.variants is None else options.variants)}
    losses: dict[str, list[float]] = {}
    for name in (names[index] for index in sorted(wanted)):
        runs = [VARIANTS[name](options.steps, seed) for seed in options.seeds]
        losses[name] = [loss for loss, _ in runs]
        changes = [m - w for m, w in zip(losses[name], losses[names[0]], strict=True)]
        spreads = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in (losses[name], changes)]
        per_step = sum(seconds for _, seconds in runs) / len(runs) / options.steps
        print(
            f"| {name} | {statistics.fmean(losses[name]):.4f} ± {spreads[0]:.4f}"
            f" | {statistics.fmean(changes):+.4f} ± {spreads[1]:.4f} | {per_step:.3f} |",
            flush=True,
        )
    record(
        "gpt_ablation_recipe_nats",
        losses[names[0]],
        "nats per character of the training hold-out",
        seeds=options.seeds,
    )


if __name__ == "__main__":
    main()
