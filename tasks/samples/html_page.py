"""The gallery's page: one self-contained HTML file that shows what the champions made."""

import math
from base64 import b64encode
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tasks import plots
from tasks.evaluation.result import (
    REAL_DATA,
    of_real_data,
    reference_words,
    references_told,
    title,
    with_present_names,
)
from tasks.evaluation.scorecard import with_baseline
from tasks.families.table import FAMILIES, purpose_of
from tasks.runtime.play_address import play_url
from tasks.runtime.templates import html_page
from tasks.samples.drawing import CHOICES, COLUMNS, TEMPERATURE_OF_CHOICES
from tasks.samples.tiles import Tiles, film_of, halves_of, tiles_of
from tasks.store.files import read_json, sha256_of
from tasks.store.records import DamagedRecord, shaped
from tasks.tracking.mlflow_client import metric_history, run_exists, run_metrics

_TEMPLATES = (
    Path(__file__).with_name("gallery.html"),
    Path(__file__).with_name("gallery_parts.html"),
)

SAMPLES = "samples.png"
MOMENTS = "moments"
"""In the folder of a model's samples: what it drew as training went on, a sheet for each moment."""
HELD_OUT_PICTURES, HELD_OUT_TEXT = "held-out.png", "held-out.json"
"""There too: a sheet of real pictures, or a prompt and what really follows it."""
_DIFFERENCE_COLUMNS, _DIFFERENCE_GAP = 6, 24  # pictures and pixels, as `comparison` lays them out
_MAX_MOMENTS = 12
_STILL = 3  # moments for which the last one stays
_SECONDS_A_MOMENT = 0.7
_CHALLENGER_CHARACTERS = 300


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
    made: dict[str, str] = field(default_factory=dict)
    """How the version was made (`tasks.samples.held_out.making_of`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Challenger:
    """The latest version of a model that was refused."""

    name: str
    family: str
    version: int
    champion: int | None
    """The version that stays; None where the model has no champion."""
    main_metric: str
    main_value: float
    reason: str
    """What the gate said."""
    scorecard_run_id: str
    references: dict[str, float] = field(default_factory=dict)
    sample: str = ""
    """Path of what it made: a sheet of pictures, or text; nothing where that is gone."""


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
    fields["made"] = shaped(fields.get("made", {}), dict[str, str], f"{where}: made")
    return fields


def page(works: Sequence[ChampionSamples], challengers: Sequence[Challenger] = ()) -> str:
    """The self-contained page of a gallery: the works of each data set beside each other."""
    shown = {work.name: _measured(work) for work in works}
    groups = [
        _group(
            data,
            [work for work in works if _data_of(work) == data],
            [each for each in challengers if _data_of(each) == data],
            shown,
        )
        for data in dict.fromkeys([*map(_data_of, works), *map(_data_of, challengers)])
    ]
    return html_page("samples/gallery.html", groups=groups, num_champions=len(works))


def template_digests() -> dict[str, str]:
    """The sha256 of each template that the page is made with: a changed one makes a new page."""
    return {path.name: sha256_of(path) for path in _TEMPLATES}


def _data_of(work: ChampionSamples | Challenger) -> str:
    """The name of the data set that a model was trained on."""
    return work.name.removesuffix(f"-{work.family}")


def _measured(work: ChampionSamples) -> dict[str, float]:
    """What was measured on held-out data, where the run that measured it is still there."""
    if not _is_there(work.scorecard_run_id):
        return {}
    return with_present_names(run_metrics(work.scorecard_run_id))


def _group(
    data: str,
    works: list[ChampionSamples],
    challengers: list[Challenger],
    measured: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """What the template shows of the works of one data set, the best first."""
    common = {work.name: _common_measure(work, measured[work.name]) for work in works}
    ordered = sorted(works, key=lambda work: common[work.name])
    beside = _beside(ordered)
    told = {_chosen_text(work)[0] for work in ordered if work.texts} if beside else set()
    return {
        "data": data,
        "kind": next(filter(None, [*map(_kind_of, works), *map(_kind_of, challengers)]), ""),
        "works": [_shown(work, measured[work.name], told) for work in ordered],
        "yardstick": _yardstick(ordered, common, measured),
        "beside": beside,
        "challengers": [_refused(each, works) for each in challengers],
    }


_COMMON = {"images": "test_frechet_distance", "text": "test_bits_per_byte"}
"""By data, what every family of it is measured by, whichever metric decides: lower is better."""


def _kind_of(work: ChampionSamples | Challenger) -> str:
    family = FAMILIES.get(work.family)
    return family.data if family else ""


def _common_measure(work: ChampionSamples, measured: Mapping[str, float]) -> float:
    """A number by which the works of one data set are put in order; infinite where unknown."""
    metric = _COMMON.get(_kind_of(work), "")
    value = work.main_value if work.main_metric == metric else measured.get(metric, math.inf)
    return value if math.isfinite(value) else math.inf


def _shown(
    work: ChampionSamples, measured: Mapping[str, float], told_beside: Collection[str]
) -> dict[str, Any]:
    """What the template shows of one work.

    told_beside: file names of texts that stand beside others', and so need not be told again.
    """
    family = FAMILIES.get(work.family)
    film = _film(work)
    pictures = [each for each in work.pictures if not (film and each[0] == "training.png")]
    texts = [each for each in work.texts if each[0] not in told_beside] or work.texts
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
        "pieces": [_piece(work, *each) for each in (*pictures, *texts)],
        "film": film,
        "choices": _choices(work),
        "differences": _differences(work),
        "numbers": _numbers(work, measured),
        "made": {name: told for name, told in work.made.items() if name != "command"},
        "command": work.made.get("command", ""),
        "play": play_url(work.name, work.version),
    }


def _piece(work: ChampionSamples, file_name: str, caption: str) -> dict[str, Any]:
    path = Path(work.folder) / file_name
    if path.suffix != ".png":
        return {"caption": caption, **_text(work, path.read_text(encoding="utf-8"))}
    tiles = tiles_of(path, COLUMNS)
    if tiles is None:
        return {"caption": caption, "picture": data_uri(path)}
    is_wall = file_name == SAMPLES
    return {
        "caption": caption,
        "tiles": _tiles(tiles, _WALL if is_wall else _ROWS),
        "is_wall": is_wall and len(tiles.pixels) > _PICTURES_ON_A_PHONE,
    }


def _text(work: ChampionSamples, text: str) -> dict[str, str]:
    """A text, and the part at its beginning that the model was given."""
    prompt = _held_out_text(work).get("prompt", "")
    prompt = prompt if text.startswith(prompt) else ""
    return {"prompt": prompt, "text": text.removeprefix(prompt)}


def _held_out_text(work: ChampionSamples) -> dict[str, str]:
    """A model's prompt and what really follows it; nothing for works of an older page."""
    path = Path(work.folder) / HELD_OUT_TEXT
    if not path.exists():
        return {}
    try:
        found: dict[str, str] = shaped(read_json(path), dict[str, str], str(path))
    except (ValueError, DamagedRecord):
        return {}
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sizes:
    """The longer side of a picture in a window of each kind, in pixels, roughly."""

    wide: int
    narrow: int
    phone: int
    folds: bool = False
    """Whether ten columns become five on a phone."""


_WALL = _Sizes(wide=80, narrow=56, phone=64, folds=True)
_BESIDE = _Sizes(wide=72, narrow=48, phone=32)
_ROWS = _Sizes(wide=48, narrow=48, phone=32)
_FILM, _FILM_OF_MANY = _Sizes(wide=64, narrow=64, phone=64), _Sizes(wide=32, narrow=48, phone=32)
_PICTURES_ON_A_PHONE = 30  # as the style sheet says


def _tiles(tiles: Tiles, sizes: _Sizes, moments: int = 1) -> dict[str, Any]:
    """Pictures, each on its own, and how many times enlarged: whole numbers, so pixels stay square.

    moments: that each picture holds, one below the other.
    """
    each = Tiles(pixels=tiles.pixels[:, : tiles.height // moments], columns=tiles.columns)
    return {
        "pictures": [_encoded(picture) for picture in tiles.pixels],
        "width": each.width,
        "height": each.height,
        "columns": tiles.columns,
        "folded": tiles.columns // 2 if sizes.folds else tiles.columns,
        "wide": each.times(sizes.wide),
        "narrow": each.times(sizes.narrow),
        "phone": each.times(sizes.phone),
    }


def _encoded(picture: np.ndarray) -> str:
    """Pixels (H, W) or (H, W, 3) as the address of a PNG file that it holds."""
    content = plots.png(picture.reshape(*picture.shape[:2], -1))
    return "data:image/png;base64," + b64encode(content).decode("ascii")


def _film(work: ChampionSamples) -> dict[str, Any] | None:
    """What a model drew at moments of its training, for an animation; None for works without."""
    paths = sorted((Path(work.folder) / MOMENTS).glob("step-*.png"))
    found = film_of(paths, COLUMNS, still=_STILL) if 1 < len(paths) <= _MAX_MOMENTS else None
    if found is None:
        return None
    family = FAMILIES.get(work.family)
    is_many = len(found.pixels) > COLUMNS  # their rows belong together
    if not is_many:
        found = replace(found, columns=COLUMNS // 2)
    frames = len(paths) + _STILL
    steps = [int("".join(filter(str.isdigit, path.stem)) or 0) for path in paths]
    return {
        "caption": (family and family.growth) or "as training went on",
        "tiles": _tiles(found, _FILM_OF_MANY if is_many else _FILM, frames),
        "steps": steps,
        "frames": frames,
        "seconds": frames * _SECONDS_A_MOMENT,
    }


def _differences(work: ChampionSamples) -> list[dict[str, Any]]:
    """What this version and the champion before made of the same seeds."""
    shown: list[dict[str, Any]] = []
    for file_name, caption in work.differences:
        halves = halves_of(Path(work.folder) / file_name, _DIFFERENCE_COLUMNS, _DIFFERENCE_GAP)
        if halves is None:
            shown.append(_piece(work, file_name, caption))
            continue
        before, after = (_tiles(half, _ROWS) for half in halves)
        shown.append({"caption": caption, "tiles": before, "after": after})
    return shown


def _beside(works: list[ChampionSamples]) -> list[dict[str, Any]]:
    """Held-out data and a few things of each model, to be seen in one look; the real ones first."""
    rows: list[dict[str, Any]] = []
    for work in works:
        row = _few(work)
        if row is not None:
            rows.append({**row, "name": _short(work), "link": quote(work.name), "is_real": False})
    real = next(filter(None, map(_real, works)), None)
    if real is not None:
        rows.insert(0, {**real, "name": "held-out data", "link": "", "is_real": True})
    return rows if len(rows) > 1 else []


def _short(work: ChampionSamples | Challenger) -> str:
    family = FAMILIES.get(work.family)
    return family.title if family else work.name


def _few(work: ChampionSamples) -> dict[str, Any] | None:
    if work.texts:
        return _piece(work, *_chosen_text(work))
    names = [name for name, _ in work.pictures]
    return _first_row(Path(work.folder) / SAMPLES, _BESIDE) if SAMPLES in names else None


def _chosen_text(work: ChampionSamples) -> tuple[str, str]:
    """The text that stands beside others', neither of the coldest nor of the hottest."""
    return next((each for each in work.texts if "0.8" in each[1]), work.texts[0])


def _real(work: ChampionSamples) -> dict[str, Any] | None:
    if work.texts:
        found = _held_out_text(work)
        return {"caption": "what really follows", **_text(work, found["text"])} if found else None
    path = Path(work.folder) / HELD_OUT_PICTURES
    return _first_row(path, _BESIDE) if path.exists() else None


def _first_row(path: Path, sizes: _Sizes) -> dict[str, Any] | None:
    tiles = tiles_of(path, COLUMNS)
    if tiles is None:
        return None
    row = Tiles(pixels=tiles.pixels[:COLUMNS], columns=COLUMNS)
    return {"tiles": _tiles(row, sizes)}


def _refused(challenger: Challenger, works: list[ChampionSamples]) -> dict[str, Any]:
    """What the template shows of a version that is not champion."""
    champion = next((work for work in works if work.name == challenger.name), None)
    shown: dict[str, Any] = {
        "name": challenger.name,
        "version": challenger.version,
        "family": purpose_of(challenger.family),
        "metric": title(challenger.main_metric),
        "value": challenger.main_value,
        "references": reference_words(challenger.references),
        "reason": challenger.reason,
        "champion": champion.version if champion else challenger.champion,
        "is_alone": champion is None and challenger.champion is None,
    }
    sample = Path(challenger.sample) if challenger.sample else None
    if sample is not None and sample.suffix == ".png":
        row = _first_row(sample, _ROWS)
        shown |= {"tiles": row["tiles"]} if row else {"picture": data_uri(sample)}
    elif sample is not None:
        text = sample.read_text(encoding="utf-8", errors="replace")
        shown["text"] = text[:_CHALLENGER_CHARACTERS]
    return shown


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
        "temperature": TEMPERATURE_OF_CHOICES,
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


def _numbers(work: ChampionSamples, metrics: Mapping[str, float]) -> dict[str, Any] | None:
    """The table of what was measured; nothing where that is not known any more."""
    if not metrics:
        return None
    has_no_labels = _kind_of(work) == "images" and "classifier_test_accuracy" not in metrics
    measured = {
        name: value
        for name, value in sorted(metrics.items())
        if name.startswith(("test_", REAL_DATA))
    }
    return {"rows": with_baseline(measured), "has_no_labels": has_no_labels}


_IN_WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}


def _yardstick(
    works: list[ChampionSamples],
    common: Mapping[str, float],
    measured: Mapping[str, Mapping[str, float]],
) -> dict[str, Any] | None:
    """One number of all models of a data set, each as a part of the worst; works: best first."""
    judged = [work for work in works if math.isfinite(common[work.name])]
    if len(judged) < 2:
        return None
    is_text = _kind_of(judged[0]) == "text"
    rows = [{"name": _short(work), "value": common[work.name], "is_real": False} for work in judged]
    real = of_real_data(_COMMON["images"])
    known = [told[real] for work in judged if real in (told := measured[work.name])]
    known += [work.references[real] for work in judged if real in work.references]
    if known and not is_text:
        rows.insert(0, {"name": "real data", "value": known[0], "is_real": True})
    worst = max(float(row["value"]) for row in rows) or 1.0  # type: ignore[arg-type]
    return {
        "is_text": is_text,
        "answers": _IN_WORDS.get(len(judged), len(judged)),
        "rows": [{**row, "width": float(row["value"]) / worst * 100} for row in rows],  # type: ignore[arg-type]
    }


def data_uri(path: Path) -> str:
    """A PNG file as an address that holds it."""
    return "data:image/png;base64," + b64encode(path.read_bytes()).decode("ascii")
