"""Judge trained models on held-out data: every number with the data's digest beside it.

Image samples are measured in the features of the classifier that the pipeline trained on the same
data. Beside each distance stands what real held-out images score: the floor that a perfect model
would reach.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from prefect import task
from prefect.artifacts import create_table_artifact
from safetensors.torch import load_file
from torch import Tensor

from models import elbo, gan_networks, vae
from models.classifier import Classifier, ClassifierConfig
from models.decoding import TokenModel, generate
from models.gpt import Gpt, GptConfig
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
from models.ngram import NgramConfig, NgramModel
from models.text_metrics import bits_per_byte, distinct_n, longest_copied_span
from models.tokenizer import readable, tokenizer_from_dict
from tasks import pictures
from tasks.ingestion import Corpus, ImageSet, load_images, load_text
from tasks.reporting import in_task_run, log
from tasks.retries import NETWORKED
from tasks.storage import read_json, write_bytes, write_text
from tasks.tokenization import TokenSet, load_tokens
from tasks.tracking import artifact_url, is_served, log_dataset, log_file, log_metrics, set_tags
from tasks.training.loop import Fitted, default_prompt

Items = TypeVar("Items", np.ndarray, Tensor)

MOST_IMAGES = 10_000
NLL_IMAGES, NLL_SAMPLES = 1000, 100
SAMPLED_TEXTS, SAMPLED_TOKENS = 8, 500
EVALUATION_SEED = 2**31 - 1  # apart from the seeds that people train and sample with


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorecard:
    """Receipt of an evaluation."""

    name: str
    run_id: str
    main_metric: str
    """The metric that decides; lower is better for all families."""
    main_value: float
    metrics: dict[str, float]
    faults: tuple[str, ...]
    """What must keep this model from being used, in words; empty when nothing must."""
    data_digest: str
    judge_digest: str
    """Of the classifier that samples were measured with; empty for token models."""
    data_title: str
    data_licence: str
    example: str
    """A piece of generated text, or nothing for image models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a candidate may be called champion, and why."""

    accepted: bool
    reason: str


_TITLES = {
    "test_nll_nats": "negative log-likelihood, nats per image",
    "test_negative_elbo_nats": "negative ELBO, nats per image",
    "test_reconstruction_nats": "reconstruction loss, nats per image",
    "test_kl_nats": "KL divergence, nats per image",
    "test_reconstruction_error": "mean squared reconstruction error",
    "test_frechet_distance": "Fréchet distance",
    "test_class_entropy_nats": "entropy of the drawn classes, nats",
}


def title(metric: str) -> str:
    """A metric's name for people: `test_bits_per_byte` is "bits per byte"."""
    return _TITLES.get(metric, metric.removeprefix("test_").replace("_", " "))


def beside_the_floor(metrics: dict[str, float]) -> list[tuple[str, float, float | None]]:
    """Rows of (title, value, what real held-out images score or None)."""
    return [
        (title(name), value, metrics.get(f"floor_{name.removeprefix('test_')}"))
        for name, value in metrics.items()
        if not name.startswith("floor_")
    ]


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
    _publish(scorecard, images)
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
    faults = _not_finite(metrics)
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


def _not_finite(metrics: dict[str, float]) -> list[str]:
    values = metrics.items()
    return [f"{title(name)} is not finite" for name, value in values if not math.isfinite(value)]


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


@task(name="evaluate-tokens", task_run_name="evaluate {fitted.name}", **NETWORKED)
def evaluate_tokens(fitted: Fitted, tokens: TokenSet, run_id: str) -> Scorecard:
    """Measure a token model on the test split, and the texts that it writes."""
    model = _token_model(fitted)
    history = load_tokens(tokens, "train")[-model.context_length :]  # the text before the test
    sequence = np.concatenate([history, load_tokens(tokens, "test")]).astype(np.int64)
    log_probs = model.score(torch.from_numpy(sequence), start=len(history)).double()
    nats = -float(log_probs.sum())
    texts, copied = _written(model, tokens)
    metrics = {
        "test_bits_per_byte": bits_per_byte(nats, tokens.corpus.bytes_test),
        "test_nats_per_token": nats / tokens.num_test,
        **{f"test_distinct_{n}": distinct_n(texts, n) for n in (1, 2, 3)},
        "test_longest_copied_characters": float(copied),
    }
    faults = _not_finite(metrics)
    if metrics["test_bits_per_byte"] >= 8:
        faults.append("knows nothing: 8 bits per byte or more, as uniform guessing")
    scorecard = Scorecard(
        name=fitted.name,
        run_id=run_id,
        main_metric="test_bits_per_byte",
        main_value=metrics["test_bits_per_byte"],
        metrics=metrics,
        faults=tuple(faults),
        data_digest=tokens.corpus.digest,
        judge_digest="",
        data_title=tokens.corpus.title,
        data_licence=tokens.corpus.licence,
        example=texts[:600],
    )
    folder = Path(fitted.folder) / "texts"
    write_text(folder / "samples.txt", texts)
    log_file(run_id, folder, "samples")
    _publish(scorecard, tokens.corpus)
    return scorecard


def _token_model(fitted: Fitted) -> Any:
    config = read_json(fitted.config_path)["config"]
    tensors = load_file(fitted.weights_path)
    if fitted.family == "ngram":
        return NgramModel.from_tensors(NgramConfig(**config), tensors)
    model = Gpt(GptConfig(**config))
    model.load_state_dict(tensors)
    return model.eval()


def _written(model: TokenModel, tokens: TokenSet) -> tuple[str, int]:
    """Texts at temperature 1, and the length of the longest span copied from the training text."""
    tokenizer = tokenizer_from_dict(read_json(tokens.tokenizer_path))
    prompt = torch.from_numpy(tokenizer.encode(default_prompt(tokens)).astype(np.int64))
    drawn = generate(
        model,
        prompt,
        num_tokens=SAMPLED_TOKENS,
        num_sequences=SAMPLED_TEXTS,
        seed=EVALUATION_SEED,
    )
    texts = [readable(tokenizer.decode(row)) for row in drawn.tolist()]
    training = load_text(tokens.corpus, "train")
    return "\n".join(texts), max(longest_copied_span(text, training).length for text in texts)


def _publish(scorecard: Scorecard, data: ImageSet | Corpus) -> None:
    """The numbers as MLflow metrics, with the data named, and as a table in the Prefect UI."""
    log_metrics(scorecard.run_id, scorecard.metrics)
    for split in ("train", "test"):
        log_dataset(scorecard.run_id, data, split)
    measured = f"{title(scorecard.main_metric)} {scorecard.main_value:.4f}"
    log(f"{scorecard.name}: {measured} on held-out data")
    for fault in scorecard.faults:
        log(f"{scorecard.name}: {fault}")
    if in_task_run():
        create_table_artifact(
            table=_table(scorecard),
            key=f"{scorecard.name}-scorecard",
            description=_table_description(scorecard),
        )


def _table(scorecard: Scorecard) -> list[dict[str, Any]]:
    """Each held-out number, and beside it what real held-out images score, where that exists."""
    return [
        {
            "metric": name,
            "value": f"{value:.5g}",
            "real data": "" if floor is None else f"{floor:.5g}",
        }
        for name, value, floor in beside_the_floor(scorecard.metrics)
    ]


def _table_description(scorecard: Scorecard) -> str:
    lines = [f"**{scorecard.name}** on held-out {scorecard.data_title}"]
    if not scorecard.example and is_served():
        address = artifact_url(scorecard.run_id, "samples/samples.png")
        lines.append(f"![samples]({address})")
    return "\n\n".join(lines)
