"""Judge image models on held-out images: their samples, and a VAE's likelihood.

Samples are measured in the features of the classifier that the pipeline trained on the same data.
Beside each distance stands what real held-out images score: the floor that a perfect model would
reach.
"""

from pathlib import Path

import numpy as np
import torch
from prefect import task
from safetensors.torch import load_file
from torch import Tensor

from models import elbo, gan_networks, vae
from models.classifier import Classifier, ClassifierConfig
from models.sample_quality import MOST_IMAGES, bytes_of, evenly_chosen, sample_quality
from tasks import pictures
from tasks.ingestion import ImageSet, load_images
from tasks.retries import NETWORKED
from tasks.scorecard import EVALUATION_SEED, Scorecard, not_finite, publish
from tasks.storage import read_json, write_bytes
from tasks.tracking import log_file, set_tags
from tasks.training.loop import Fitted

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
            bytes_of(model.sample(number, EVALUATION_SEED, sampler="mixture")),
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
    return bytes_of(drawn), None if labels is None else labels.numpy(), {}, []


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
    train, test = load_images(images, "train"), load_images(images, "test")
    return sample_quality(classifier.eval(), drawn, requested, train, test)


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


def _keep_pictures(fitted: Fitted, images: ImageSet, drawn: np.ndarray, run_id: str) -> None:
    """A grid of samples, and samples above the training images nearest to them."""
    folder = Path(fitted.folder) / "pictures"
    pixels, _ = load_images(images, "train")
    train = pixels[evenly_chosen(len(pixels), MOST_IMAGES)]
    first, shown = (drawn[evenly_chosen(len(drawn), most)] for most in (12, 60))
    distances = torch.cdist(_flat(first), _flat(train))
    pairs = np.concatenate([first, train[distances.argmin(1).numpy()]])
    write_bytes(folder / "samples.png", pictures.grid(shown, 10))
    write_bytes(folder / "nearest_training_images.png", pictures.grid(pairs, 12))
    log_file(run_id, folder, "samples")


def _flat(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(pixels)).flatten(1).float() / 255
