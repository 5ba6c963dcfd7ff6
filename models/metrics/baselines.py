"""Is the judge fit to judge, and are samples nearer to real pictures than to rubbish?

A distance between features says nothing by itself: a judge that tells classes by their colour sees
little difference between a picture and coloured noise. So rubbish is judged too, made of real
pictures without any learning. A judge that does not put all of it far from real pictures is unfit,
and samples that lie nearer to it than to real pictures are rubbish themselves.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models.metrics.images import frechet_distance

Pixels = NDArray[np.uint8]

BLURRED = "blurred pictures"
MAX_RUBBISH = 1000
"""Pictures of each kind."""
MIN_RATIO = 3.0
"""A fit judge puts each kind of rubbish so many times as far from held-out pictures as real ones.

EvaluationResult on digits, MNIST and colour folders: see docs/experiments.md.
"""
MAX_SHARE = 0.5
"""Sound samples lie within this share of the distance of the nearest rubbish.

Quick GANs of digits lie at 0.03 of it, of colour photographs (which are noise) at 5.
"""


def rubbish(real: Pixels, seed: int = 0) -> dict[str, Pixels]:
    """Pictures that no one should take for real ones, by name, as many of each as of real ones.

    real: (N, C, H, W) uint8. Noise has each pixel's own mean and spread; shuffled pictures keep
    all their pixels; one-coloured ones and checkerboards keep each picture's own mean and contrast.
    """
    generator = np.random.default_rng(seed)
    pixels = real.astype(np.float32)
    number, channels, height, width = real.shape
    mean, spread = pixels.mean(0), pixels.std(0)
    colours, contrasts = pixels.mean((2, 3), keepdims=True), pixels.std((2, 3), keepdims=True)
    rows, columns = np.mgrid[:height, :width] // 2
    board = np.where((rows + columns) % 2, 1.0, -1.0)
    order = generator.random((number, 1, height * width)).argsort(2)
    shuffled = np.take_along_axis(pixels.reshape(number, channels, -1), order, axis=2)
    made = {
        "noise": mean + spread * generator.standard_normal(real.shape),
        "uniform noise": generator.uniform(0, 255, real.shape),
        "the mean picture": np.broadcast_to(mean, real.shape),
        BLURRED: _blurred(pixels),
        "pictures with shuffled pixels": shuffled.reshape(real.shape),
        "pictures with shuffled patches": _patches_shuffled(pixels, generator),
        "pictures of one colour": np.broadcast_to(colours, real.shape),
        "checkerboards": colours + contrasts * board,
    }
    return {name: _bytes(each) for name, each in made.items()}


def _bytes(pixels: NDArray[np.floating]) -> Pixels:
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _blurred(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is left after seeing them at a quarter of their size."""
    images = torch.from_numpy(pixels)
    size = images.shape[2:]
    small = F.interpolate(images, [max(2, side // 4) for side in size], mode="area")
    found: NDArray[np.float32] = F.interpolate(small, size, mode="bilinear").numpy()
    return found


def _patches_shuffled(
    pixels: NDArray[np.float32], generator: np.random.Generator, across: int = 4
) -> NDArray[np.float32]:
    """Sixteen patches of each picture in an order of its own; a rim that is left over stays."""
    found = pixels.copy()
    height, width = (side // across for side in pixels.shape[2:])
    places = [
        (slice(y * height, (y + 1) * height), slice(x * width, (x + 1) * width))
        for y in range(across)
        for x in range(across)
    ]
    for picture, spoilt in zip(pixels, found, strict=True):
        for place, source in zip(places, generator.permutation(len(places)), strict=True):
            spoilt[:, *place] = picture[:, *places[source]]
    return found


@dataclass(frozen=True, slots=True)
class Soundness:
    """How far rubbish, real pictures and samples lie from held-out pictures, and from each other.

    All are squared Frechet distances in the judge's features.
    """

    real: float
    """From held-out pictures to real ones of another part."""
    samples: float
    """From held-out pictures to the samples."""
    rubbish: dict[str, float]
    """From held-out pictures to each kind of rubbish."""
    samples_to_rubbish: dict[str, float]

    @property
    def nearest(self) -> tuple[str, float]:
        """The kind of rubbish that lies nearest to held-out pictures, and its distance."""
        return min(self.rubbish.items(), key=lambda item: item[1])

    @property
    def unfitness(self) -> str:
        """Why the judge cannot be relied on; empty when it can."""
        name, distance = self.nearest
        if distance >= MIN_RATIO * self.real:
            return ""
        return (
            f"the judge is unfit: it puts {name} at a Fréchet distance of {distance:.3g} from"
            f" held-out pictures, where real ones lie at {self.real:.3g}; wanted at least"
            f" {MIN_RATIO:g} times as far: give more pictures, or larger ones"
        )

    def failed_check(self, draws_means: bool = False) -> str:
        """What is wrong with the samples; empty when nothing is.

        draws_means: the samples are means of what a model holds for possible, as a VAE's are, and
        so smooth: then blurred pictures may be the nearest, no other rubbish.
        """
        beside = f"a Fréchet distance of {self.samples:.3g} (real pictures: {self.real:.3g})"
        others = {
            name: distance
            for name, distance in self.samples_to_rubbish.items()
            if not (draws_means and name == BLURRED)
        }
        closest = min(others, key=lambda name: others[name])
        if others[closest] < self.samples:
            return (
                f"unlike real pictures: samples lie at {beside}, but at {others[closest]:.3g} from"
                f" {closest}; train longer"
            )
        kind, distance = self.nearest
        if not draws_means and not self.samples <= MAX_SHARE * distance:
            return (
                f"unlike real pictures: samples lie at {beside}, more than {MAX_SHARE:g} times"
                f" the {distance:.3g} of {kind}; train longer"
            )
        return ""


def soundness(
    held_out: Tensor, other_real: Tensor, samples: Tensor, of_rubbish: dict[str, Tensor]
) -> Soundness:
    """Compare features (N, D) of held-out, other real, generated and worthless pictures."""
    return Soundness(
        real=frechet_distance(held_out, other_real),
        samples=frechet_distance(held_out, samples),
        rubbish={name: frechet_distance(held_out, each) for name, each in of_rubbish.items()},
        samples_to_rubbish={name: frechet_distance(e, samples) for name, e in of_rubbish.items()},
    )
