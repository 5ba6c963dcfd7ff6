"""Everything that is measured about one model's image samples, in the eyes of a classifier.

The pipeline's evaluation and the benchmarks call the same function. Beside each distance stands
what real images score, which a perfect model would reach.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.metrics.baselines import MAX_RUBBISH, Soundness, rubbish, soundness
from models.metrics.classes import (
    class_counts,
    class_entropy,
    class_fidelity,
    within_class_variance_ratio,
)
from models.metrics.classifier import Classifier
from models.metrics.images import (
    exact_copy_rate,
    frechet_distance,
    kernel_distance,
    nearest_neighbour_ratio,
    precision_recall_density_coverage,
)

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

MAX_IMAGES = 10_000
"""Real images of a split that samples are compared with: quadratic metrics stay affordable."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Features (N, feature_size) of real images and of samples: at most ten thousand real ones."""

    train: Tensor
    test: Tensor
    held_out: Tensor
    """Of all images that no sample model was trained on: what a Frechet distance is taken to."""
    drawn: Tensor
    """Of all samples; metrics that depend on the number take as many as there are test images."""


def seen_by(
    judge: Classifier, drawn: Pixels, train: Pixels, test: Pixels, validation: Pixels | None = None
) -> Seen:
    """What the judge sees in samples and in the real images that they are compared with.

    validation: further held-out images, which make the Frechet distance surer; none: the test's.
    """
    held_out = test if validation is None else np.concatenate([validation, test])
    return Seen(
        train=features_of(judge, train[evenly_chosen(len(train), MAX_IMAGES)]),
        test=features_of(judge, test[evenly_chosen(len(test), MAX_IMAGES)]),
        held_out=features_of(judge, held_out[evenly_chosen(len(held_out), MAX_IMAGES)]),
        drawn=features_of(judge, drawn),
    )


def sample_quality(
    judge: Classifier,
    drawn: Pixels,
    requested: Labels | None,
    train: tuple[Pixels, Labels],
    test: tuple[Pixels, Labels],
    seen: Seen | None = None,
) -> dict[str, float]:
    """Distances, coverage, copies and classes of samples, by name.

    drawn: (N, C, H, W) uint8, at least as many as there are test images; requested: the classes
    (N,) that they were made for, or None. train and test: real images with their labels. Copies
    are looked for among all training images; else at most ten thousand of a part are used, from
    all over. seen: from `seen_by`, where it is known already. The Frechet distance is that of all
    samples to the held-out images, and of real data that of the training images to them: draw many,
    and none of it is the luck of the draw. Other metrics depend on the number of samples and use as
    many as there are test images. Without classes what needs them is left out.
    """
    seen = seen or seen_by(judge, drawn, train[0], test[0])
    (train_pixels, train_labels), (test_pixels, test_labels) = _at_most(*train), _at_most(*test)
    num_classes = judge.config.num_classes
    quality = {
        **_distances(seen),
        "test_nearest_neighbour_ratio": nearest_neighbour_ratio(
            flat(drawn[: len(test_pixels)]), flat(test_pixels), flat(train_pixels)
        ),
        "test_exact_copy_rate": exact_copy_rate(drawn, train[0]),
        "test_different_samples_share": len(np.unique(flat_bytes(drawn))) / len(drawn),
    }
    if not num_classes:
        return quality
    predicted = predicted_classes(judge, drawn)
    right = predicted_classes(judge, test_pixels) == test_labels
    quality |= {
        "test_class_entropy_nats": class_entropy(predicted, num_classes),
        "test_classes_drawn": float((class_counts(predicted, num_classes) > 0).sum()),
        "classifier_test_accuracy": float(right.mean()),
    }
    if requested is not None:
        quality["test_class_fidelity"] = class_fidelity(predicted, requested)
        quality["test_within_class_variance_ratio"] = within_class_variance_ratio(
            flat(drawn), requested, flat(train_pixels), train_labels
        )
    return quality


def _distances(seen: Seen) -> dict[str, float]:
    """Of the samples, beside those of real images."""
    fake = seen.drawn[: len(seen.test)]
    real = seen.train[evenly_chosen(len(seen.train), len(seen.test))]
    kernel, kernel_of_real = (kernel_distance(seen.train, each) for each in (fake, seen.test))
    shares = precision_recall_density_coverage(seen.test, fake)
    of_real = precision_recall_density_coverage(seen.test, real)
    return {
        "test_frechet_distance": frechet_distance(seen.held_out, seen.drawn),
        "real_data_frechet_distance": frechet_distance(seen.held_out, seen.train),
        "test_kernel_distance": kernel.value,
        "real_data_kernel_distance": kernel_of_real.value,
        **{f"test_{name}": value for name, value in shares.items()},
        **{f"real_data_{name}": value for name, value in of_real.items()},
    }


def sample_soundness(judge: Classifier, seen: Seen, train: Pixels) -> Soundness:
    """Whether the judge sees rubbish for what it is, and whether the samples are any better."""
    spoilt = rubbish(train[evenly_chosen(len(train), MAX_RUBBISH)])
    of_rubbish = {name: features_of(judge, pixels) for name, pixels in spoilt.items()}
    return soundness(seen.held_out, seen.train, seen.drawn, of_rubbish)


def evenly_chosen(num_items: int, most: int) -> NDArray[np.int64]:
    """Indices of at most so many items, from all over: data sets may be sorted by class."""
    return np.linspace(0, num_items - 1, min(num_items, most)).astype(np.int64)


@torch.inference_mode()
def features_of(judge: Classifier, pixels: Pixels) -> Tensor:
    """The judge's features of images (N, C, H, W) uint8: (N, feature_size)."""
    return torch.cat([judge.features(part) for part in _in_parts(judge, pixels)])


@torch.inference_mode()
def predicted_classes(judge: Classifier, pixels: Pixels) -> Labels:
    """The class that the judge sees in each image (N, C, H, W) uint8: (N,)."""
    found: Labels = (
        torch.cat([judge(part).argmax(1) for part in _in_parts(judge, pixels)]).cpu().numpy()
    )
    return found


def bytes_of(images: Tensor) -> Pixels:
    """Images in [0, 1], as uint8."""
    found: Pixels = (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return found


def _at_most(pixels: Pixels, labels: Labels) -> tuple[Pixels, Labels]:
    chosen = evenly_chosen(len(pixels), MAX_IMAGES)
    return pixels[chosen], labels[chosen]


def _in_parts(judge: Classifier, pixels: Pixels, size: int = 1024) -> Iterator[Tensor]:
    """Images (N, C, H, W) uint8 in parts in [0, 1], where the judge is."""
    device = next((each.device for each in judge.parameters()), torch.device("cpu"))
    for start in range(0, len(pixels), size):
        yield torch.from_numpy(np.array(pixels[start : start + size])).to(device).float() / 255


def flat_bytes(pixels: Pixels) -> NDArray[np.void]:
    """Images (N, C, H, W) uint8 as one value each, (N,): equal for equal images."""
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    return rows.view(np.dtype((np.void, rows.shape[1]))).ravel()


def flat(pixels: Pixels) -> Tensor:
    """Images (N, C, H, W) uint8 as points (N, C * H * W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).flatten(1).float() / 255
