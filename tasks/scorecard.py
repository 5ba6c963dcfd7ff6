"""What an evaluation says of a model, and where it says it: MLflow, the Prefect UI, the log."""

import math
from dataclasses import dataclass
from typing import Any

from prefect.artifacts import create_table_artifact

from tasks.ingestion import Corpus, ImageSet
from tasks.reporting import in_task_run, log
from tasks.tracking import artifact_url, is_served, log_dataset, log_metrics

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


def not_finite(metrics: dict[str, float]) -> list[str]:
    """The metrics that are no finite number, in words."""
    values = metrics.items()
    return [f"{title(name)} is not finite" for name, value in values if not math.isfinite(value)]


def publish(scorecard: Scorecard, data: ImageSet | Corpus) -> None:
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
