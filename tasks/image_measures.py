"""Measure image models on held-out images: their samples, and a VAE's likelihood.

Samples are measured in the features of the classifier that the pipeline trained on the same data.
Beside each distance stands what real held-out images score: the floor that a perfect model would
reach.
"""

import math
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from models import elbo, gan_networks
from models.classifier import Classifier
from models.image_metrics import (
    class_counts,
    class_entropy,
    class_fidelity,
    exact_copy_rate,
    frechet_distance,
    kernel_distance,
    nearest_neighbour_ratio,
    precision_recall_density_coverage,
    within_class_variance_ratio,
)
from models.intervals import bootstrap_mean_interval
from models.resampling import resampled_frechet_distances
from tasks import pictures
from tasks.ingestion import ImageSet, load_images
from tasks.measured import EVALUATION_SEED, Measured, not_finite

Items = TypeVar("Items", np.ndarray, Tensor)

MOST_IMAGES = 10_000
NLL_IMAGES, NLL_SAMPLES = 1000, 100


def measure_images(subject: Any, images: ImageSet, judge: Classifier) -> Measured:
    """Measure an image model's samples, and a VAE's likelihood, on the test split.

    subject: a SampleModel, ours or one that a registered version brought along; judge: in whose
    features samples are compared. Raises ValueError for a model of images of another shape.
    """
    _check_shape(subject, images)
    drawn, requested = _drawn(subject, images)
    numbers, features = _sample_metrics(images, judge, drawn, requested)
    faults = _sample_faults(numbers, len(images.class_names))
    if subject.family == "vae":
        likelihood, nats, alarms = _likelihood_metrics(subject.model, images)
        interval = _interval(nats)
        decisive: dict[str, Any] = {
            "main_metric": "test_nll_nats",
            "unit": "nats per image, " + _unit(subject.model),
            "scores": nats,
            "are_resamples": False,
        }
    else:
        likelihood, alarms = {}, []
        value = numbers["test_frechet_distance"]
        scores = resampled_frechet_distances(*features, seed=EVALUATION_SEED)
        error = 1.96 * float(scores.std(ddof=1))
        interval = value - error, value + error
        decisive = {
            "main_metric": "test_frechet_distance",
            "unit": f"squared distance of {len(features[1])} samples",
            "scores": scores,
            "are_resamples": True,
        }
    metrics = {**likelihood, **numbers}
    return Measured(
        metrics=metrics,
        faults=[*not_finite(metrics), *faults, *alarms],
        low=interval[0],
        high=interval[1],
        files=_pictures(images, drawn),
        example="",
        **decisive,
    )


def _check_shape(subject: Any, images: ImageSet) -> None:
    made = tuple(subject.config[name] for name in ("channels", "height", "width"))
    wanted = images.channels, images.height, images.width
    if made != wanted:
        raise ValueError(f"it makes images of shape {made}, the data's have {wanted}")
    num_classes = subject.config.get("num_classes", 0)
    if num_classes not in (0, len(images.class_names)):
        raise ValueError(f"it knows {num_classes} classes, the data have {len(images.class_names)}")


def _drawn(subject: Any, images: ImageSet) -> tuple[np.ndarray, np.ndarray | None]:
    """As many samples as there are test images, uint8, and the classes asked for."""
    number = min(MOST_IMAGES, max(1000, images.num_test))
    if subject.family == "vae":
        return _bytes_of(subject.model.sample(number, EVALUATION_SEED, sampler="mixture")), None
    labels = None
    if subject.config["num_classes"]:
        # The classes of the held-out images, so that the class mix is no difference.
        _, test_labels = load_images(images, "test")
        labels = torch.from_numpy(np.resize(test_labels, number))
    drawn = gan_networks.sample(subject.model, number, EVALUATION_SEED, labels)
    return _bytes_of(drawn), None if labels is None else labels.numpy()


def _interval(scores: np.ndarray) -> tuple[float, float]:
    if not np.isfinite(scores).all():
        return math.nan, math.nan
    found = bootstrap_mean_interval(scores)
    return found.low, found.high


def _likelihood_metrics(
    model: Any, images: ImageSet
) -> tuple[dict[str, float], np.ndarray, list[str]]:
    """Numbers of the likelihood, the nats of each test image, and what is wrong."""
    pixels, _ = load_images(images, "test")
    grey = torch.from_numpy(pixels[:: max(1, len(pixels) // NLL_IMAGES)].copy()).float() / 255
    seen = elbo.binarize(grey, EVALUATION_SEED) if _is_binary(model) else grey
    losses = elbo.negative_elbo(model, seen, EVALUATION_SEED)
    nll = elbo.importance_weighted_nll(model, seen, NLL_SAMPLES, EVALUATION_SEED).double()
    num_active = elbo.active_units(model, seen)
    error = (model.reconstruct(seen) - grey).square().mean()
    alarm = elbo.collapse_alarm(float(losses["kl"].mean()), num_active, model.config.latent_size)
    metrics = {
        "test_nll_nats": float(nll.mean()),
        "test_negative_elbo_nats": float(losses["negative_elbo"].mean()),
        "test_reconstruction_nats": float(losses["reconstruction"].mean()),
        "test_kl_nats": float(losses["kl"].mean()),
        "test_reconstruction_error": float(error),
        "test_active_units": float(num_active),
        "test_active_units_fraction": num_active / model.config.latent_size,
    }
    alarms = [alarm] if alarm and alarm.startswith("posterior") else []
    return metrics, nll.cpu().numpy(), alarms


def _unit(model: Any) -> str:
    return "binarised pixels" if _is_binary(model) else "256 levels"


def _is_binary(model: Any) -> bool:
    return bool(model.config.likelihood == "bernoulli")


def _sample_metrics(
    images: ImageSet, classifier: Classifier, drawn: np.ndarray, requested: np.ndarray | None
) -> tuple[dict[str, float], tuple[Tensor, Tensor]]:
    """Numbers of the samples; features of the training images, and of as many as are held out."""
    train, train_labels = _at_most(*load_images(images, "train"))
    test, test_labels = _at_most(*load_images(images, "test"))
    fake = drawn[: len(test)]  # a distance depends on the number of samples: the floor's number
    features = {
        name: _features(classifier, pixels)
        for name, pixels in (("train", train), ("test", test), ("fake", fake))
    }
    kernel = kernel_distance(features["train"], features["fake"])
    kernel_floor = kernel_distance(features["train"], features["test"])
    shares = precision_recall_density_coverage(features["test"], features["fake"])
    floors = precision_recall_density_coverage(
        features["test"], _evenly(features["train"], len(test))
    )
    predicted = _predicted(classifier, drawn)
    metrics = {
        "test_frechet_distance": frechet_distance(features["train"], features["fake"]),
        "floor_frechet_distance": frechet_distance(features["train"], features["test"]),
        "test_kernel_distance": kernel.value,
        "floor_kernel_distance": kernel_floor.value,
        **{f"test_{name}": value for name, value in shares.items()},
        **{f"floor_{name}": value for name, value in floors.items()},
        "test_nearest_neighbour_ratio": nearest_neighbour_ratio(
            _flat(fake), _flat(test), _flat(train)
        ),
        "test_exact_copy_rate": exact_copy_rate(drawn, train),
        "test_class_entropy_nats": class_entropy(predicted, len(images.class_names)),
        "test_classes_drawn": float((class_counts(predicted, len(images.class_names)) > 0).sum()),
        "classifier_test_accuracy": float((_predicted(classifier, test) == test_labels).mean()),
    }
    if requested is not None:
        metrics["test_class_fidelity"] = class_fidelity(predicted, requested)
        metrics["test_within_class_variance_ratio"] = within_class_variance_ratio(
            _flat(drawn), requested, _flat(train), train_labels
        )
    return metrics, (features["train"], features["fake"])


def _sample_faults(metrics: dict[str, float], num_classes: int) -> list[str]:
    """The absolute checks: not collapsed, not memorised."""
    faults = []
    if metrics["test_classes_drawn"] <= num_classes / 2 or metrics["test_coverage"] < 0.05:
        faults.append(
            f"collapsed: draws {metrics['test_classes_drawn']:.0f} of {num_classes} classes,"
            f" coverage {metrics['test_coverage']:.2f}"
        )
    if metrics["test_exact_copy_rate"] > 0.05 or metrics["test_nearest_neighbour_ratio"] < 0.3:
        faults.append(
            f"memorised: {metrics['test_exact_copy_rate']:.1%} of the samples are training images,"
            f" nearest-neighbour ratio {metrics['test_nearest_neighbour_ratio']:.2f}"
        )
    return faults


def _at_most(pixels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most ten thousand images: quadratic metrics stay affordable."""
    return np.asarray(_evenly(pixels, MOST_IMAGES)), _evenly(labels, MOST_IMAGES)


def _evenly(items: Items, most: int) -> Items:
    """At most so many of the items, from all over: data sets may be sorted by class."""
    chosen = np.linspace(0, len(items) - 1, min(len(items), most)).astype(int)
    found: Items = items[chosen]
    return found


@torch.inference_mode()
def _features(classifier: Classifier, pixels: np.ndarray) -> Tensor:
    return torch.cat([classifier.features(part) for part in _in_parts(pixels)])


@torch.inference_mode()
def _predicted(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    found: np.ndarray = torch.cat([classifier(p).argmax(1) for p in _in_parts(pixels)]).numpy()
    return found


def _in_parts(pixels: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(np.array(part)).float() / 255 for part in _chunks(pixels, 1024)]


def _chunks(pixels: np.ndarray, size: int) -> list[np.ndarray]:
    return [pixels[start : start + size] for start in range(0, len(pixels), size)]


def _flat(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(pixels)).flatten(1).float() / 255


def _bytes_of(drawn: Tensor) -> np.ndarray:
    array: np.ndarray = (drawn * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return array


def _pictures(images: ImageSet, drawn: np.ndarray) -> dict[str, bytes]:
    """A grid of samples, and samples above the training images nearest to them."""
    train, _ = _at_most(*load_images(images, "train"))
    first = _evenly(drawn, 12)
    distances = torch.cdist(_flat(first), _flat(train))
    pairs = np.concatenate([first, train[distances.argmin(1).numpy()]])
    return {
        "samples.png": pictures.grid(_evenly(drawn, 60), 10),
        "nearest_training_images.png": pictures.grid(pairs, 12),
    }
