"""Digits: is the diffusion model as near to real images as the GAN, in the same time?

python -m benchmarks.diffusion_digits [--seeds 0 1 2]

Data, split, judge and recipes (preset standard) are the product's. Each seed trains both models one
after the other, so that other work on the machine slows both; the distance is that of 10,000
samples, of the test part's classes, to the validation and test images.
"""

import argparse
import time
from dataclasses import asdict
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gan_digits import parts_of_digits
from benchmarks.measured import record
from models.diffusion.likelihood import bits_per_dimension, log_likelihood
from models.metrics.classifier import Classifier
from models.metrics.classifier_training import ClassifierTraining
from models.metrics.images import frechet_distance
from models.metrics.recipe import classifier_recipe
from models.metrics.sample_quality import bytes_of, features_of
from models.presets import ImageShape, Preset
from models.training.protocol import ImageData, Trained, Training
from tasks.evaluation.result import EVALUATION_SEED
from tasks.families.table import FAMILIES

NUM_SAMPLES = 10_000
CPU = torch.device("cpu")


def run(training: Training) -> Trained:
    """Train to the end, in memory alone."""
    for _ in training.steps():
        pass
    return training.finish("")


def judge_of(data: ImageData, shape: ImageShape, device: torch.device = CPU) -> Classifier:
    """The network whose features are compared, trained by its recipe; on the CPU."""
    kept = run(ClassifierTraining(data, device, **classifier_recipe(shape)))
    judge = Classifier(kept.config).eval()
    judge.load_state_dict(kept.tensors)
    return judge


def trained(
    name: str,
    data: ImageData,
    shape: ImageShape,
    seed: int,
    *,
    preset: Preset = "standard",
    device: torch.device = CPU,
) -> tuple[Any, float]:
    """A family's model as a version would rebuild it, and the seconds of its training."""
    family, began = FAMILIES[name], time.monotonic()
    settings = resolve_name(family.recipe)(preset, shape, seed)
    kept = run(resolve_name(family.training)(data, device, **settings))
    seconds = time.monotonic() - began
    serving = import_module(f"models.{name}.serving")
    return serving.build(asdict(kept.config), kept.tensors), seconds


def drawn_distance(
    name: str, model: Any, judge: Classifier, held_out: Tensor, wanted: Tensor
) -> float:
    """The Fréchet distance of samples of some classes, (N,), to features of held-out images."""
    draw = import_module(f"models.{name}.serving").draw
    drawn: Tensor = draw(model, len(wanted), EVALUATION_SEED, 1.0, wanted)
    return frechet_distance(held_out, features_of(judge, bytes_of(drawn)))


def main() -> None:
    """Measure, and put the rows into the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    parts = parts_of_digits()
    (pixels, labels), validation, test = (parts[n] for n in ("train", "validation", "test"))
    shape = ImageShape(*pixels.shape[1:], num_classes=10)
    data = ImageData(
        train=pixels,
        train_labels=labels,
        validation=validation[0],
        validation_labels=validation[1],
    )
    judge = judge_of(data, shape)
    held_out = features_of(judge, np.concatenate([validation[0], test[0]]))
    floor = frechet_distance(held_out, features_of(judge, pixels))
    wanted = torch.from_numpy(np.resize(test[1], NUM_SAMPLES))

    found: dict[str, list[float]] = {"gan": [], "diffusion": [], "time": [], "bits": [], "s": []}
    for seed in seeds:
        seconds = {}
        for name in ("gan", "diffusion"):
            model, seconds[name] = trained(name, data, shape, seed)
            found[name].append(drawn_distance(name, model, judge, held_out, wanted))
        nats = log_likelihood(model, *(torch.from_numpy(each) for each in test), seed=0)
        found["bits"].append(float(bits_per_dimension(nats, pixels[0].size).mean()))
        found["time"].append(seconds["diffusion"] / seconds["gan"])
        found["s"].append(seconds["diffusion"])
        print(f"seed {seed}: real {floor:.4f}", {k: round(v[-1], 4) for k, v in found.items()})
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    record(
        "diffusion_digits_frechet",
        found["diffusion"],
        f"Fréchet distance (real training images: {floor:.3f})",
        seeds=seeds,
        seconds=mean["s"],
        reference="the GAN, same run",
        reference_value=mean["gan"],
    )
    record(
        "diffusion_digits_time_ratio",
        found["time"],
        "of the GAN's training time",
        seeds=seeds,
        reference="at most",
        reference_value=1.0,
    )
    record("diffusion_digits_bits", found["bits"], "bits per dimension, at most", seeds=seeds)


if __name__ == "__main__":
    main()
