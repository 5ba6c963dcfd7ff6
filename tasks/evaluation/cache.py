"""Evaluations on disk: what was measured once, of the same model on the same data, is kept.

An evaluation's key is the content of the model, the data, the judge and the code that measures. Its
manifest holds the numbers; beside it lie the scores of single items as safetensors, and pictures or
texts.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from tasks.data.ingestion import Corpus, ImageSet
from tasks.evaluation.result import EVALUATION_SEED, EvaluationResult
from tasks.evaluation.scorecard import Scorecard
from tasks.packaging.load_check import samples_digest
from tasks.store.artifacts import get_or_create
from tasks.store.files import digest_of, write_bytes
from tasks.store.fingerprint import cache_key_inputs
from tasks.store.records import DamagedRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """How a model is measured, and all that the numbers depend on beside model and data."""

    modules: tuple[str, ...]
    """Dotted names of the modules that measure."""
    measure: Callable[[Any], EvaluationResult]
    """What they do with a SampleModel."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What they are told, as JSON."""
    judge_digest: str = ""
    """Of the classifier that samples are measured with."""
    device: str = "cpu"
    """The device class on which samples are drawn: last digits depend on it."""


def evaluate_cached(
    name: str,
    content_digest: str,
    data: ImageSet | Corpus,
    measurement: Measurement,
    *,
    run_id: str,
    subject: Callable[[], AbstractContextManager[Any]],
) -> Scorecard:
    """The scorecard of a model, measured now unless exactly this was measured before.

    subject: gives the SampleModel, and is not asked where a stored evaluation answers.
    """
    settings = {"seed": EVALUATION_SEED, **measurement.settings}
    judge_digest = measurement.judge_digest
    modules = list(measurement.modules)
    compared = cache_key_inputs(settings, [data.digest, judge_digest], modules, measurement.device)

    def make(folder: Path) -> dict[str, Any]:
        with subject() as model:
            measured, drawn = measurement.measure(model), samples_digest(model)
        _write(folder, measured)
        facts = {f.name: getattr(measured, f.name) for f in fields(measured)}
        kept = {name: value for name, value in facts.items() if name not in _APART}
        return {**kept, "samples_digest": drawn}

    key_parts = {"model": content_digest, **compared}
    inputs = (content_digest, data.digest, judge_digest)
    made = get_or_create("evaluations", name, key_parts, make, inputs=inputs, record=_Recorded)
    recorded = made.as_receipt(_Recorded)
    value = recorded.metrics[recorded.main_metric]
    plain = {f.name: getattr(recorded, f.name) for f in fields(recorded)}
    return Scorecard(
        name=name,
        run_id=run_id,
        main_value=value,
        data_digest=data.digest,
        judge_digest=judge_digest,
        data_title=data.title,
        data_licence=data.licence,
        evaluation_digest=digest_of(compared),
        folder=str(made.folder),
        was_stored=made.was_stored,
        # The decisive one first.
        **{**plain, "metrics": {recorded.main_metric: value, **recorded.metrics}},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recorded:
    """What the manifest says of an evaluation; see `EvaluationResult` and `Scorecard`."""

    main_metric: str
    unit: str
    metrics: dict[str, float]
    failed_checks: tuple[str, ...]
    low: float
    high: float
    example: str
    samples_digest: str

    def __post_init__(self) -> None:
        if self.main_metric not in self.metrics:
            raise DamagedRecord(f"an evaluation has no metric {self.main_metric!r}")


_APART = ("scores", "are_resamples", "files")


def _write(folder: Path, measured: EvaluationResult) -> None:
    kind = "resamples" if measured.are_resamples else "items"
    scores = np.ascontiguousarray(measured.scores, dtype=np.float64)
    write_bytes(folder / "scores.safetensors", save({kind: scores}))
    for name, content in measured.files.items():
        write_bytes(folder / "samples" / name, content)


def item_scores(scorecard: Scorecard) -> tuple[np.ndarray, bool]:
    """An evaluation's scores (N,), and whether they are resamples rather than items."""
    return scores_in(Path(scorecard.folder))


def scores_in(folder: Path) -> tuple[np.ndarray, bool]:
    """The same of the folder of an evaluation; raises DamagedRecord."""
    path = folder / "scores.safetensors"
    try:
        ((kind, scores),) = load_file(path).items()
    except Exception as error:  # safetensors has an error class of its own in Rust
        raise DamagedRecord(f"{path}: {type(error).__name__}: {error}") from error
    return scores, kind == "resamples"
