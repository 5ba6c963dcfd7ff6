"""A GPT on characters of tiny Shakespeare, beside nanoGPT's CPU preset; then mixed with counting.

Ours trains on the first 90 % of the text for a fixed number of steps: the last 10 % are only
scored, once, at the end. Two protocols:

A  nanoGPT's: the mean over random windows of the model's own context length, each read from its
   first character on, so that a prediction sees half a context on average; 4800 windows, fixed seed
   (nanoGPT's CPU preset takes 240 and a new draw each time, hence its noise);
B  every character of the last 10 % once, in windows 32 apart.

The mixture's three weights are fitted on the last 50,000 characters of the training part, by a GPT
(seed of its own) and an n-gram model that were trained without them; then the same weights serve
members trained on the whole training part.

nanoGPT runs beside ours if $NANOGPT_SOURCE names a checkout of github.com/karpathy/nanoGPT; its
preset is the README's, at most 2000 iterations, and its time is the whole process's, as is ours.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measured import record
from benchmarks.shakespeare import NUM_HELD_OUT, characters, text
from models.batches import INITIAL_STREAM, TokenBatches, generator_at, seed_at
from models.decoding import generate
from models.fitting import FitConfig, likelihood_steps
from models.gpt import Gpt, GptConfig, make_optimizer
from models.ngram import NgramConfig, NgramModel
from models.ngram_tuning import TuningConfig, tune
from models.token_mixture import fitted_mixture, mixed_scores

SEEDS = (0, 1, 2)
NUM_WINDOWS, STRIDE = 4800, 32
PUBLISHED_NANOGPT, PUBLISHED_KENLM = 1.88, 1.5167
NANOGPT_PRESET = (
    *("--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=500"),
    *("--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128"),
    *("--max_iters=2000", "--lr_decay_iters=2000", "--dropout=0.0"),
)


def recipe(num_symbols: int, steps: int, seed: int) -> tuple[GptConfig, FitConfig]:
    """What is trained; chosen on the end of the training part."""
    config = GptConfig(vocabulary_size=num_symbols, ngram_rows=32_768, ngram_dropout=0.3)
    fit = FitConfig(
        steps=steps,
        batch_size=16,
        learning_rate=0.03,
        warmup_steps=20,
        final_learning_rate_fraction=0.0,
        seed=seed,
    )
    return config, fit


def trained(train: Tensor, config: GptConfig, fit: FitConfig) -> tuple[Gpt, float]:
    """A trained model, and the seconds that it took."""
    started_at = time.monotonic()
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    model = Gpt(config)
    batches = TokenBatches(train, config.context_length, fit.batch_size, fit.seed)
    for step in likelihood_steps(model, make_optimizer(model, fit), batches.at, fit):
        if step.step % 200 == 0:
            print(f"  step {step.step}: {step.numbers()['loss']:.3f}", flush=True)
    return model.eval(), time.monotonic() - started_at


@torch.inference_mode()
def protocol_a(logits: Callable[[Tensor], Tensor], tokens: Tensor, context_length: int) -> float:
    """Nats per character over random windows of a model's own context."""
    generator = generator_at(0, 0, INITIAL_STREAM)
    starts = torch.randint(len(tokens) - context_length, (NUM_WINDOWS, 1), generator=generator)
    total = 0.0
    for part in starts.split(48):
        windows = tokens[part + torch.arange(context_length + 1)]
        found = logits(windows[:, :-1]).flatten(0, 1)
        total += float(F.cross_entropy(found, windows[:, 1:].flatten())) * len(part)
    return total / NUM_WINDOWS


@torch.inference_mode()
def protocol_b(logits: Callable[[Tensor], Tensor], tokens: Tensor, context_length: int) -> float:
    """Nats per character over all of a text but its first character, in overlapping windows."""
    losses = []
    for first in range(1, len(tokens), STRIDE):
        begin = max(0, min(first + STRIDE, len(tokens)) - 1 - context_length)
        inputs, targets = tokens[begin : first + STRIDE - 1], tokens[first : first + STRIDE]
        found = logits(inputs[None])[0, -len(targets) :]
        losses.append(F.cross_entropy(found, targets, reduction="sum"))
    return float(torch.stack(losses).sum()) / (len(tokens) - 1)


def run_nanogpt(source: Path, held_out: Tensor) -> tuple[float, float, float]:
    """Train nanoGPT's CPU preset: seconds of the process, then its nats by protocols A and B."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "nanogpt"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".git", "out*"))
        (folder / "data" / "shakespeare_char" / "input.txt").write_text(text(), encoding="utf-8")
        subprocess.run([sys.executable, "data/shakespeare_char/prepare.py"], cwd=folder, check=True)
        started_at = time.monotonic()
        done = subprocess.run(
            [sys.executable, "train.py", "config/train_shakespeare_char.py", *NANOGPT_PRESET],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        seconds = time.monotonic() - started_at
        print("  " + "\n  ".join(re.findall(r"step \d+: .*", done.stdout)))
        spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        kept = torch.load(folder / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
    model = module.GPT(module.GPTConfig(**kept["model_args"]))
    model.load_state_dict(kept["model"])
    model.eval()
    context_length = kept["model_args"]["block_size"]

    def logits(inputs: Tensor) -> Tensor:
        found: Tensor = model(inputs, inputs)[0]  # with targets it gives logits for all positions
        return found

    numbers = (
        protocol_a(logits, held_out, context_length),
        protocol_b(logits, held_out, context_length),
    )
    return seconds, *numbers


def tuned_ngram(train: Tensor, num_symbols: int) -> NgramModel:
    """The n-gram member, tuned on the end of what it is given."""
    tokens = train.numpy()
    config = tune(tokens, num_symbols, NgramConfig(order=10), TuningConfig())
    return NgramModel.fit(tokens, num_symbols, config)


def main() -> None:
    """Run the reference, three seeds of ours, and the mixture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    train, held_out, num_symbols = characters()
    start_up = time.time() - psutil.Process().create_time()
    source = os.environ.get("NANOGPT_SOURCE")
    theirs = run_nanogpt(Path(source), held_out) if source else None
    if theirs is None:
        print("nanoGPT was not run beside: $NANOGPT_SOURCE is not set")

    config, fit = recipe(num_symbols, options.steps, seed=100)
    member, _ = trained(train[:-NUM_HELD_OUT], config, fit)
    counts = tuned_ngram(train[:-NUM_HELD_OUT], num_symbols)
    tail = train[-NUM_HELD_OUT - config.context_length :]
    scores = [model.score(tail)[config.context_length :] for model in (member, counts)]
    print(f"held-out end of training: GPT {-scores[0].mean():.4f}, n-gram {-scores[1].mean():.4f}")
    weights = fitted_mixture(scores[0], scores[1])
    mixed_tail = -mixed_scores(scores[0], scores[1], weights).mean()
    print(f"  mixed {mixed_tail:.4f} with {weights}")

    ngram_scores = tuned_ngram(train, num_symbols).score(held_out)
    a, b, mixed, seconds = [], [], [], []
    for seed in SEEDS:
        config, fit = recipe(num_symbols, options.steps, seed)
        model, taken = trained(train, config, fit)
        seconds.append(start_up + taken)
        a.append(protocol_a(model, held_out, config.context_length))
        b.append(protocol_b(model, held_out, config.context_length))
        mixture = mixed_scores(model.score(held_out, stride=STRIDE), ngram_scores, weights)
        mixed.append(-float(mixture[1:].mean()))
        print(f"seed {seed}: A {a[-1]:.4f}, B {b[-1]:.4f}, mixed {mixed[-1]:.4f}, {taken:.0f} s")

    mean_seconds = sum(seconds) / len(seconds)
    beside = "nanoGPT's CPU preset, 2000 iterations, run beside"
    published = "nanoGPT's CPU preset, 2000 iterations, published"
    for name, values, reference in (
        ("gpt_cpu_protocol_a_nats", a, theirs[1] if theirs else PUBLISHED_NANOGPT),
        ("gpt_cpu_protocol_b_nats", b, theirs[2] if theirs else PUBLISHED_NANOGPT),
    ):
        record(
            name,
            values,
            "nats per character",
            seeds=SEEDS,
            seconds=mean_seconds,
            reference=beside if theirs else published,
            reference_value=reference,
        )
    record(
        "gpt_ngram_mix_nats",
        mixed,
        "nats per character",
        seeds=SEEDS,
        reference="KenLM order 7, published; every character once",
        reference_value=PUBLISHED_KENLM,
    )
    if theirs:
        record(
            "gpt_wall_time_ratio_nanogpt",
            mean_seconds / theirs[0],
            "of its wall time",
            seeds=SEEDS,
            seconds=mean_seconds,
            reference="nanoGPT's CPU preset, seconds",
            reference_value=theirs[0],
        )
    _sampling_speed(model)


def _sampling_speed(model: Gpt) -> None:
    """Tokens per second with cached keys and values, and without."""
    prompt = torch.zeros(1, dtype=torch.long)
    started_at = time.monotonic()
    generate(model, prompt, num_tokens=100, num_sequences=16)
    cached = 1600 / (time.monotonic() - started_at)
    started_at = time.monotonic()
    with torch.inference_mode():
        tokens = prompt.expand(16, 1)
        for _ in range(100):
            probabilities = model(tokens)[:, -1].softmax(1)
            tokens = torch.cat([tokens, probabilities.multinomial(1)], 1)
    record(
        "gpt_sampling_tokens_per_second",
        cached,
        "tokens per second, 16 texts at once",
        reference="the same without the cache",
        reference_value=1600 / (time.monotonic() - started_at),
    )


if __name__ == "__main__":
    main()
