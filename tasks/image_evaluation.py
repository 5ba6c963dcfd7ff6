"""Judge image models on held-out images: their samples, and a VAE's likelihood.

Samples are measured in the features of the classifier that the pipeline trained on the same data.
Beside each distance stands what real held-out images score: the floor that a perfect model would
reach.
"""

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from prefect import task
from safetensors.torch import load_file
from torch import Tensor

from models import elbo, gan_networks, vae
from models.classifier import Classifier, ClassifierConfig
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
from tasks import pictures
from tasks.ingestion import ImageSet, load_images
from tasks.retries import NETWORKED
from tasks.scorecard import EVALUATION_SEED, Scorecard, not_finite, publish
from tasks.storage import read_json, write_bytes
from tasks.tracking import log_file, set_tags
from tasks.training.loop import Fitted

Items = TypeVar("Items", np.ndarray, Tensor)

MOST_IMAGES = 10_000
NLL_IMAGES, NLL_SAMPLES = 1000, 100


@task(name="evaluate-images", task_run_name="evaluate {fitted.name}", **NETWORKED)
def evaluate_images(fitted: Fitted, images: ImageSet, judge: Fitted, run_id: str) -> Scorecard:
    """Measure an image model's samples, and a VAE's likelihood, on the test split."""
    drawn, requested, metrics, faults = _draw(fitted, images)
    metrics |= _sample_metrics(images, judge, drawn, requested)
    faults += _sample_faults(metrics, len(images.class_names))
    main = "test_nll_nats" if fitted.family == "vae" else "test_frechet_distance"
    scorecard = Scorecard(
        name=fitted.name,
        run_id=run_id,
        main_metric=main,
        main_value=metrics[main],
        metrics=metrics,
        faults=tuple(faults),
        data_digest=images.digest,
        judge_digest=judge.digest,
        data_title=images.title,
        data_licence=images.licence,
        example="",
    )
    _keep_pictures(fitted, images, drawn, run_id)
    set_tags(run_id, {"classifier_digest": judge.digest})
    publish(scorecard, images)
    return scorecard


def _draw(
    fitted: Fitted, images: ImageSet
) -> tuple[np.ndarray, np.ndarray | None, dict[str, float], list[str]]:
    """As many samples as there are test images, uint8; the classes asked for; first numbers."""
    config = read_json(fitted.config_path)["config"]
    number = min(MOST_IMAGES, max(1000, images.num_test))
    if fitted.family == "vae":
        model = vae.Vae(vae.VaeConfig(**config))
        model.load_state_dict(load_file(fitted.weights_path))
        model.eval()
        metrics, faults = _likelihood_metrics(model, images)
        return (
            _bytes_of(model.sample(number, EVALUATION_SEED, sampler="mixture")),
            None,
            metrics,
            faults,
        )
    generator = gan_networks.Generator(gan_networks.GanConfig(**config))
    generator.load_state_dict(load_file(fitted.weights_path))
    labels = None
    if config["num_classes"]:
        # The classes of the held-out images, so that the class mix is no difference.
        _, test_labels = load_images(images, "test")
        labels = torch.from_numpy(np.resize(test_labels, number))
    drawn = gan_networks.sample(generator.eval(), number, EVALUATION_SEED, labels)
    return _bytes_of(drawn), None if labels is None else labels.numpy(), {}, []


def _likelihood_metrics(model: vae.Vae, images: ImageSet) -> tuple[dict[str, float], list[str]]:
    pixels, _ = load_images(images, "test")
    grey = torch.from_numpy(pixels[:: max(1, len(pixels) // NLL_IMAGES)].copy()).float() / 255
    seen = elbo.binarize(grey, EVALUATION_SEED) if _is_binary(model) else grey
    losses = elbo.negative_elbo(model, seen, EVALUATION_SEED)
    nll = elbo.importance_weighted_nll(model, seen, NLL_SAMPLES, EVALUATION_SEED)
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
    return metrics, [alarm] if alarm and alarm.startswith("posterior") else []


def _is_binary(model: vae.Vae) -> bool:
    return model.config.likelihood == "bernoulli"


def _sample_metrics(
    images: ImageSet, judge: Fitted, drawn: np.ndarray, requested: np.ndarray | None
) -> dict[str, float]:
    classifier = Classifier(ClassifierConfig(**read_json(judge.config_path)["config"]))
    classifier.load_state_dict(load_file(judge.weights_path))
    classifier.eval()
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
    return metrics


def _sample_faults(metrics: dict[str, float], num_classes: int) -> list[str]:
    """The absolute checks: finite, not collapsed, not memorised."""
    faults = not_finite(metrics)
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


def _keep_pictures(fitted: Fitted, images: ImageSet, drawn: np.ndarray, run_id: str) -> None:
    """A grid of samples, and samples above the training images nearest to them."""
    folder = Path(fitted.folder) / "pictures"
    train, _ = _at_most(*load_images(images, "train"))
    first = _evenly(drawn, 12)
    distances = torch.cdist(_flat(first), _flat(train))
    pairs = np.concatenate([first, train[distances.argmin(1).numpy()]])
    write_bytes(folder / "samples.png", pictures.grid(_evenly(drawn, 60), 10))
    write_bytes(folder / "nearest_training_images.png", pictures.grid(pairs, 12))
    log_file(run_id, folder, "samples")
