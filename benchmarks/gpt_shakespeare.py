"""A GPT on characters of tiny Shakespeare, beside nanoGPT's CPU preset.

Ours trains on the first 90 % of the text for a fixed number of steps; the last 10 % are only
scored, once, at the end. benchmarks/gpt_training.py tells the recipe and the protocols.
Wall times are of whole processes: ours counts the imports before the training.

nanoGPT runs beside ours if $NANOGPT_SOURCE names a checkout of it (benchmarks/nanogpt.py).
`--device cuda` measures the recipe of the `full` preset there, and that model together with one
of another kind, trained one after the other, in rows of their own; it needs PyTorch alone.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpt_training import (
    STEPS,
    joined,
    members,
    protocol_a,
    protocol_b,
    recipe,
    trained,
)
from benchmarks.measured import named_on, prepare, record
from benchmarks.nanogpt import TOKENS_PER_ITERATION, NanoGpt, run_nanogpt
from benchmarks.shakespeare import characters
from models.gpt.config import GptConfig
from models.gpt.model import Gpt
from models.gpt.muon import ROUNDS
from models.text.decoding import generate

PUBLISHED_NANOGPT = 1.88
BEST_PUBLISHED = "best published GPT (AI-Scientist's nanoGPT, 3 seeds, 76 s on a GPU; protocol A)"
NANOGPT_CONTEXT = 64


def main() -> None:
    """Run the reference and the seeds of ours; record what they reached, and how fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    if options.device == "cuda":
        _measure_on_gpu(options.seeds)
        return
    train, held_out, num_symbols = characters()
    source = os.environ.get("NANOGPT_SOURCE")
    theirs, start_up = None, 0.0
    if source:
        import psutil

        start_up = time.time() - psutil.Process().create_time()
        theirs = run_nanogpt(Path(source))
    else:
        print("nanoGPT was not run beside: that needs $NANOGPT_SOURCE")

    a, a_short, b, seconds = [], [], [], []
    for seed in options.seeds:
        config, fit = recipe(num_symbols, options.steps, seed)
        model, taken = trained(train, config, fit)
        seconds.append(taken)
        a.append(protocol_a(model, held_out, config.context_length))
        b.append(protocol_b(model, held_out, config.context_length))
        a_short.append(protocol_a(model, held_out, NANOGPT_CONTEXT))
        print(f"seed {seed}: A {a[-1]:.4f} (windows of {NANOGPT_CONTEXT}: {a_short[-1]:.4f}),")
        print(f"  B {b[-1]:.4f},", end=" ")
        print(f"{taken:.0f} s", flush=True)

    mean_seconds = sum(seconds) / len(seconds)
    _record_losses(
        {"protocol_a": a, "protocol_a_windows_of_64": a_short, "protocol_b": b},
        options.seeds,
        start_up + mean_seconds,
        theirs,
        held_out,
    )
    _record_speed(model, fit.batch_size, options.steps / mean_seconds, theirs)
    _record_sampling(model)


def _measure_on_gpu(seeds: list[int]) -> None:
    """Each seed's first model alone, and with the second one; times are of training."""
    prepare("cuda")
    train, held_out, num_symbols = characters()
    train, held_out = train.to("cuda"), held_out.to("cuda")
    losses: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {"": [], "pair_": []}
    for seed in seeds:
        models, taken = [], 0.0
        for config, fit, optimizer_of in members(num_symbols, len(train), seed):
            model, alone = trained(train, config, fit, optimizer_of=optimizer_of)
            models.append(model)
            taken += alone
            kind = "" if len(models) == 1 else "pair_"
            seconds[kind].append(taken)
            for name, protocol in (("protocol_a", protocol_a), ("protocol_b", protocol_b)):
                found = protocol(joined(models), held_out, config.context_length)
                losses.setdefault(f"{kind}{name}", []).append(found)
                print(f"seed {seed}: {kind}{name} {found:.4f}, {taken:.1f} s", flush=True)
        for name, values in losses.items():
            record(
                f"gpt_cuda_{name}_nats",
                values,
                "nats per character",
                seeds=seeds[: len(values)],
                seconds=max(seconds["pair_" if name.startswith("pair_") else ""]),
                reference=BEST_PUBLISHED,
                reference_value=1.4603,
            )
    steps = members(num_symbols, len(train), 0)[0][1]
    _record_speed(models[0], steps.batch_size, steps.steps / max(seconds[""]), None)
    _record_sampling(models[0])


def _record_losses(
    losses: dict[str, list[float]],
    seeds: list[int],
    seconds: float,
    theirs: NanoGpt | None,
    held_out: Tensor,
) -> None:
    """Rows of the protocols, named after the device, and of the wall time."""
    reference = "nanoGPT's CPU preset, 2000 iterations, published, windows of 64"
    values = [PUBLISHED_NANOGPT] * 3
    if theirs:
        reference = "nanoGPT's CPU preset, 2000 iterations, run beside, its context of 64"
        protocol_a_value, protocol_b_value = (
            protocol(theirs.logits, held_out, theirs.context_length)
            for protocol in (protocol_a, protocol_b)
        )
        values = [protocol_a_value, protocol_a_value, protocol_b_value]
        record(
            "gpt_wall_time_ratio_nanogpt",
            seconds / theirs.seconds,
            "of its wall time",
            seeds=seeds,
            seconds=seconds,
            reference="seconds of nanoGPT's CPU preset, run beside",
            reference_value=theirs.seconds,
        )
    for (protocol, found), value in zip(losses.items(), values, strict=True):
        record(
            f"gpt_cpu_{protocol}_nats",
            found,
            "nats per character",
            seeds=seeds,
            seconds=seconds,
            reference=reference,
            reference_value=value,
        )


def _record_speed(
    model: Gpt, batch_size: int, steps_per_second: float, theirs: NanoGpt | None
) -> None:
    """Training speed beside nanoGPT's, and beside what multiplying matrices alone would take."""
    config, device = model.config, next(model.parameters()).device
    tokens_per_step = batch_size * config.context_length
    flops = step_flops(config, tokens_per_step)
    rate = matmul_rate(config, tokens_per_step, device)
    print(f"{flops / 1e9:.2f} GFLOP a step, {flops / tokens_per_step / 1e6:.2f} MFLOP a token;")
    print(f"matrices of these shapes are multiplied at {rate / 1e9:.1f} GFLOP/s")
    tokens_per_second = steps_per_second * tokens_per_step
    record(
        named_on(device, "gpt_tokens_per_second"),
        tokens_per_second,
        "tokens per second of training",
        reference="nanoGPT's CPU preset, of its median iteration" if theirs else "",
        reference_value=TOKENS_PER_ITERATION / theirs.seconds_per_iteration if theirs else None,
    )
    record(
        named_on(device, "gpt_matmul_utilisation"),
        flops * steps_per_second / rate,
        "of the matrix-multiply rate",
        reference="tokens per second at that rate",
        reference_value=rate / flops * tokens_per_step,
    )


def products(config: GptConfig, num_tokens: int) -> Iterator[tuple[int, int, int, int]]:
    """The forward matrix products of a step: how many, (n, k) times (k, m)."""
    C, n = config.width, num_tokens
    for k, m in ((C, 3 * C), (C, C), (C, 4 * C), (4 * C, C)):
        yield config.num_layers, n, k, m
    yield 1, n, C, config.vocabulary_size


def step_flops(config: GptConfig, num_tokens: int) -> float:
    """Multiplications and additions that one training step needs in matrix products.

    Three times the forward pass; causal attention counts half of its square; Muon's rounds.
    Embeddings, norms, activations and Adam are not counted.
    """
    forward = sum(2.0 * count * n * k * m for count, n, k, m in products(config, num_tokens))
    attention = config.num_layers * 2.0 * num_tokens * config.context_length * config.width
    C = config.width
    square, oblong = (2.0 * (2 * C * C * columns + C**3) for columns in (C, 4 * C))
    muon = len(ROUNDS) * config.num_layers * (4 * square + 2 * oblong)
    return 3 * (forward + attention) + muon


def matmul_rate(config: GptConfig, num_tokens: int, device: torch.device, turns: int = 20) -> float:
    """FLOP/s of the products of a step, forward and backward, and nothing else: the best turn.

    In the precision of training: float32, on a GPU bfloat16.
    """
    tasks, flops = [], 0.0
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    for count, n, k, m in products(config, num_tokens):
        shapes = ((n, k), (m, k), (n, m))
        x, w, y = (torch.randn(shape, device=device, dtype=dtype) for shape in shapes)
        tasks += [(x, w.mT), (y, w), (y.mT, x)] * count
        flops += 6.0 * count * n * k * m
    best = float("inf")
    for _ in range(turns):
        started_at = time.monotonic()
        for one, other in tasks:
            last = torch.mm(one, other)
        float(last[0, 0])  # the clock stops when the device has done its work
        best = min(best, time.monotonic() - started_at)
    return flops / best


def _record_sampling(model: Gpt) -> None:
    """Tokens per second with cached keys and values, and without."""
    num_texts, num_tokens = 16, model.context_length - 1
    device = next(model.parameters()).device
    prompt = torch.zeros(1, dtype=torch.long, device=device)
    started_at = time.monotonic()
    generate(model, prompt, num_tokens=num_tokens, num_sequences=num_texts).cpu()
    cached = num_texts * num_tokens / (time.monotonic() - started_at)
    started_at = time.monotonic()
    with torch.inference_mode():
        tokens = prompt.expand(num_texts, 1)
        for _ in range(num_tokens):
            probabilities = model(tokens)[:, -1].softmax(1)
            tokens = torch.cat([tokens, probabilities.multinomial(1)], 1)
    tokens = tokens.cpu()
    record(
        named_on(device, "gpt_sampling_tokens_per_second"),
        cached,
        f"tokens per second, {num_texts} texts of {num_tokens + 1} at once",
        reference="the same without the cache",
        reference_value=num_texts * num_tokens / (time.monotonic() - started_at),
    )


if __name__ == "__main__":
    main()
