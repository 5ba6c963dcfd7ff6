"""Sabotage: from one step on the learning rate is 50 times too high. Does the monitor save the run?

Digits, the quick recipe. Each seed is trained three times: as it should be, sabotaged and alone,
sabotaged under the monitor. The sabotage never ends: going back is not enough, the monitor
must bring the rate down. A run counts as saved if it ends and its samples are worth
something: class fidelity at least 0.9 times and within-class variance at least 0.7 times those of
the same seed without sabotage. Judged on the validation part.

    python -m benchmarks.gan_control [--seeds 0 1 ...] [--losses relativistic hinge wasserstein]
"""

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from benchmarks.gan_digits import Part, parts_of_digits, trained_judge
from benchmarks.measured import record
from models.gan.config import GanLoss
from models.gan.model import Gan, labelled_batches, optimizers_of
from models.gan.networks import sample
from models.gan.recipe import gan_recipe
from models.gan.stability import ControlConfig, StabilityMonitor, controlled_state, controlled_steps
from models.metrics.classifier import Classifier
from models.metrics.sample_quality import bytes_of, sample_quality
from models.presets import ImageShape
from models.training.adversarial import adversarial_steps
from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.config import FitConfig
from models.training.loops import Diverged, Step
from tasks.evaluation.result import EVALUATION_SEED

SABOTAGED_FROM, FACTOR = 0.6, 50.0
"""Fraction of the steps after which the learning rate is multiplied, and by how much."""
NUM_SAMPLES = 1000
MIN_FIDELITY, MIN_VARIANCE = 0.9, 0.7
"""Of a saved run, as shares of what the same seed reaches without sabotage."""
UNHARMED, ALONE, CONTROLLED = "as it should be", "sabotaged alone", "sabotaged under control"
Case = tuple[GanLoss, int]


class SabotagedFit(FitConfig):
    """A recipe whose learning rate jumps, and stays so whenever training passes that step."""

    def rate_at(self, step: int) -> float:
        """The rate as a fraction of the peak, 50 times too high from the sabotage on."""
        is_sabotaged = step >= SABOTAGED_FROM * self.steps
        return super().rate_at(step) * (FACTOR if is_sabotaged else 1.0)


def game(
    train: Part, seed: int, loss: GanLoss, is_sabotaged: bool, is_controlled: bool
) -> tuple[Gan, StabilityMonitor, Iterator[Step]]:
    """The steps of one run, with its networks and its monitor (which may only watch)."""
    pixels, labels = (torch.from_numpy(part) for part in train)
    shape = ImageShape(*pixels.shape[1:], 10)
    config, fit = gan_recipe("quick", shape, seed, loss).values()
    if is_sabotaged:
        fit = SabotagedFit(**{name: getattr(fit, name) for name in FitConfig.__dataclass_fields__})
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    gan = Gan(config)
    batch_at = labelled_batches(ImageBatches(pixels, fit.batch_size, fit.seed), labels)
    optimizers = optimizers_of(gan, fit.learning_rate)
    monitor = StabilityMonitor(ControlConfig(), (pixels.float() / 255, labels))
    if is_controlled:
        state = controlled_state(gan, optimizers, monitor)
        steps = controlled_steps(gan, state, batch_at, fit, monitor)
    else:
        steps = adversarial_steps(gan, optimizers, batch_at, fit)
    return gan, monitor, steps


def measured(case: Case) -> dict[str, dict[str, Any]]:
    """One seed of one loss, three times: quality by the way it was trained."""
    torch.set_num_threads(1)
    loss, seed = case
    parts = parts_of_digits()
    judge = trained_judge(parts["train"], seed=1)
    ways = {UNHARMED: (False, True), ALONE: (True, False), CONTROLLED: (True, True)}
    return {name: judged(judge, parts, seed, loss, *flags) for name, flags in ways.items()}


def judged(
    judge: Classifier,
    parts: dict[str, Part],
    seed: int,
    loss: GanLoss,
    is_sabotaged: bool,
    is_controlled: bool,
) -> dict[str, Any]:
    """Train once; the quality of what came of it, and how training went."""
    gan, monitor, steps = game(parts["train"], seed, loss, is_sabotaged, is_controlled)
    started, error = time.monotonic(), ""
    try:
        for _ in steps:
            pass
    except Diverged as diverged:
        error = str(diverged)
    seconds = time.monotonic() - started
    requested = np.resize(parts["validation"][1], NUM_SAMPLES)
    drawn = sample(gan.average, NUM_SAMPLES, EVALUATION_SEED, torch.from_numpy(requested))
    pixels = bytes_of(drawn.nan_to_num(0.5))  # weights may have overflown
    quality = sample_quality(judge, pixels, requested, parts["train"], parts["validation"])
    return {
        "fidelity": quality["test_class_fidelity"],
        "variance": quality["test_within_class_variance_ratio"],
        "frechet": quality["test_frechet_distance"],
        "rollbacks": monitor.num_rollbacks,
        "ended": not error,
        "seconds": seconds,
        "notes": "; ".join(monitor.diagnoses) or error,
    }


def is_saved(run: dict[str, Any], unharmed: dict[str, Any]) -> bool:
    """Whether a sabotaged run ended with samples that are worth something."""
    return (
        run["ended"]
        and run["fidelity"] >= MIN_FIDELITY * unharmed["fidelity"]
        and run["variance"] >= MIN_VARIANCE * unharmed["variance"]
    )


def main() -> None:
    """Measure, tell every run, and put a row for each loss into the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--losses", nargs="+", default=["relativistic", "hinge", "wasserstein"])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}  # of the workers
    cases = [(loss, seed) for loss in options.losses for seed in options.seeds]
    saved: dict[str, list[float]] = {loss: [] for loss in options.losses}
    alone: dict[str, list[float]] = {loss: [] for loss in options.losses}
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for (loss, seed), runs in zip(cases, pool.map(measured, cases), strict=True):
            saved[loss].append(float(is_saved(runs[CONTROLLED], runs[UNHARMED])))
            alone[loss].append(float(is_saved(runs[ALONE], runs[UNHARMED])))
            for name, run in runs.items():
                print(
                    f"{loss} seed {seed}, {name}: fidelity {run['fidelity']:.3f}, variance"
                    f" {run['variance']:.3f}, Frechet {run['frechet']:.2f}, rollbacks"
                    f" {run['rollbacks']}, {run['seconds']:.0f} s. {run['notes']}",
                    flush=True,
                )
    for loss in options.losses:
        suffix = "" if loss == "relativistic" else f"_{loss}"
        record(
            f"gan_sabotage_saved{suffix}",
            saved[loss],
            "of the seeds",
            seeds=options.seeds,
            reference="the same sabotage without the monitor",
            reference_value=sum(alone[loss]) / len(alone[loss]),
        )


if __name__ == "__main__":
    main()
