"""A GPT and an n-gram model mixed, on the last 10 % of tiny Shakespeare: every character once.

The mixture's three weights are fitted on the last 50,000 characters of the training part, to a GPT
(of a seed of its own) and an n-gram model that were trained without them. The same weights then
serve members that are trained on the whole training part; one GPT for each seed, with one n-gram
model, which has none. The last 10 % are only scored.
"""

import argparse

import torch
from torch import Tensor

from benchmarks.gpt_training import STEPS, STRIDE, recipe, trained
from benchmarks.measured import record
from benchmarks.mixture import MixtureConfig, fitted_mixture, mixed_scores
from benchmarks.shakespeare import NUM_HELD_OUT, characters
from models.ngram.config import NgramConfig, TuningConfig
from models.ngram.model import NgramModel
from models.ngram.tuning import tune

FITTING_SEED = 100
PUBLISHED_KENLM = 1.5167


def main() -> None:
    """Fit the weights, then train and score the members."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    train, held_out, num_symbols = characters()
    weights = _fitted_weights(train, num_symbols, options.steps)

    ngram_scores = _tuned_ngram(train, num_symbols).score(held_out)
    print(f"n-gram model alone {-float(ngram_scores[1:].mean()):.4f}")
    losses = []
    for seed in options.seeds:
        config, fit = recipe(num_symbols, options.steps, seed)
        model, taken = trained(train, config, fit)
        gpt_scores = model.score(held_out, stride=STRIDE)
        losses.append(-float(mixed_scores(gpt_scores, ngram_scores, weights)[1:].mean()))
        print(f"seed {seed}: GPT alone {-float(gpt_scores[1:].mean()):.4f},", end=" ")
        print(f"mixed {losses[-1]:.4f}, {taken:.0f} s", flush=True)
    record(
        "gpt_ngram_mix_nats",
        losses,
        "nats per character",
        seeds=options.seeds,
        reference="KenLM order 7, published; every character once",
        reference_value=PUBLISHED_KENLM,
    )


def _fitted_weights(train: Tensor, num_symbols: int, steps: int) -> MixtureConfig:
    """The weights that suit members which have not seen the end of the training part."""
    config, fit = recipe(num_symbols, steps, FITTING_SEED)
    seen = train[:-NUM_HELD_OUT]
    gpt, _ = trained(seen, config, fit)
    ngram = _tuned_ngram(seen, num_symbols)
    first = gpt.score(train, len(seen), STRIDE)
    second = ngram.score(train, len(seen))
    weights = fitted_mixture(first, second)
    mixed = mixed_scores(first, second, weights)
    constant = torch.logaddexp(first, second).sub(torch.tensor(2.0).log())
    print(f"end of the training part: GPT {-first.mean():.4f}, n-gram {-second.mean():.4f},")
    print(f"  halves {-constant.mean():.4f}, mixed {-mixed.mean():.4f} with {weights}", flush=True)
    return weights


def _tuned_ngram(train: Tensor, num_symbols: int) -> NgramModel:
    """The n-gram member, tuned on the end of what it is given."""
    tokens = train.numpy()
    config = tune(tokens, num_symbols, NgramConfig(order=10), TuningConfig())
    return NgramModel.fit(tokens, num_symbols, config)


if __name__ == "__main__":
    main()
