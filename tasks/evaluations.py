"""Evaluations on disk: what was measured once, of the same model on the same data, is kept.

An evaluation's folder is named by the content of the model, the data, the judge and the code that
measures: `measured.json`, the scores of single items as safetensors, pictures or texts, and last a
receipt with the digests of them all.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from tasks.ingestion import Corpus, ImageSet
from tasks.load_check import samples_digest
from tasks.measured import EVALUATION_SEED, Measured
from tasks.provenance import step_key
from tasks.reporting import log
from tasks.scorecard import Scorecard
from tasks.storage import (
    atomic_folder,
    digest_of,
    folder_digests,
    home,
    inside,
    is_whole,
    read_json,
    write_json,
)


def judged(
    name: str,
    content_digest: str,
    data: ImageSet | Corpus,
    *,
    run_id: str,
    module: str,
    subject: Callable[[], AbstractContextManager[Any]],
    measure: Callable[[Any], Measured],
    judge_digest: str = "",
) -> Scorecard:
    """The scorecard of a model, measured now unless exactly this was measured before.

    module: dotted name of the module that measures; subject: gives the SampleModel, and is not
    asked where a stored evaluation answers; measure: what to do with it.
    """
    settings = {"seed": EVALUATION_SEED}
    evaluation = step_key(settings, [data.digest, judge_digest], [module], "cpu")
    key = digest_of([evaluation, content_digest])[:16]
    folder = inside(home() / "evaluations", name) / key
    was_stored = is_whole(folder, log)
    if not was_stored:
        with subject() as model:
            measured, drawn = measure(model), samples_digest(model)
        _store(folder, content_digest, measured, drawn)
    record = read_json(folder / "measured.json")
    value = record["metrics"].pop(record["main_metric"])
    # The decisive one first.
    record["metrics"] = {record["main_metric"]: value, **record["metrics"]}
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
        **{**record, "faults": tuple(record["faults"])},
    )


_APART = ("scores", "are_resamples", "files")


def _store(folder: Path, content_digest: str, measured: Measured, drawn: str) -> None:
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
    ((kind, scores),) = load_file(Path(scorecard.folder) / "scores.safetensors").items()
    return scores, kind == "resamples"
