"""New pictures of an image model, as files of a folder with a manifest, or as one sheet.

They are drawn in parts, so that memory holds some of them at a time, whatever their number.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.training.batches import seed_at
from tasks import plots
from tasks.store.files import BadInput, write_bytes, write_json
from tasks.store.output_folder import check_free, new_folder

DRAWN_AT_ONCE = 1000
MAX_ON_A_SHEET = 10_000
MANIFEST = "manifest.json"

_PARTS_STREAM = 60
_LARGEST_SEED = 2**31 - 1
_COLUMNS = 10
_MAX_CLASSES_TOLD = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRequest:
    """What an image model is asked for."""

    num_samples: int = 64
    label: str = ""
    """A class's name or index; empty takes each class in turn where the model knows classes."""
    seed: int = 0
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """Some of the pictures that were asked for."""

    images: np.ndarray
    """(N, C, H, W) uint8."""
    labels: tuple[int | None, ...]
    """The class of each; None of a model that knows none."""


def label_of(model: Any, label: str) -> int | None:
    """The index of a class, from its name or else its index; None for none named.

    Raises BadInput for what the model does not know, and tells what it knows.
    """
    if not label:
        return None
    names, count = class_names_of(model), num_classes_of(model)
    if not count:
        raise BadInput(f"this model knows no classes, got label {label!r:.60}; leave it out")
    if label in names:
        return names.index(label)
    if label.isascii() and label.isdecimal() and len(label) < 10 and int(label) < count:
        return int(label)
    told = ", ".join(names[:_MAX_CLASSES_TOLD])
    more = f" and {len(names) - _MAX_CLASSES_TOLD} more" if len(names) > _MAX_CLASSES_TOLD else ""
    by_name = f"the classes {told}{more}, or " if names else ""
    raise BadInput(
        f"label {label!r:.60} is not known; this model knows {by_name}indices from 0 to {count - 1}"
    )


def num_classes_of(model: Any) -> int:
    """How many classes a SampleModel draws on request; 0 for one that learned without labels."""
    return int(model.config.get("num_classes", 0))


def class_names_of(model: Any) -> list[str]:
    """The names of these classes by index; empty where the version brings none."""
    return list(getattr(model, "class_names", []))[: num_classes_of(model)]


def drawn(model: Any, request: ImageRequest) -> Iterator[Drawn]:
    """The pictures of a request in parts of DRAWN_AT_ONCE.

    model: a SampleModel of images, of whatever version. The first part has the request's seed, so
    it is what the version's `draw_images` draws; each later one has a seed of its own.
    """
    label, count = label_of(model, request.label), num_classes_of(model)
    for part, start in enumerate(range(0, request.num_samples, DRAWN_AT_ONCE)):
        places = range(start, min(start + DRAWN_AT_ONCE, request.num_samples))
        seed = request.seed
        if part:
            seed = seed_at(request.seed, part, _PARTS_STREAM) & _LARGEST_SEED
        pixels = model.draw_images(
            len(places), seed, request.temperature, -1 if label is None else label
        )
        labels: list[int | None] = [label] * len(places)
        if count and label is None:  # each class in turn, as versions of all times have it
            labels = [place % count for place in range(len(places))]
        yield Drawn(images=pixels, labels=tuple(labels))


def write_folder(model: Any, request: ImageRequest, folder: Path, facts: Mapping[str, Any]) -> None:
    """Each picture as a PNG file, and a manifest; facts: what the manifest says of the model.

    Raises BadInput for a folder that holds files, and for a label that the model does not know.
    """
    check_free(folder)
    names = class_names_of(model)
    digits = max(5, len(str(request.num_samples - 1)))
    files: list[dict[str, Any]] = []
    with new_folder(folder) as temporary:
        for part in drawn(model, request):
            for image, label in zip(part.images, part.labels, strict=True):
                name = f"{len(files):0{digits}d}.png"
                (temporary / name).write_bytes(plots.png(image.transpose(1, 2, 0)))
                files.append({"file": name, "label": label, "class": _class_of(label, names)})
        write_json(temporary / MANIFEST, {**facts, **_settings(model, request), "files": files})


def write_sheet(model: Any, request: ImageRequest, path: Path) -> None:
    """All pictures on one sheet, as a PNG file that takes the place of an older one.

    Raises BadInput for more than MAX_ON_A_SHEET, and for a label that the model does not know.
    """
    if request.num_samples > MAX_ON_A_SHEET:
        raise BadInput(
            f"a sheet holds {MAX_ON_A_SHEET:,} pictures at most, got {request.num_samples:,};"
            " write them to a folder instead"
        )
    images = np.concatenate([part.images for part in drawn(model, request)])
    columns = min(len(images), max(_COLUMNS, math.isqrt(len(images))))
    write_bytes(path, plots.grid(images, columns))


def _class_of(label: int | None, names: list[str]) -> str | None:
    return names[label] if label is not None and label < len(names) else None


def _settings(model: Any, request: ImageRequest) -> dict[str, Any]:
    return {
        "number": request.num_samples,
        "seed": request.seed,
        "temperature": request.temperature,
        "label": label_of(model, request.label),
        "drawn_at_once": DRAWN_AT_ONCE,
        "settings": model.config,
    }
