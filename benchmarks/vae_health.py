"""Health of the VAE's standard recipe on digits: 20 seeds, no NaN, and units that are used.

Every seed is a whole run of the standard preset on the pipeline's training part, judged on the
test part. A seed counts as broken if training stopped being finite or if any of its weights or
losses is not a finite number.

    python -m benchmarks.vae_health [--seeds 0 1 ...] [--workers 2]
"""

import argparse
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from benchmarks.gan_digits import parts_of_digits
from benchmarks.measured import record
from models.presets import ImageShape
from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.loops import Diverged, likelihood_steps
from models.vae.elbo import active_units, binarize, collapse_alarm, negative_elbo
from models.vae.model import Vae, make_optimizer
from models.vae.recipe import vae_recipe


def measured(seed: int) -> dict[str, float]:
    """Train one seed; `broken` is 1 where a number stopped being finite."""
    torch.set_num_threads(1)
    parts = parts_of_digits()
    pixels = torch.from_numpy(parts["train"][0])
    config, fit = vae_recipe("standard", ImageShape(1, 8, 8), seed).values()
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    model, batches = Vae(config), ImageBatches(pixels, fit.batch_size, fit.seed)
    started = time.monotonic()
    try:
        for _ in likelihood_steps(model, make_optimizer(model, fit), batches.at, fit):
            pass
    except Diverged as error:
        print(f"seed {seed}: {error}", flush=True)
        return {"seed": seed, "broken": 1.0}
    seconds = time.monotonic() - started
    model.eval()
    seen = binarize(torch.from_numpy(parts["test"][0]).float() / 255, seed=0)
    losses = {name: float(value.mean()) for name, value in negative_elbo(model, seen, 0).items()}
    finite = all(bool(p.isfinite().all()) for p in model.parameters())
    num_active = active_units(model, seen)
    return {
        **losses,
        "seed": seed,
        "broken": float(not finite or not all(map(math.isfinite, losses.values()))),
        "active_fraction": num_active / config.latent_size,
        "alarm": float(collapse_alarm(losses["kl"], num_active, config.latent_size) is not None),
        "seconds": seconds,
    }


def main() -> None:
    """Measure, and put two rows into the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}  # of the workers
    results = []
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for found in pool.map(measured, options.seeds):
            results.append(found)
            if not found["broken"]:
                print(
                    f"seed {found['seed']:.0f}: -ELBO {found['negative_elbo']:.2f} nats, KL"
                    f" {found['kl']:.2f}, active {found['active_fraction']:.0%}, alarm"
                    f" {'yes' if found['alarm'] else 'no'}, {found['seconds']:.0f} s",
                    flush=True,
                )
    healthy = [found for found in results if not found["broken"]]
    record(
        "vae_nan_seeds",
        sum(found["broken"] for found in results),
        f"of {len(results)} seeds",
        seeds=options.seeds,
    )
    record(
        "vae_digits_active_units_fraction",
        [found["active_fraction"] for found in healthy],
        "of the latent units",
        seeds=[int(found["seed"]) for found in healthy],
        seconds=max(found["seconds"] for found in healthy),
    )


if __name__ == "__main__":
    main()
