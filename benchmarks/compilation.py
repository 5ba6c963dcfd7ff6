"""Does torch.compile pay? Seconds that it takes, and what a step costs with and without it.

The recipes of the benchmarks for the VAE (MNIST's shape) and the GPT (tiny Shakespeare's), on
random data: only time is measured. Of the VAE `losses` is compiled as a whole, of the GPT
every block (a compiled graph refuses the sparse gradients of its n-gram embedding), the backward
pass with them; both ways take turns of a few steps, and medians are compared. Recorded are the
time of a compiled step and what compiling costs, in plain steps, beside the steps of the recipe.
The GAN is left out: its gradient penalties are differentiated twice, which compiled graphs refuse.

    python -m benchmarks.compilation
"""

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import gpt_training, vae_mnist
from benchmarks.measured import record
from models.gpt import model as gpt
from models.training.batches import ImageBatches, TokenBatches
from models.training.config import FitConfig
from models.training.loops import Step, likelihood_steps
from models.vae import model as vae

STEPS_OF_A_TURN, NUM_TURNS = 12, 5
NUM_IMAGES, NUM_TOKENS, NUM_SYMBOLS = 4096, 100_000, 65
VAE_STEPS = 6000


def main() -> None:
    """Measure both models, with an empty cache of compiled code, and record when it pays."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        _measure_models()


def _measure_models() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (NUM_IMAGES, 1, 28, 28), dtype=torch.uint8, generator=generator)
    tokens = torch.randint(NUM_SYMBOLS, (NUM_TOKENS,), generator=generator)

    def vae_steps(*, is_compiled: bool) -> Callable[[int], float]:
        config, fit = vae_mnist.recipe(0, VAE_STEPS)
        model = vae.Vae(config)
        optimizer = vae.make_optimizer(model, fit)
        batches = ImageBatches(pixels, fit.batch_size, fit.seed)
        if is_compiled:
            model.losses = torch.compile(model.losses)  # type: ignore[method-assign]
        return _turns(model, optimizer, batches.at, fit)

    def gpt_steps(*, is_compiled: bool) -> Callable[[int], float]:
        config, fit = gpt_training.recipe(NUM_SYMBOLS, gpt_training.STEPS, 0)
        model = gpt.Gpt(config)
        optimizer = gpt.make_optimizer(model, fit)
        batches = TokenBatches(tokens, config.context_length, fit.batch_size, fit.seed)
        if is_compiled:
            for block in model.blocks:
                block.compile()
        return _turns(model, optimizer, batches.at, fit)

    for name, steps_of, wanted in (
        ("vae", vae_steps, VAE_STEPS),
        ("gpt", gpt_steps, gpt_training.STEPS),
    ):
        _measure(name, steps_of(is_compiled=False), steps_of(is_compiled=True), wanted)


def _turns(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch_at: Callable[[int], object],
    fit: FitConfig,
) -> Callable[[int], float]:
    """A function that takes so many further steps, and returns the seconds of one."""
    steps = likelihood_steps(model, optimizer, batch_at, fit)

    def take(num_steps: int) -> float:
        started_at = time.perf_counter()
        for _ in range(num_steps):
            _wait(next(steps))
        return (time.perf_counter() - started_at) / num_steps

    return take


def _wait(step: Step) -> Tensor:
    """On a GPU a step has ended when its loss can be read."""
    return step.terms["loss"].cpu()


def _measure(
    name: str, plain: Callable[[int], float], compiled: Callable[[int], float], wanted: int
) -> None:
    plain(2)
    compiling = compiled(3) * 3  # later steps may compile once more: for a changed constant
    seconds = [(plain(STEPS_OF_A_TURN), compiled(STEPS_OF_A_TURN)) for _ in range(NUM_TURNS)]
    before, after = (statistics.median(each) for each in zip(*seconds, strict=True))
    overhead = compiling - 3 * after
    pays_after = overhead / (before - after) if after < before else math.inf
    print(
        f"{name}: {overhead:.0f} s to compile; a step {before * 1e3:.1f} ms, compiled"
        f" {after * 1e3:.1f} ms; pays after {pays_after:.0f} steps, the recipe has {wanted}"
    )
    record(f"{name}_compiled_step_ratio", after / before, "of the time of a plain step")
    record(
        f"{name}_compiling_steps",
        overhead / before,
        "plain steps in the time that compiling takes",
        reference="steps of the recipe",
        reference_value=wanted,
    )


if __name__ == "__main__":
    main()
