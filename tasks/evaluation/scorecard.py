"""What an evaluation says of a model, and where it says it: MLflow, the Prefect UI, the log."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect.artifacts import create_table_artifact

from tasks.data.ingestion import Corpus, ImageSet
from tasks.evaluation.result import (
    REAL_DATA,
    of_real_data,
    reference_words,
    references,
    title,
    with_present_names,
)
from tasks.runtime.markup import markdown
from tasks.runtime.progress import log, show
from tasks.store.names import artifact_key
from tasks.tracking.mlflow_client import (
    artifact_url,
    is_served,
    log_dataset,
    log_file,
    log_metrics,
    run_metrics,
    set_tags,
)

if TYPE_CHECKING:
    from tasks.data.ingestion import Corpus, ImageSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorecard:
    """Receipt of an evaluation."""

    name: str
    run_id: str
    main_metric: str
    """The metric that decides; lower is better for all families."""
    main_value: float
    low: float = field(default=math.nan)
    """The main metric's 95 % interval over the held-out items; seeds are not in it."""
    high: float = field(default=math.nan)
    unit: str = field(default="")
    metrics: dict[str, float]
    failed_checks: tuple[str, ...]
    """What must keep this model from being used, in words; empty when nothing must."""
    data_digest: str
    judge_digest: str
    """Of the classifier that samples were measured with; empty for token models."""
    data_title: str
    data_licence: str
    example: str
    """A piece of generated text, or nothing for image models."""
    evaluation_digest: str = field(default="")
    """Of the data, the judge and the evaluation's code: equal ones make numbers comparable."""
    samples_digest: str = field(default="")
    """Of samples drawn with a fixed seed: what the registered version must give, too."""
    folder: str = field(default="")
    """Where the evaluation is stored."""
    was_stored: bool = field(default=False)
    """Whether an earlier run had already measured exactly this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChampionEvaluation:
    """The champion, judged now on the candidate's data."""

    version: int
    digest: str
    """Of its content."""
    scorecard: Scorecard | None
    problem: str
    """Why it could not be judged; empty when it was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionDecision:
    """Whether a candidate may be called champion, and why."""

    accepted: bool
    reason: str
    decided_by: str = field(default="")
    """Where an operator decided against it; empty where only the gate did."""
    champion_version: int | None = field(default=None)
    """The champion that it was compared with; None where there was none."""
    champion_value: float | None = field(default=None)
    difference: float | None = field(default=None)
    """The candidate's main value minus the champion's: below 0 is better."""
    low: float | None = field(default=None)
    """Each bound of the difference is held with 95 % confidence over the held-out items."""
    high: float | None = field(default=None)
    margin: float | None = field(default=None)
    """The difference that re-training with another seed alone may give."""


class Measured(NamedTuple):
    """A metric of held-out data."""

    name: str
    title: str
    """Its name for people."""
    value: float
    baseline: float | None
    """What real held-out data score, where that says something."""


def with_baseline(metrics: Mapping[str, float]) -> list[Measured]:
    """Each metric of a model beside what real data score."""
    named = with_present_names(metrics)
    return [
        Measured(name, title(name), value, named.get(of_real_data(name)))
        for name, value in named.items()
        if not name.startswith(REAL_DATA)
    ]


def beside_main(scorecard: Scorecard) -> str:
    """What stands beside the main value, as the end of a sentence that tells it."""
    told = reference_words(references(scorecard.main_metric, scorecard.metrics))
    return f", {told}" if told else ""


def publish(scorecard: Scorecard, data: "ImageSet | Corpus") -> None:
    """The numbers as MLflow metrics, with the data named, and as a table in the Prefect UI."""
    known = run_metrics(scorecard.run_id)
    if known.get(scorecard.main_metric) != scorecard.main_value:
        interval = {"interval_low": scorecard.low, "interval_high": scorecard.high}
        log_metrics(scorecard.run_id, {**scorecard.metrics, **interval})
        for split in ("train", "test"):
            log_dataset(scorecard.run_id, data, split)
        samples = Path(scorecard.folder) / "samples"
        if samples.is_dir():
            log_file(scorecard.run_id, samples, "samples")
        if scorecard.judge_digest:
            set_tags(scorecard.run_id, {"classifier_digest": scorecard.judge_digest})
    measured = (
        f"{title(scorecard.main_metric)} {scorecard.main_value:.4f}"
        f" ({scorecard.low:.4f} to {scorecard.high:.4f}{beside_main(scorecard)})"
    )
    state = "unchanged, " if scorecard.was_stored else ""
    log(f"{scorecard.name}: {state}{measured} on held-out data")
    for check in scorecard.failed_checks:
        log(f"{scorecard.name}: {check}")
    show(
        f"{scorecard.name}: scorecard",
        lambda: create_table_artifact(
            table=_table(scorecard),
            key=artifact_key(f"{scorecard.name}-scorecard"),
            description=_table_description(scorecard),
        ),
    )


def _table(scorecard: Scorecard) -> list[dict[str, Any]]:
    """Each held-out number, and beside it what real held-out data scores, where that exists."""
    return [
        {
            "metric": row.title,
            "value": f"{row.value:.5g}",
            "real data": "" if row.baseline is None else f"{row.baseline:.5g}",
        }
        for row in with_baseline(scorecard.metrics)
    ]


def _table_description(scorecard: Scorecard) -> str:
    lines = [f"**{markdown(scorecard.name)}** on held-out {markdown(scorecard.data_title)}"]
    if not scorecard.example and is_served():
        address = artifact_url(scorecard.run_id, "samples/samples.png")
        lines.append(f"![samples]({address})")
    return "\n\n".join(lines)
