"""The gallery's page: one self-contained HTML file that shows what the champions made."""

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks import plots
from tasks.evaluation.result import (
    REAL_DATA,
    reference_words,
    references_told,
    title,
    with_present_names,
)
from tasks.evaluation.scorecard import with_baseline
from tasks.families.table import FAMILIES, purpose_of
from tasks.runtime.templates import html_page
from tasks.samples.token_attribution import CHOICES, TEMPERATURE
from tasks.store.files import read_json, sha256_of
from tasks.store.records import shaped
from tasks.tracking.mlflow_client import metric_history, run_exists, run_metrics

_TEMPLATES = (
    Path(__file__).with_name("gallery.html"),
    Path(__file__).with_name("gallery_parts.html"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChampionSamples:
    """Receipt of what one champion made."""

    name: str
    family: str
    version: int
    run_id: str
    """The MLflow run that trained it."""
    scorecard_run_id: str
    """The one that judged it."""
    main_metric: str
    main_value: float
    folder: str
    pictures: tuple[tuple[str, str], ...]
    """(file name, caption)."""
    differences: tuple[tuple[str, str], ...]
    """The same of what it and the champion before it made from the same seeds."""
    texts: tuple[tuple[str, str], ...]
    """(file name, caption)."""
    seed: int = 0
    key: str = ""
    """Of what decides the files: the next page takes them over while it stays the same."""
    references: dict[str, float] = field(default_factory=dict)
    """See `tasks.evaluation.result.references`."""
    remark: str = ""
    """Why these are not the present champion's works, where they are not."""


def with_references(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A work's record with its reference metrics as numbers; raises DamagedRecord.

    Earlier versions of this project wrote them as `beside`, a finished sentence.
    """
    fields = dict(record)
    if "references" not in fields:
        words = shaped(fields.pop("beside", ""), str, f"{where}: beside")
        fields["references"] = references_told(str(fields.get("main_metric")), words)
    told = shaped(fields["references"], dict[str, float], f"{where}: references")
    fields["references"] = with_present_names(told)
    return fields


def page(works: Sequence[ChampionSamples]) -> str:
    """The self-contained page of a gallery: the works of each data set beside each other."""
    groups = [
        _group(data, [work for work in works if _data_of(work) == data])
        for data in dict.fromkeys(map(_data_of, works))
    ]
    return html_page("samples/gallery.html", groups=groups, has_contents=len(works) > 1)


def template_digests() -> dict[str, str]:
    """The sha256 of each template that the page is made with: a changed one makes a new page."""
    return {path.name: sha256_of(path) for path in _TEMPLATES}


def _data_of(work: ChampionSamples) -> str:
    """The name of the data set that a model was trained on."""
    return work.name.removesuffix(f"-{work.family}")


def _group(data: str, works: list[ChampionSamples]) -> dict[str, Any]:
    """What the template shows of the works of one data set."""
    return {"data": data, "works": [_shown(work) for work in works], "yardstick": _yardstick(works)}


def _shown(work: ChampionSamples) -> dict[str, Any]:
    """What the template shows of one work."""
    family = FAMILIES.get(work.family)
    return {
        "name": work.name,
        "short": family.title if family else work.name,
        "link": quote(work.name),
        "family": purpose_of(work.family),
        "version": work.version,
        "metric": title(work.main_metric),
        "value": work.main_value,
        "references": reference_words(work.references),
        "remark": work.remark,
        "curves": _curves(work),
        "is_text": bool(work.texts),
        "pieces": [_piece(work, *each) for each in (*work.pictures, *work.texts)],
        "choices": _choices(work),
        "differences": [_piece(work, *each) for each in work.differences],
        "numbers": _numbers(work),
    }


def _piece(work: ChampionSamples, file_name: str, caption: str) -> dict[str, str]:
    path = Path(work.folder) / file_name
    if path.suffix == ".png":
        return {"caption": caption, "picture": data_uri(path)}
    return {"caption": caption, "text": path.read_text(encoding="utf-8")}


def _choices(work: ChampionSamples) -> dict[str, Any] | None:
    """How an n-gram model chose each token of a text, and how often by how much of it."""
    path = Path(work.folder) / CHOICES
    if not path.exists():
        return None
    chosen = read_json(path)
    longest = max(choice["context_length"] for choice in chosen)
    lengths = Counter(choice["context_length"] for choice in chosen)
    shares = [
        {"length": length, "share": lengths[length] / len(chosen)} for length in range(longest + 1)
    ]
    return {
        "temperature": TEMPERATURE,
        "tokens": chosen,
        "shares": shares,
        "darkest": max(1, longest),
    }


def _curves(work: ChampionSamples) -> list[dict[str, Any]]:
    if not _is_there(work.run_id):
        return []
    names = FAMILIES[work.family].curves if work.family in FAMILIES else ()
    histories = {name: metric_history(work.run_id, name) for name in names}
    return [
        {
            "name": name.replace("_", " "),
            "drawing": plots.curve(points),
            "first": points[0][1],
            "last": points[-1][1],
        }
        for name, points in histories.items()
        if len(points) > 1
    ]


def _is_there(run_id: str) -> bool:
    """Whether a run's numbers can be asked for: people delete runs, and lose databases."""
    return bool(run_id) and run_exists(run_id)


def _numbers(work: ChampionSamples) -> dict[str, Any] | None:
    """What was measured on held-out data, where the run that measured it is still there."""
    if not _is_there(work.scorecard_run_id):
        return None
    metrics = with_present_names(run_metrics(work.scorecard_run_id))
    is_of_images = work.family in FAMILIES and FAMILIES[work.family].data == "images"
    has_no_labels = is_of_images and "classifier_test_accuracy" not in metrics
    measured = {
        name: value
        for name, value in sorted(metrics.items())
        if name.startswith(("test_", REAL_DATA))
    }
    return {"rows": with_baseline(measured), "has_no_labels": has_no_labels}


def _yardstick(works: list[ChampionSamples]) -> list[dict[str, Any]]:
    """The bits per byte of the token models of one data set, each as a part of the worst."""
    judged = [work for work in works if work.main_metric == "test_bits_per_byte"]
    if len(judged) < 2:
        return []
    worst = max(work.main_value for work in judged)
    return [
        {"name": work.name, "value": work.main_value, "width": work.main_value / worst * 100}
        for work in judged
    ]


def data_uri(path: Path) -> str:
    """A PNG file as an address that holds it."""
    return "data:image/png;base64," + b64encode(path.read_bytes()).decode("ascii")
