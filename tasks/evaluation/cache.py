"""Evaluations on disk: what was measured once, of the same model on the same data, is kept.

An evaluation's folder is named by the content of the model, the data, the judge and the code that
measures: `measured.json`, the scores of single items as safetensors, pictures or texts, and last a
receipt with the digests of them all.
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
from tasks.runtime.progress import log
from tasks.store.files import (
    atomic_folder,
    digest_of,
    folder_digests,
    home,
    inside,
    is_whole,
    remove,
    write_json,
)
from tasks.store.fingerprint import cache_key
from tasks.store.records import DamagedRecord, read_record


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
    evaluation = cache_key(settings, [data.digest, judge_digest], modules, "cpu")
    key = digest_of([evaluation, content_digest])[:16]
    folder = inside(home() / "evaluations", name) / key
    stored = _stored(folder)
    was_stored = stored is not None
    if stored is None:
        with subject() as model:
            measured, drawn = measurement.measure(model), samples_digest(model)
        _store(folder, content_digest, measured, drawn)
        stored = read_record(folder / "measured.json", _Stored)
    value = stored.metrics[stored.main_metric]
    plain = {f.name: getattr(stored, f.name) for f in fields(stored)}
    return Scorecard(
        name=name,
        run_id=run_id,
        main_value=value,
        data_digest=data.digest,
        judge_digest=judge_digest,
        data_title=data.title,
        data_licence=data.licence,
        evaluation_digest=evaluation,
        folder=str(folder),
        was_stored=was_stored,
        # The decisive one first.
        **{**plain, "metrics": {stored.main_metric: value, **stored.metrics}},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stored:
    """The content of measured.json; see `EvaluationResult` and `Scorecard`."""

    main_metric: str
    unit: str
    metrics: dict[str, float]
    faults: tuple[str, ...]
    low: float
    high: float
    example: str
    samples_digest: str


def _stored(folder: Path) -> _Stored | None:
    """What was measured before, where all of it can be read; a damaged folder is removed."""
    if not is_whole(folder, log):
        return None
    try:
        stored = read_record(folder / "measured.json", _Stored)
        if stored.main_metric not in stored.metrics:
            raise DamagedRecord(f"{folder / 'measured.json'}: no metric {stored.main_metric!r}")
        _scores_in(folder)
    except (FileNotFoundError, DamagedRecord) as error:
        log(f"a stored evaluation is damaged and will be made again: {error}")
        remove(folder)
        return None
    return stored


_APART = ("scores", "are_resamples", "files")


def _store(folder: Path, content_digest: str, measured: EvaluationResult, drawn: str) -> None:
    plain = {f.name: getattr(measured, f.name) for f in fields(measured) if f.name not in _APART}
    kind = "resamples" if measured.are_resamples else "items"
    with atomic_folder(folder) as temporary:
        write_json(temporary / "measured.json", {**plain, "samples_digest": drawn})
        scores = np.ascontiguousarray(measured.scores, dtype=np.float64)
        (temporary / "scores.safetensors").write_bytes(save({kind: scores}))
        (temporary / "samples").mkdir()
        for name, content in measured.files.items():
            (temporary / "samples" / name).write_bytes(content)
        receipt = {"receipt": {"digest": content_digest}, "files": folder_digests(temporary)}
        write_json(temporary / "receipt.json", receipt)


def item_scores(scorecard: Scorecard) -> tuple[np.ndarray, bool]:
    """An evaluation's scores (N,), and whether they are resamples rather than items."""
    return _scores_in(Path(scorecard.folder))


def _scores_in(folder: Path) -> tuple[np.ndarray, bool]:
    path = folder / "scores.safetensors"
    try:
        ((kind, scores),) = load_file(path).items()
    except Exception as error:  # safetensors has an error class of its own in Rust
        raise DamagedRecord(f"{path}: {type(error).__name__}: {error}") from error
    return scores, kind == "resamples"
