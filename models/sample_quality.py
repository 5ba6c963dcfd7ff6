"""Everything that is measured about one model's image samples, in the eyes of a classifier.

The pipeline's evaluation and the benchmarks call the same function. Beside each distance stands
what real held-out images score: the floor that a perfect model would reach.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.class_metrics import (
    class_counts,
    class_entropy,
    class_fidelity,
    within_class_variance_ratio,
)
from models.classifier import Classifier
from models.image_metrics import (
    exact_copy_rate,
    frechet_distance,
    kernel_distance,
    nearest_neighbour_ratio,
    precision_recall_density_coverage,
)

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

MOST_IMAGES = 10_000
"""Real images of a split that samples are compared with: quadratic metrics stay affordable."""


def sample_quality(
    judge: Classifier,
    drawn: Pixels,
    requested: Labels | None,
    train: tuple[Pixels, Labels],
    test: tuple[Pixels, Labels],
) -> dict[str, float]:
    """Distances, coverage, copies and classes of samples, by name.

    drawn: (N, C, H, W) uint8, at least as many as there are test images; requested: the classes
    (N,) that they were made for, or None. train and test: real images with their labels. Copies
    are looked for among all training images; else at most ten thousand of a part are used, from
    all over. A distance depends on the number of samples, so those that have a floor use as many
    samples as the floor has test images.
    """
    (train_pixels, train_labels), (test_pixels, test_labels) = _at_most(*train), _at_most(*test)
    num_classes = judge.config.num_classes
    predicted = predicted_classes(judge, drawn)
    right = predicted_classes(judge, test_pixels) == test_labels
    quality = {
        **_distances(judge, train_pixels, test_pixels, drawn[: len(test_pixels)]),
        "test_exact_copy_rate": exact_copy_rate(drawn, train[0]),
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


def _distances(judge: Classifier, train: Pixels, test: Pixels, fake: Pixels) -> dict[str, float]:
    """Of as many samples as test images, beside those of the test images themselves."""
    features = {
        name: features_of(judge, pixels)
        for name, pixels in (("train", train), ("test", test), ("fake", fake))
    }
    kernel = kernel_distance(features["train"], features["fake"])
    kernel_floor = kernel_distance(features["train"], features["test"])
    shares = precision_recall_density_coverage(features["test"], features["fake"])
    real = features["train"][evenly_chosen(len(train), len(test))]
    floors = precision_recall_density_coverage(features["test"], real)
    return {
        "test_frechet_distance": frechet_distance(features["train"], features["fake"]),
        "floor_frechet_distance": frechet_distance(features["train"], features["test"]),
        "test_kernel_distance": kernel.value,
        "floor_kernel_distance": kernel_floor.value,
        **{f"test_{name}": value for name, value in shares.items()},
        **{f"floor_{name}": value for name, value in floors.items()},
        "test_nearest_neighbour_ratio": nearest_neighbour_ratio(
            flat(fake), flat(test), flat(train)
        ),
    }


def evenly_chosen(num_items: int, most: int) -> NDArray[np.int64]:
    """Indices of at most so many items, from all over: data sets may be sorted by class."""
    return np.linspace(0, num_items - 1, min(num_items, most)).astype(np.int64)


@torch.inference_mode()
def features_of(judge: Classifier, pixels: Pixels) -> Tensor:
    """The judge's features of images (N, C, H, W) uint8: (N, feature_size)."""
    return torch.cat([judge.features(part) for part in _in_parts(pixels)])


@torch.inference_mode()
def predicted_classes(judge: Classifier, pixels: Pixels) -> Labels:
    """The class that the judge sees in each image (N, C, H, W) uint8: (N,)."""
    found: Labels = torch.cat([judge(part).argmax(1) for part in _in_parts(pixels)]).numpy()
    return found


def bytes_of(images: Tensor) -> Pixels:
    """Images in [0, 1], as uint8."""
    found: Pixels = (images * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return found


def _at_most(pixels: Pixels, labels: Labels) -> tuple[Pixels, Labels]:
    chosen = evenly_chosen(len(pixels), MOST_IMAGES)
    return pixels[chosen], labels[chosen]


def _in_parts(pixels: Pixels, size: int = 1024) -> list[Tensor]:
    starts = range(0, len(pixels), size)
    return [torch.from_numpy(np.array(pixels[i : i + size])).float() / 255 for i in starts]


def flat(pixels: Pixels) -> Tensor:
    """Images (N, C, H, W) uint8 as points (N, C * H * W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).flatten(1).float() / 255
