"""Digits: does every seed of the standard recipe give recognisable, varied, new samples?

Data, split and judge are the pipeline's: `tasks.data.ingestion` cuts the digits, a classifier
trained by the pipeline's recipe on the training part judges 1000 samples against the test part. A
seed passes if all of these hold: class fidelity at least 98.5 %, within-class variance 95 to 105 %
of the real one, coverage at least 0.95, no copies, at most 90 s of training.

Coverage compares as many samples as there are test images, 269, and moves by a hundredth from one
draw of samples to the next; trained generators differ by two thousandths. So a seed's coverage is
the mean of many draws. Told besides: how many seeds pass by their first draw alone, and what real
training images reach that are drawn alike.

    python -m benchmarks.gan_digits [--seeds 0 1 ...] [--workers 2] [--validation] [--device cuda]

--device cuda trains the `full` preset there, and judges on the CPU as ever; in rows of its own.

--validation judges on the validation part, with a judge of another seed: for choosing recipes.
"""

import argparse
import hashlib
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import torch

from benchmarks.measured import named_on, prepare, record
from models.gan.model import Gan, labelled_batches, optimizers_of
from models.gan.networks import Generator, sample
from models.gan.recipe import gan_recipe
from models.gan.stability import ControlConfig, StabilityMonitor, controlled_state, controlled_steps
from models.metrics.classifier import Classifier
from models.metrics.classifier import make_optimizer as classifier_optimizer
from models.metrics.images import precision_recall_density_coverage
from models.metrics.recipe import plain_classifier_recipe
from models.metrics.sample_quality import Labels, Pixels, bytes_of, features_of, sample_quality
from models.presets import ImageShape, Preset
from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.config import FitConfig
from models.training.loops import likelihood_steps
from tasks.data.image_splits import split_images
from tasks.data.sources import read_digits
from tasks.evaluation.result import EVALUATION_SEED

Part = tuple[Pixels, Labels]
NUM_SAMPLES = 1000
NUM_DRAWS, NUM_REAL_DRAWS = 50, 1000
MIN_COVERAGE = 0.95
PRESETS: dict[str, Preset] = {"cpu": "standard", "cuda": "full"}
PUBLISHED = "pocket-wgan, published (same data, its own classifier, one seed)"


def parts_of_digits() -> dict[str, Part]:
    """The pipeline's splits, by name."""
    raw = read_digits()
    hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in raw.pixels]
    splits = split_images(raw.labels, hashes, raw.official_test)
    return {
        name: (raw.pixels[splits == name], raw.labels[splits == name])
        for name in ("train", "validation", "test")
    }


def trained_judge(train: Part, seed: int) -> Classifier:
    """A classifier of classes alone."""
    pixels, labels = (torch.from_numpy(part) for part in train)
    shape = ImageShape(*pixels.shape[1:], 10)
    config, fit = plain_classifier_recipe(shape).values()
    fit = replace(fit, seed=seed)
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    judge, batches = Classifier(config), ImageBatches(pixels, fit.batch_size, fit.seed)
    steps = likelihood_steps(
        judge,
        classifier_optimizer(judge, fit),
        lambda step: (batches.at(step), labels[batches.indices_at(step)]),
        fit,
    )
    for _ in steps:
        pass
    return judge.eval()


def trained_generator(
    train: Part, seed: int, device: str = "cpu"
) -> tuple[Generator, FitConfig, int]:
    """A preset under the monitor, as the pipeline plays it; with its rollbacks."""
    pixels, labels = (torch.from_numpy(part).to(device) for part in train)
    config, fit = gan_recipe(PRESETS[device], ImageShape(*pixels.shape[1:], 10), seed).values()
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    gan = Gan(config).to(device)
    monitor = StabilityMonitor(ControlConfig(), (pixels.float() / 255, labels))
    state = controlled_state(gan, optimizers_of(gan, fit.learning_rate), monitor)
    batch_at = labelled_batches(ImageBatches(pixels, fit.batch_size, fit.seed), labels)
    for _ in controlled_steps(gan, state, batch_at, fit, monitor):
        pass
    return gan.average.eval().cpu(), fit, monitor.num_rollbacks


def measured(seed: int, split: str, device: str) -> dict[str, float]:
    """Train one seed and judge it on a part of the digits."""
    torch.set_num_threads(1)
    prepare(device)
    parts = parts_of_digits()
    judge = judge_of(parts, split)
    started = time.monotonic()
    generator, _, num_rollbacks = trained_generator(parts["train"], seed, device)
    seconds = time.monotonic() - started
    requested = np.resize(parts[split][1], NUM_SAMPLES)
    drawn = sample(generator, NUM_SAMPLES, EVALUATION_SEED, torch.from_numpy(requested))
    quality = sample_quality(judge, bytes_of(drawn), requested, parts["train"], parts[split])
    real, labels = parts[split]
    coverages = [
        coverage(
            judge, real, bytes_of(sample(generator, len(real), draw, torch.from_numpy(labels)))
        )
        for draw in range(NUM_DRAWS)
    ]
    quality |= {"mean_coverage": float(np.mean(coverages)), "draw_spread": float(np.std(coverages))}
    return {**quality, "seconds": seconds, "rollbacks": num_rollbacks, "seed": seed}


def judge_of(parts: dict[str, Part], split: str) -> Classifier:
    """The judge of the pipeline has seed 0; choices are made with another one."""
    return trained_judge(parts["train"], seed=0 if split == "test" else 1)


def coverage(judge: Classifier, real: Pixels, drawn: Pixels) -> float:
    """Share of the real images that have a drawn one nearby, in the eyes of the judge."""
    features = features_of(judge, real), features_of(judge, drawn)
    return precision_recall_density_coverage(*features)["coverage"]


def coverages_of_training_images(split: str) -> list[float]:
    """What real images reach: draws of as many training images, of the same classes."""
    torch.set_num_threads(1)
    parts = parts_of_digits()
    judge, (pixels, labels), (real, wanted) = judge_of(parts, split), parts["train"], parts[split]
    numbers = np.bincount(wanted)
    found = []
    for seed in range(NUM_REAL_DRAWS):
        choose = np.random.default_rng(seed).choice
        chosen = [
            choose(np.flatnonzero(labels == label), number, replace=False)
            for label, number in enumerate(numbers)
        ]
        found.append(coverage(judge, real, pixels[np.concatenate(chosen)]))
    return found


def passes(found: dict[str, float], coverage_of: str = "mean_coverage") -> bool:
    """Whether one seed reaches all that is asked of it; of one draw: test_coverage."""
    return (
        found["test_class_fidelity"] >= 0.985
        and 0.95 <= found["test_within_class_variance_ratio"] <= 1.05
        and found[coverage_of] >= MIN_COVERAGE
        and found["test_exact_copy_rate"] == 0
        and found["seconds"] <= 90
    )


def all_measured(seeds: list[int], split: str, workers: int, device: str) -> list[dict[str, float]]:
    """Every seed's numbers, printed as they come; each worker uses one core."""
    results = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for found in pool.map(measured, seeds, [split] * len(seeds), [device] * len(seeds)):
            results.append(found)
            print(
                f"seed {found['seed']:.0f}: fidelity {found['test_class_fidelity']:.3f}"
                f" (judge {found['classifier_test_accuracy']:.3f}), variance"
                f" {found['test_within_class_variance_ratio']:.3f}, coverage"
                f" {found['mean_coverage']:.4f} ({found['draw_spread']:.3f} from draw to draw;"
                f" the first {found['test_coverage']:.3f}), Frechet"
                f" {found['test_frechet_distance']:.3f}"
                f" (real {found['real_data_frechet_distance']:.3f}), copies"
                f" {found['test_exact_copy_rate']:.4f}, rollbacks {found['rollbacks']:.0f},"
                f" {found['seconds']:.0f} s{'' if passes(found) else '  <- FAILS'}",
                flush=True,
            )
    return results


def main() -> None:
    """Measure; on the test part, put the rows into the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}  # of the workers
    split = "validation" if options.validation else "test"
    results = all_measured(options.seeds, split, options.workers, options.device)
    num_passed = sum(passes(found) for found in results)
    print(f"{num_passed} of {len(results)} seeds pass on the {split} part")
    real = coverages_of_training_images(split)
    below = [float(value < MIN_COVERAGE) for value in real]
    print(
        f"coverage of as many training images: {np.mean(real):.4f}, {np.std(real):.3f} from draw to"
        f" draw; {np.mean(below):.1%} of {NUM_REAL_DRAWS} draws below {MIN_COVERAGE}"
    )
    if options.validation:
        return
    training_images = ("as many real training images", float(np.mean(real)))
    rows: dict[str, tuple[str, str, tuple[str, float | None]]] = {
        "gan_digits_fidelity": ("test_class_fidelity", "of the samples", (PUBLISHED, 0.970)),
        "gan_digits_variance_ratio": (
            "test_within_class_variance_ratio",
            "of real",
            (PUBLISHED, 0.9824),
        ),
        "gan_digits_coverage": ("mean_coverage", "of the test images", training_images),
        "gan_digits_coverage_one_draw": ("test_coverage", "of the test images", training_images),
        "gan_digits_copies": ("test_exact_copy_rate", "of the samples", (PUBLISHED, 0.0)),
        "gan_digits_seconds": ("seconds", "s", ("at most", 90.0)),
    }
    slowest = max(found["seconds"] for found in results)
    for name, (metric, unit, (reference, value)) in rows.items():
        record(
            named_on(options.device, name),
            [found[metric] for found in results],
            unit,
            seeds=options.seeds,
            seconds=slowest,
            reference=reference,
            reference_value=value,
        )
    by_one_draw = sum(passes(found, "test_coverage") for found in results)
    unit = f"of {len(results)} seeds"
    name = named_on(options.device, "gan_digits_seeds_passed")
    record(name, num_passed, unit, seeds=options.seeds)
    record(f"{name}_one_draw", by_one_draw, unit, seeds=options.seeds)
    if options.device == "cpu":
        record("gan_digits_real_draws_below", float(np.mean(below)), "of the draws")


if __name__ == "__main__":
    main()
