"""The shape of a data set before it is read: as an earlier run found it, or as its source says."""

from collections.abc import Iterator
from dataclasses import dataclass

from models.presets import ImageShape, TextShape
from tasks.data.source_address import source_address
from tasks.data.sources import SOURCES, Kind
from tasks.store.artifacts import Artifact, artifacts

ASSUMED_SIDE, ASSUMED_CLASSES = 32, 10
# Large enough that what does not fit them fits no text.
ASSUMED_VOCABULARY, ASSUMED_TOKENS = 1 << 20, 1 << 40


@dataclass(frozen=True, slots=True)
class KnownShape:
    """What a recipe is told of data, and on whose word."""

    shape: ImageShape | TextShape
    source: str
    """"stored", "declared", or "assumed" where the data were never read in this home."""


def known_shape(
    source: str, kind: Kind, image_size: int | None = None, scheme: str = "characters"
) -> KnownShape:
    """The shape of a source; image_size: of a person's own images; scheme: the tokenizer's."""
    place = source_address(source).place
    return _of_images(place, image_size) if kind == "images" else _of_text(place, scheme)


def _of_images(place: str, image_size: int | None) -> KnownShape:
    for artifact in _newest(each for each in artifacts("images") if _is_of(each, place)):
        facts = artifact.record
        sides = [facts.get(name) for name in ("channels", "height", "width")]
        classes = facts.get("class_names")
        match [*sides, classes]:
            case [int(channels), int(height), int(width), list(names)] if (
                facts.get("image_size") == image_size
            ):
                return KnownShape(ImageShape(channels, height, width, len(names)), "stored")
    declared = SOURCES[place].shape if place in SOURCES else None
    if declared is not None:
        return KnownShape(declared, "declared")
    side = image_size or ASSUMED_SIDE
    return KnownShape(ImageShape(3, side, side, ASSUMED_CLASSES), "assumed")


def _of_text(place: str, scheme: str) -> KnownShape:
    corpora = {each.digest for each in artifacts("corpora") if _is_of(each, place)}
    tokens = (
        each
        for each in artifacts("tokens")
        if corpora.intersection(each.inputs) and each.name.endswith(f"-{scheme}")
    )
    for artifact in _newest(tokens):
        size, length = (artifact.record.get(name) for name in ("vocabulary_size", "num_train"))
        if isinstance(size, int) and isinstance(length, int):
            return KnownShape(TextShape(scheme, size, length), "stored")
    return KnownShape(TextShape(scheme, ASSUMED_VOCABULARY, ASSUMED_TOKENS), "assumed")


def _is_of(artifact: Artifact, place: str) -> bool:
    source = artifact.record.get("source")
    return isinstance(source, str) and source_address(source).place == place


def _newest(found: Iterator[Artifact]) -> list[Artifact]:
    return sorted(found, key=lambda each: each.folder.stat().st_mtime, reverse=True)
