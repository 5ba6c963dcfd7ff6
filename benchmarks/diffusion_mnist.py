"""MNIST: the diffusion model beside the GAN, by the recipe of a preset, on a hold-out.

A choice of recipes is judged here, so the official test part is not read: 6,000 images of the
training part are held out, and the distance is that of samples of their classes to them. Each seed
trains both models one after the other.

    python -m benchmarks.diffusion_mnist [--seeds 0] [--preset standard] [--device cuda]
"""

import argparse

import numpy as np
import torch

from benchmarks.diffusion_digits import drawn_distance, judge_of, trained
from benchmarks.measured import named_on, prepare, record
from models.metrics.images import frechet_distance
from models.metrics.sample_quality import features_of
from models.presets import ImageShape
from models.training.batches import generator_at
from models.training.protocol import ImageData
from tasks.data.sources import read_mnist

NUM_HELD_OUT = 6000
SPLIT_SEED, SPLIT_STREAM = 5, 0


def main() -> None:
    """Measure, and put the rows into the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--preset", default="standard", choices=["quick", "standard", "full"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    prepare(options.device)
    device = torch.device(options.device)
    data = _split()
    shape = ImageShape(1, 28, 28, num_classes=10)
    judge = judge_of(data, shape, device)
    held_out = features_of(judge, data.validation)
    floor = frechet_distance(held_out, features_of(judge, data.train[:NUM_HELD_OUT]))
    wanted = torch.from_numpy(np.resize(data.validation_labels, options.samples))
    found: dict[str, list[float]] = {"gan": [], "diffusion": []}
    seconds = dict.fromkeys(found, 0.0)
    for seed in options.seeds:
        for name, values in found.items():
            model, taken = trained(name, data, shape, seed, preset=options.preset, device=device)
            seconds[name] += taken / len(options.seeds)
            model.to(device)
            values.append(drawn_distance(name, model, judge, held_out, wanted))
            print(f"seed {seed}: {name} {values[-1]:.4f} after {taken:.0f} s", flush=True)
    record(
        named_on(device, f"diffusion_mnist_{options.preset}_frechet"),
        found["diffusion"],
        f"Fréchet distance (real training images: {floor:.3f})",
        seeds=options.seeds,
        seconds=seconds["diffusion"],
        reference=f"the GAN, same run, {seconds['gan']:.0f} s",
        reference_value=float(np.mean(found["gan"])),
    )


def _split() -> ImageData:
    """The official training part, less what is held out of it."""
    raw = read_mnist()
    assert raw.official_test is not None
    known = np.flatnonzero(~raw.official_test)
    order = torch.randperm(len(known), generator=generator_at(SPLIT_SEED, SPLIT_STREAM)).numpy()
    held_out, train = known[order[:NUM_HELD_OUT]], known[order[NUM_HELD_OUT:]]
    return ImageData(
        train=raw.pixels[train],
        train_labels=raw.labels[train],
        validation=raw.pixels[held_out],
        validation_labels=raw.labels[held_out],
    )


if __name__ == "__main__":
    main()
