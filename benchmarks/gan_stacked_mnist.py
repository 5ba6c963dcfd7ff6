"""Stacked MNIST: does the GAN draw all 1000 combinations of three digits, equally often?

Protocol of Lin et al. 2018 (PacGAN): three random training digits become the channels of an image;
128 000 such images are the training set, no labels are used; a classifier of single digits names
every channel of 26 000 samples. Counted are the modes, the distinct triples of 1000, and the KL
divergence of their histogram from the uniform one. A perfect sampler does not reach 0: the floor
is simulated. The learning rate and the sizes were chosen on seed 100; the seeds reported are
others.

That the channels are independent is nowhere built in: one latent point feeds one dense network,
whose output all channels share.

    python -m benchmarks.gan_stacked_mnist [--seeds 0 1 2] [--device cuda]
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.measured import named_on, prepare, record
from models.gan.config import GanConfig
from models.gan.model import Gan, optimizers_of
from models.gan.networks import Generator, sample
from models.metrics.classes import class_counts, mode_kl, mode_kl_floor
from models.metrics.classifier import Classifier
from models.metrics.classifier import make_optimizer as classifier_optimizer
from models.metrics.recipe import plain_classifier_recipe
from models.presets import ImageShape
from models.training.adversarial import adversarial_steps
from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.config import FitConfig
from models.training.loops import likelihood_steps
from tasks.data.sources import read_mnist

NUM_STACKED, NUM_SAMPLES = 128_000, 26_000
GPU_STEPS = 7500
STACKING_SEED, SAMPLING_SEED = 2018, 26_000
PUBLISHED = "PacDCGAN2, published (10 trials on a GPU; same protocol, its own classifier)"


def recipe(seed: int, steps: int) -> tuple[GanConfig, FitConfig]:
    """Patches of 4x4 pixels, one convolution, dense layers: on a CPU the cost of an image decides.

    Both networks pass the three channels through the same convolutions (`per_channel_branches`), so
    what one channel teaches about digits serves all; the dense layers join them.
    """
    config = GanConfig(
        channels=3,
        height=28,
        width=28,
        patch_size=4,
        base_width=32,
        blocks_per_stage=0,
        dense_blocks=2,
        dense_width=256,
        latent_size=64,
        per_channel_branches=True,
        penalty=3.0,
    )
    fit = FitConfig(
        steps=steps,
        batch_size=128,
        learning_rate=1e-3,
        warmup_steps=20,
        gradient_clip=100.0,
        seed=seed,
    )
    return config, fit


def gpu_recipe(seed: int) -> tuple[GanConfig, FitConfig]:
    """For a GPU, where larger batches and wider dense layers cost little.

    The penalty stays, the rate falls by half only, and the average is longer: what keeps the KL up
    in the end is that the three digits of a sample depend on each other a little.
    """
    config, fit = recipe(seed, GPU_STEPS)
    config = replace(
        config, dense_width=512, final_penalty_fraction=1.0, ema_half_life_fraction=0.15
    )
    fit = replace(fit, batch_size=512, learning_rate=5e-4, final_learning_rate_fraction=0.5)
    return config, fit


def stacked(pixels: Tensor, seed: int = STACKING_SEED) -> Tensor:
    """Triples of random digits (N, 1, 28, 28) as channels: (128 000, 3, 28, 28) uint8."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(pixels), (NUM_STACKED, 3), generator=generator)
    return pixels[chosen, 0]


def trained_judge(pixels: Tensor, labels: Tensor) -> Classifier:
    """A classifier of single digits, of classes alone."""
    config, fit = plain_classifier_recipe(ImageShape(1, 28, 28, 10)).values()
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    judge = Classifier(config).to(pixels.device)
    batches = ImageBatches(pixels, fit.batch_size, fit.seed)

    def batch_at(step: int) -> tuple[Tensor, Tensor]:
        return batches.at(step), labels[batches.indices_at(step)]

    for _ in likelihood_steps(judge, classifier_optimizer(judge, fit), batch_at, fit):
        pass
    return judge.eval()


@torch.inference_mode()
def named(judge: Classifier, images: Tensor) -> np.ndarray:
    """The digit that the judge sees in every channel of images (N, C, H, W) in [0, 1]: (N, C)."""
    singles = images.flatten(0, 1)[:, None]
    digits = torch.cat([judge(part).argmax(1) for part in singles.split(2000)])
    found: np.ndarray = digits.view(len(images), -1).cpu().numpy()
    return found


def trained_generator(
    config: GanConfig, fit: FitConfig, images: Tensor, watch: Callable[[int, Generator], None]
) -> Generator:
    """Play the game on stacked images; gives the averaged generator."""
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    gan = Gan(config).to(images.device)
    batches = ImageBatches(images, fit.batch_size, fit.seed)
    optimizers = optimizers_of(gan, fit.learning_rate)
    for step in adversarial_steps(gan, optimizers, lambda s: (batches.at(s), None), fit):
        watch(step.step, gan.average)
    step.numbers()  # the clock stops when the device has done its work
    return gan.average


def modes_and_kl(judge: Classifier, generator: Generator) -> tuple[int, float]:
    """Distinct triples among 26 000 samples, and their KL from uniform in nats."""
    digits = named(judge, sample(generator, NUM_SAMPLES, SAMPLING_SEED))
    counts = class_counts(digits, 10)
    return int((counts > 0).sum()), mode_kl(counts)


def main() -> None:
    """Measure, and put two rows into the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=3200, help="on a CPU; fewer for a slower one")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    seeds, on_gpu = options.seeds, options.device == "cuda"
    prepare(options.device)
    raw = read_mnist()
    assert raw.official_test is not None
    pixels = torch.from_numpy(raw.pixels).to(options.device)
    labels = torch.from_numpy(raw.labels).to(options.device)
    is_test = torch.from_numpy(raw.official_test)
    judge = trained_judge(pixels[~is_test], labels[~is_test])
    right = named(judge, pixels[is_test].float() / 255)[:, 0] == raw.labels[raw.official_test]
    print(f"judge: {right.mean():.2%} on the 10 000 test digits")
    floor = mode_kl_floor(torch.bincount(labels[~is_test]).cpu(), NUM_SAMPLES)
    print(
        f"floor of the KL for {NUM_SAMPLES} samples: {floor.value:.4f} ± {floor.standard_error:.4f}"
    )
    images = stacked(pixels[~is_test])
    modes, divergences, seconds = [], [], []
    for seed in seeds:
        config, fit = gpu_recipe(seed) if on_gpu else recipe(seed, options.steps)
        started, computed = time.monotonic(), time.process_time()
        generator = trained_generator(config, fit, images, lambda *_: None)
        seconds.append(time.monotonic() - started)
        computed = time.process_time() - computed
        found, divergence = modes_and_kl(judge, generator)
        print(
            f"seed {seed}: {found} modes, KL {divergence:.4f}, trained in"
            f" {seconds[-1]:.0f} s ({computed:.0f} s of CPU)",
            flush=True,
        )
        modes.append(float(found))
        divergences.append(divergence)
        _keep(options.device, modes, divergences, seeds[: len(modes)], max(seconds))


def _keep(
    device: str, modes: list[float], divergences: list[float], seeds: list[int], slowest: float
) -> None:
    """Put the seeds so far into the table: a long run may be stopped."""
    for name, values, unit, published in (
        ("gan_stacked_modes", modes, "of 1000", 1000),
        ("gan_stacked_kl", divergences, "nats", 0.06),
    ):
        record(
            named_on(device, name),
            values,
            unit,
            seeds=seeds,
            seconds=slowest,
            reference=PUBLISHED,
            reference_value=published,
        )


if __name__ == "__main__":
    main()
