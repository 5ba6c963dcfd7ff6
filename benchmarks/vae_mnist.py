"""MNIST: negative log-likelihood of the VAE after at most five minutes of training on two cores.

Training draws binary pixels afresh at every step (dynamic binarisation) and sees all 60 000
training images; the judge is one fixed, seeded binary draw of the 10 000 test images, and the
importance-weighted bound with 200 samples. The recipe was chosen with `--choose`, which keeps the
last 5000 training images back and judges on these.

    python -m benchmarks.vae_mnist [--seeds 0 1 2] [--choose] [--device cuda --samples 5000]
"""

import argparse
import time
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.measured import named_on, prepare, record
from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.config import FitConfig
from models.training.loops import likelihood_steps
from models.vae.config import VaeConfig
from models.vae.elbo import active_units, binarize, importance_weighted_nll, negative_elbo
from models.vae.model import Vae, make_optimizer
from tasks.data.sources import read_mnist

NUM_IMPORTANCE_SAMPLES = 200
BINARY_SEED, NOISE_SEED = 1234, 5678
NUM_HELD_OUT, NUM_JUDGED_HELD_OUT = 5000, 2000
PUBLISHED = "pythae VAE, published (MLP, 500 epochs, static binarisation, 200 samples)"


def recipe(seed: int, steps: int) -> tuple[VaeConfig, FitConfig]:
    """The standard recipe for images of this size, trained longer."""
    config = VaeConfig(latent_size=20, base_width=16, num_residual_blocks=1, kl_warmup_steps=1000)
    fit = FitConfig(
        steps=steps,
        batch_size=64,
        learning_rate=4e-3,
        warmup_steps=200,
        gradient_clip=200,
        seed=seed,
    )
    return config, fit


def gpu_phases(seed: int) -> list[tuple[VaeConfig, FitConfig]]:
    """For a GPU: twice as wide, and then the importance-weighted objective, at a lower rate."""
    config = VaeConfig(
        latent_size=32, base_width=32, hidden_size=512, num_residual_blocks=1, kl_warmup_steps=1000
    )
    fit = replace(recipe(seed, 27_500)[1], batch_size=128)
    weighted = replace(config, num_importance_samples=8, kl_warmup_steps=0)
    last = replace(fit, steps=7800, learning_rate=1e-3, seed=seed + 1000)
    return [(config, fit), (weighted, last)]


def trained(config: VaeConfig, fit: FitConfig, pixels: Tensor, before: Vae | None = None) -> Vae:
    """Fit a VAE to images (N, C, H, W) uint8; the last weights are kept.

    before: a model of the same sizes, with whose weights training begins.
    """
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    model = Vae(config).to(pixels.device)
    if before:
        model.load_state_dict(before.state_dict())
    batches = ImageBatches(pixels, fit.batch_size, fit.seed)
    started = time.monotonic()
    for step in likelihood_steps(model, make_optimizer(model, fit), batches.at, fit):
        if step.step % max(1, fit.steps // 10) == 0:
            numbers = step.numbers()
            print(
                f"  step {step.step}: -ELBO of the batch {numbers['negative_elbo']:.1f}"
                f" (reconstruction {numbers['reconstruction']:.1f}, KL {numbers['kl']:.1f}),"
                f" {step.step * fit.batch_size / (time.monotonic() - started):.0f} images/s",
                flush=True,
            )
    return model.eval()


def judged(model: Vae, pixels: Tensor, num_samples: int) -> dict[str, float]:
    """Bounds on the likelihood of one binary draw of the images, and the use made of z."""
    seen = binarize(pixels.float() / 255, BINARY_SEED)
    losses = negative_elbo(model, seen, NOISE_SEED)
    nll = importance_weighted_nll(model, seen, num_samples, NOISE_SEED)
    return {
        "nll": float(nll.mean()),
        "negative_elbo": float(losses["negative_elbo"].mean()),
        "kl": float(losses["kl"].mean()),
        "active_fraction": active_units(model, seen) / model.config.latent_size,
    }


def main() -> None:
    """Measure, and put two rows into the table; with --choose only tell the hold-out's numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--choose", action="store_true", help="judge on held-out training images")
    parser.add_argument("--steps", type=int, default=6000, help="fewer for a slower machine")
    parser.add_argument(
        "--samples", type=int, default=NUM_IMPORTANCE_SAMPLES, help="of z per image"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    prepare(options.device)
    raw = read_mnist()
    assert raw.official_test is not None
    pixels = torch.from_numpy(raw.pixels).to(options.device)
    is_test = torch.from_numpy(raw.official_test)
    train, test = pixels[~is_test], pixels[is_test]
    if options.choose:
        train, test = train[:-NUM_HELD_OUT], train[-NUM_HELD_OUT:][:NUM_JUDGED_HELD_OUT]
    results, seconds = [], []
    for seed in options.seeds:
        started, computed = time.monotonic(), time.process_time()
        on_gpu = options.device == "cuda"
        model = None
        for config, fit in gpu_phases(seed) if on_gpu else [recipe(seed, options.steps)]:
            model = trained(config, fit, train, model)
        assert model is not None
        seconds.append(time.monotonic() - started)
        computed = time.process_time() - computed
        results.append(judged(model, test, options.samples))
        print(
            f"seed {seed}: NLL {results[-1]['nll']:.2f} ({options.samples} samples), -ELBO"
            f" {results[-1]['negative_elbo']:.2f}, KL {results[-1]['kl']:.2f} nats,"
            f" {results[-1]['active_fraction']:.0%} of the units active; trained in"
            f" {seconds[-1]:.0f} s ({computed:.0f} s of CPU), judged in"
            f" {time.monotonic() - started - seconds[-1]:.0f} s",
            flush=True,
        )
        if not options.choose:
            _keep(results, options.seeds[: len(results)], max(seconds), options.device)


def _keep(results: list[dict[str, float]], seeds: list[int], slowest: float, device: str) -> None:
    """Put the seeds so far into the table: a long run may be stopped."""
    record(
        named_on(device, "vae_mnist_nll_nats"),
        [result["nll"] for result in results],
        "nats/image",
        seeds=seeds,
        seconds=slowest,
        reference=PUBLISHED,
        reference_value=89.78,
    )
    record(
        named_on(device, "vae_active_units_fraction"),
        [result["active_fraction"] for result in results],
        "of the latent units",
        seeds=seeds,
        seconds=slowest,
    )


if __name__ == "__main__":
    main()
