"""Measure image models on held-out images: their samples, and their likelihood where it is known.

Samples are measured in the features of the classifier that the pipeline trained on the same data,
or of a network that learned without labels where the data have none. Beside each distance stands
what real images score, which a perfect model would reach. Whether the judge can tell real
pictures from rubbish is measured every time; one that cannot lets no model pass.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from models.metrics.baselines import Soundness
from models.metrics.bootstrap import bootstrap_mean_interval
from models.metrics.classifier import Classifier
from models.metrics.likelihood import Likelihood
from models.metrics.sample_quality import (
    MAX_IMAGES,
    bytes_of,
    evenly_chosen,
    flat,
    sample_quality,
    sample_soundness,
    seen_by,
)
from models.metrics.seed_variance import resampled_frechet_distances
from tasks import plots
from tasks.data.ingestion import ImageSet
from tasks.data.splits import load_images
from tasks.evaluation.result import EVALUATION_SEED, EvaluationResult, not_finite
from tasks.training.device import on_training_device

MIN_SAMPLES, SAMPLES_PER_IMAGE = 10_000, 5
"""Samples are cheap: at least so many, and where their distance decides, five for each held-out
image, so that the luck of the draw is small beside that of the held-out images."""
MIN_DIFFERENT = 0.5
"""Share of different pictures among the samples of a model that is not collapsed."""


MeasureLikelihood = Callable[[Any, np.ndarray, int], Likelihood]


def measure_images(
    subject: Any,
    images: ImageSet,
    judge: Classifier,
    *,
    likelihood: MeasureLikelihood | None = None,
    draws_means: bool = False,
) -> EvaluationResult:
    """Measure an image model's samples, and its likelihood, on the test split.

    subject: a SampleModel, ours or one that a registered version brought along; judge: in whose
    features samples are compared; likelihood: measures it from (model, pixels, seed), nothing for a
    model that has none; draws_means: whether a sample is a mean of what the model expects. Raises
    ValueError for a model of images of another shape.
    """
    _check_shape(subject, images)
    drawn, requested = drawn_by(subject, images, by_distance=likelihood is None)
    train, test = load_images(images, "train"), load_images(images, "test")
    seen = seen_by(judge, drawn, train[0], test[0], load_images(images, "validation")[0])
    numbers = sample_quality(judge, drawn, requested, train, test, seen)
    sound = sample_soundness(judge, seen, train[0])
    numbers["rubbish_frechet_distance"] = sound.nearest[1]
    failed_checks = [
        *_failed_sample_checks(numbers, len(images.class_names)),
        *_failed_soundness(sound, draws_means),
    ]
    metrics: dict[str, float]
    if likelihood is not None:
        found = likelihood(subject.model, test[0], EVALUATION_SEED)
        metrics, interval = {**found.metrics, **numbers}, _interval(found.nats)
        failed_checks += found.failed_checks
        decisive: dict[str, Any] = {
            "main_metric": "test_nll_nats",
            "unit": f"nats per image, {found.unit}",
            "scores": found.nats,
            "are_resamples": False,
        }
    else:
        metrics, value = numbers, numbers["test_frechet_distance"]
        scores = resampled_frechet_distances(seen.held_out, seen.drawn, seed=EVALUATION_SEED)
        error = 1.96 * float(scores.std(ddof=1))
        interval = max(0.0, value - error), value + error  # no distance is negative
        decisive = {
            "main_metric": "test_frechet_distance",
            "unit": f"squared distance of {len(seen.drawn)} samples to {len(seen.held_out)} images",
            "scores": scores,
            "are_resamples": True,
        }
    return EvaluationResult(
        metrics=metrics,
        failed_checks=[*not_finite(metrics), *failed_checks],
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


def drawn_by(
    subject: Any, images: ImageSet, *, by_distance: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Many samples, uint8, and the classes asked for; more of them where their distance decides."""
    number = MIN_SAMPLES
    if by_distance:
        num_held_out = min(images.num_validation + images.num_test, MAX_IMAGES)
        number = max(MIN_SAMPLES, SAMPLES_PER_IMAGE * num_held_out)
    labels = None
    if subject.config.get("num_classes"):
        # The classes of the held-out images, so that the class mix is no difference.
        _, test_labels = load_images(images, "test")
        labels = torch.from_numpy(np.resize(test_labels, number))
    drawn = bytes_of(_drawn(subject, number, labels))
    return drawn, None if labels is None else labels.numpy()


def _drawn(subject: Any, number: int, labels: torch.Tensor | None) -> torch.Tensor:
    if hasattr(subject, "draw"):
        with on_training_device(subject.model):
            found: torch.Tensor = subject.draw(number, EVALUATION_SEED, labels=labels).cpu()
    elif hasattr(subject.model, "sample"):  # versions of before `SampleModel.draw`: a VAE's
        found = subject.model.sample(number, EVALUATION_SEED, sampler="mixture")
    else:  # and a GAN's, whose module it brought along
        code = sys.modules[type(subject.model).__module__]
        found = code.sample(subject.model, number, EVALUATION_SEED, labels)
    return found


def _interval(scores: np.ndarray) -> tuple[float, float]:
    if not np.isfinite(scores).all():
        return math.nan, math.nan
    found = bootstrap_mean_interval(scores)
    return found.low, found.high


def _failed_soundness(sound: Soundness, draws_means: bool) -> list[str]:
    """What soundness says: of an unfit judge that alone, as its distances mean nothing."""
    found = sound.unfitness or sound.failed_check(draws_means=draws_means)
    return [found] if found else []


def _failed_sample_checks(metrics: dict[str, float], num_classes: int) -> list[str]:
    """The absolute checks: not collapsed, not memorised."""
    failed_checks = []
    found = metrics.get("test_classes_drawn", math.inf)  # no classes: nothing is said of them
    if found <= num_classes / 2 or metrics["test_coverage"] < 0.05:
        drawn = f"draws {found:.0f} of {num_classes} classes, " if num_classes else ""
        failed_checks.append(f"collapsed: {drawn}coverage {metrics['test_coverage']:.2f}")
    if metrics["test_different_samples_share"] < MIN_DIFFERENT:
        failed_checks.append(
            f"collapsed: only {metrics['test_different_samples_share']:.1%} of the samples are"
            " different pictures"
        )
    if metrics["test_exact_copy_rate"] > 0.05 or metrics["test_nearest_neighbour_ratio"] < 0.3:
        failed_checks.append(
            f"memorised: {metrics['test_exact_copy_rate']:.1%} of the samples are training images,"
            f" nearest-neighbour ratio {metrics['test_nearest_neighbour_ratio']:.2f}"
        )
    return failed_checks


def _pictures(images: ImageSet, drawn: np.ndarray) -> dict[str, bytes]:
    """A grid of samples, and samples above the training images nearest to them."""
    pixels, _ = load_images(images, "train")
    train = pixels[evenly_chosen(len(pixels), MAX_IMAGES)]
    first, shown = (drawn[evenly_chosen(len(drawn), most)] for most in (12, 60))
    distances = torch.cdist(flat(first), flat(train))
    pairs = np.concatenate([first, train[distances.argmin(1).numpy()]])
    return {
        "samples.png": plots.grid(shown, 10),
        "nearest_training_images.png": plots.grid(pairs, 12),
    }
