"""How the GPT is trained and scored in the benchmarks on tiny Shakespeare.

The recipe comes from trials on hold-outs of the training part. Two protocols:

A  nanoGPT's: the mean over random windows of the model's own context length, each read from its
   first character on, so that a prediction sees half a context on average; 1600 windows, fixed seed
   (nanoGPT's CPU preset takes 240 and a new draw each time, hence its noise);
B  every character but the first, once, in windows of the model's own context length, 32 apart: a
   prediction sees at least a context less 31 characters, where the text has begun that early.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from models.gpt.config import GptConfig
from models.gpt.model import Gpt, make_optimizer
from models.gpt.muon import MuonWithAdam
from models.gpt.recipe import gpt_recipe
from models.presets import TextShape
from models.training.batches import INITIAL_STREAM, TokenBatches, generator_at, seed_at
from models.training.config import FitConfig
from models.training.loops import likelihood_steps

STEPS = 640
NUM_WINDOWS, STRIDE = 1600, 32


def recipe(num_symbols: int, steps: int, seed: int) -> tuple[GptConfig, FitConfig]:
    """What is trained, and how."""
    config = GptConfig(vocabulary_size=num_symbols, ngram_rows=32_768, ngram_dropout=0.5)
    fit = FitConfig(
        steps=steps,
        batch_size=16,
        learning_rate=0.03,
        warmup_steps=20,
        final_learning_rate_fraction=0.0,
        seed=seed,
    )
    return config, fit


def members(
    num_symbols: int, num_tokens: int, seed: int
) -> list[tuple[GptConfig, FitConfig, Callable[[Gpt, FitConfig], Optimizer]]]:
    """What is trained on a GPU: the product's `full` preset, and one of another kind to join it.

    The second knows no n-grams and learns by Adam alone, as nanoGPT does: what the two get wrong
    differs more than between two seeds, so the mean of their probabilities gains more.
    """
    shape = TextShape("characters", num_symbols, num_tokens)
    first, fit = gpt_recipe("full", shape, seed).values()
    second = replace(first, max_ngram=1, dropout=0.2, embedding_rate=1.0)
    other = replace(fit, steps=1000, learning_rate=0.002)
    return [(first, fit, make_optimizer), (second, other, adam)]


def adam(model: Gpt, fit: FitConfig) -> Optimizer:
    """Adam for all parameters."""
    return MuonWithAdam(
        [],
        [model.embedding, model.ngram_embedding, model.head, *model.blocks.parameters()],
        matrix_rate=fit.learning_rate,
        other_rate=fit.learning_rate,
        betas=(0.9, 0.99),
    )


def joined(models: Sequence[Gpt]) -> Callable[[Tensor], Tensor]:
    """The mean of the members' probabilities, as logits."""

    def logits(tokens: Tensor) -> Tensor:
        found = torch.stack([model(tokens).log_softmax(-1) for model in models])
        return found.logsumexp(0) - math.log(len(models))

    return logits


def trained(
    train: Tensor,
    config: GptConfig,
    fit: FitConfig,
    build: Callable[[GptConfig], Gpt] = Gpt,
    optimizer_of: Callable[[Gpt, FitConfig], Optimizer] = make_optimizer,
) -> tuple[Gpt, float]:
    """A model trained on the device that the text is on, and the seconds that it took."""
    started_at = time.monotonic()
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    model = build(config).to(train.device)
    batches = TokenBatches(train, config.context_length, fit.batch_size, fit.seed)
    for step in likelihood_steps(model, optimizer_of(model, fit), batches.at, fit):
        if step.step % 250 == 0:
            print(f"  step {step.step}: {step.numbers()['loss']:.3f}", flush=True)
    step.numbers()  # the clock stops when the device has done its work
    return model.eval(), time.monotonic() - started_at


@torch.inference_mode()
def protocol_a(logits: Callable[[Tensor], Tensor], tokens: Tensor, context_length: int) -> float:
    """Nats per character over random windows of a length."""
    generator = generator_at(0, 0, INITIAL_STREAM)
    starts = torch.randint(len(tokens) - context_length, (NUM_WINDOWS, 1), generator=generator)
    total = 0.0
    offsets = torch.arange(context_length + 1, device=tokens.device)
    for part in starts.to(tokens.device).split(48):
        windows = tokens[part + offsets]
        found = logits(windows[:, :-1]).flatten(0, 1)
        total += float(F.cross_entropy(found, windows[:, 1:].flatten())) * len(part)
    return total / NUM_WINDOWS


@torch.inference_mode()
def protocol_b(logits: Callable[[Tensor], Tensor], tokens: Tensor, context_length: int) -> float:
    """Nats per character over all of a text but its first character, in overlapping windows."""
    last = len(tokens) - 1 - context_length
    starts = torch.tensor([*range(0, last, STRIDE), last])
    losses = torch.empty(len(tokens) - 1, device=tokens.device)
    offsets = torch.arange(context_length + 1, device=tokens.device)
    # From the last window to the first: what a window is the first to reach, it scores.
    for part in starts.flip(0).split(48):
        windows = tokens[part[:, None].to(tokens.device) + offsets]
        found = logits(windows[:, :-1]).transpose(1, 2)
        rows = F.cross_entropy(found, windows[:, 1:], reduction="none")
        for start, row in zip(part.tolist(), rows, strict=True):
            losses[start : start + context_length] = row
    return float(losses.mean())
