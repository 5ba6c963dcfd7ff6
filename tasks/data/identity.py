"""Whether data are the same data set as others: grown, corrected or moved, but no other one.

A data set is known by its contents, not by where it lies: folders move, and two may bear one name.
Of its contents a sketch is kept, the smallest of their digests: an even sample, so the share of it
that is found again tells how much of the whole is still there, however much was added. An image
counts by its pixels, a text by pieces of 32 bytes: few texts share such, and a correction changes
only those around it.

The same place with at least a quarter of the contents, or another place with half of them, is the
same data set. Images of another size share no pixels; there the place and half of the files' names
decide. A data set that the program knows is known by its name.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.data.ingestion import Corpus, ImageSet
from tasks.data.source_address import source_address
from tasks.data.splits import SPLITS
from tasks.runtime.progress import log
from tasks.store.artifacts import find
from tasks.store.files import BadInput, digest_of
from tasks.store.records import DamagedRecord, parsed

MIN_KEPT, MIN_KEPT_ELSEWHERE = 0.25, 0.5
SKETCH_SIZE, NAME_SKETCH_SIZE = 128, 64
_MARK_BYTES = 6
_WINDOW, _LANE = 32, 8
_TEXT_AT_ONCE = 1 << 20

Data = ImageSet | Corpus


@dataclass(frozen=True, kw_only=True, slots=True)
class DataIdentity:
    """What a registered model keeps of the data that it was trained on last."""

    place: str
    """`digits`, `folder:/path`, `file:/path`."""
    digest: str
    size: int
    """Images, or characters of text."""
    shape: tuple[int, ...]
    """(C, H, W) of images; nothing for text."""
    version: int = 0
    """The version that was trained on them."""
    contents: str = ""
    """A sketch of the contents, in base64; nothing where they are not known any more."""
    is_dense: bool = False
    """Whether every place of a text begins a piece, as in one that repeats itself too much."""
    file_names: str = ""
    """The same of the images' file names."""

    def to_json(self) -> str:
        """The value of a tag."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "DataIdentity":
        """What `to_json` wrote; raises DamagedRecord for anything else."""
        found: DataIdentity = parsed(text, DataIdentity, "the identity of a data set")
        if len(found.shape) not in (0, 3) or not _is_place(found.place):
            raise DamagedRecord(f"no data set lies at {found.place!r:.60}, of shape {found.shape}")
        for sketch in (found.contents, found.file_names):
            _unpacked(sketch)
        return found


def identity_of(data: Data, version: int = 0) -> DataIdentity:
    """The identity of ingested data; reads their folder."""
    folder = Path(data.folder)
    known = identity_without_contents(data, version)
    if isinstance(data, Corpus):
        sketch = _sketch(_windows(folder, is_dense=False), SKETCH_SIZE)
        if is_dense := len(_unpacked(sketch)) < SKETCH_SIZE:
            sketch = _sketch(_windows(folder, is_dense=True), SKETCH_SIZE)
        return replace(known, contents=sketch, is_dense=is_dense)
    return replace(
        known,
        contents=_sketch(iter([_marks_of_images(folder)]), SKETCH_SIZE),
        file_names=_sketch(iter([_marks_of_names(folder)]), NAME_SKETCH_SIZE),
    )


def identity_without_contents(data: Data, version: int = 0) -> DataIdentity:
    """The same without a look into the folder."""
    shape: tuple[int, ...] = ()
    if isinstance(data, Corpus):
        size = data.num_characters
    else:
        size = data.num_train + data.num_validation + data.num_test
        shape = (data.channels, data.height, data.width)
    place = source_address(data.source).place
    return DataIdentity(place=place, digest=data.digest, size=size, shape=shape, version=version)


def identity_by_digest(kind: str, place: str, digest: str, version: int) -> DataIdentity:
    """The identity of data of which a record knows the digest: whole while this home keeps them.

    kind: "images" or "text". Where they are gone, their contents, size and shape are not known.
    """
    if (kept := find("corpora" if kind == "text" else "images", digest)) is not None:
        receipt: type[Data] = Corpus if kind == "text" else ImageSet
        try:
            return identity_of(kept.as_receipt(receipt, source=place), version)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            # damaged, of other code, or of a place that is none here
            log(f"{kept.folder} cannot be compared with: {type(error).__name__}: {error}")
    return DataIdentity(place=place, digest=digest, size=0, shape=(), version=version)


def difference(before: DataIdentity, data: Data) -> str:
    """Why data are not the data set that they should be, in words; nothing where they are it."""
    now = identity_without_contents(data)
    is_in_place = before.place == now.place
    if _is_known(before.place) or _is_known(now.place):
        return "" if is_in_place else f"it was trained on {told(before)}"
    if before.digest == now.digest:
        return ""
    if before.shape and before.shape != now.shape:
        kept = _share(before.file_names, iter([_marks_of_names(Path(data.folder))]))
        enough, held = MIN_KEPT_ELSEWHERE, f", and these are {told(now)}"
        is_same = is_in_place and (kept is None or kept >= enough)
    else:
        kept = share_kept(before, data)
        enough = MIN_KEPT if is_in_place else MIN_KEPT_ELSEWHERE
        held = "" if kept is None else f", of which {now.place} holds {_percent(kept)}"
        is_same = is_in_place if kept is None else kept >= enough
    return "" if is_same else f"it was trained on {told(before)}{held}"


def change(before: DataIdentity, data: Data) -> str:
    """How a data set changed, for a person; nothing where it did not."""
    now = identity_without_contents(data)
    if before.digest == now.digest:
        return f"moved here from {before.place}" if before.place != now.place else ""
    words = [_grown(before, now, data)]
    if before.shape and before.shape != now.shape:
        words.append(f"{size_of(before.shape)} before, {size_of(now.shape)} now")
    if before.place != now.place:
        words.append(f"moved here from {before.place}")
    return "; ".join(words)


def _grown(before: DataIdentity, now: DataIdentity, data: Data) -> str:
    """How many items there are, were, came and went."""
    unit = "characters" if isinstance(data, Corpus) else "images"
    sizes = f"{now.size:,} {unit}" + (f", {before.size:,} before" if before.size else "")
    kept = share_kept(before, data) if before.shape == now.shape else None
    if kept is None:
        return sizes
    if isinstance(data, Corpus):
        lost = "less than 1 %" if kept > 0.99 else f"about {_percent(1 - kept)}"
        return f"{sizes}; {lost} of the text before was changed or taken out"
    if (counted := _counted(before, data)) is not None:
        return f"{sizes}: {counted[0]:,} added, {counted[1]:,} removed"
    lost_images = round((1 - kept) * before.size)
    added = max(0, now.size - before.size + lost_images)
    return f"{sizes}: about {added:,} added, about {lost_images:,} removed"


def _counted(before: DataIdentity, data: Data) -> tuple[int, int] | None:
    """Images added and removed, where the folder of the data before is still in this home."""
    kept = find("images", before.digest)
    if kept is None:
        return None
    old, new = (_digests(each).value_counts() for each in (kept.folder, Path(data.folder)))
    apart = new.sub(old, fill_value=0)
    return int(apart[apart > 0].sum()), int(-apart[apart < 0].sum())


def _is_place(place: str) -> bool:
    """Whether it has the form of a place: `digits`, `folder:/path`, `file:/path`."""
    try:
        return bool(source_address(place).location)
    except BadInput:
        return False


def _is_known(place: str) -> bool:
    """Whether it is a data set that the program knows."""
    return not source_address(place).scheme


def told(identity: DataIdentity) -> str:
    """A data set in a few words."""
    if not identity.size:
        return identity.place
    what = f"images of {size_of(identity.shape)}" if identity.shape else "characters"
    return f"{identity.place} ({identity.size:,} {what})"


def size_of(shape: tuple[int, ...]) -> str:
    """The shape (C, H, W) of images as a person reads it."""
    channels, height, width = shape
    return f"{width}x{height}x{channels}"


def _percent(share: float) -> str:
    return "nothing" if share == 0 else f"{share:.0%}".replace("%", " %")


# Sketches -------------------------------------------------------------------------------------


def share_kept(before: DataIdentity, data: Data) -> float | None:
    """The share of an earlier data set's contents that is still there; None where not known."""
    folder = Path(data.folder)
    if isinstance(data, Corpus):
        return _share(before.contents, _windows(folder, before.is_dense))
    return _share(before.contents, iter([_marks_of_images(folder)]))


def _share(sketch: str, found: Iterator[np.ndarray]) -> float | None:
    wanted = _unpacked(sketch)
    if not len(wanted):
        return None
    there: set[int] = set()
    for marks in found:
        there.update(marks[marks <= wanted[-1]].tolist())  # few: a sketch holds the smallest
    return sum(mark in there for mark in wanted.tolist()) / len(wanted)


def _sketch(found: Iterator[np.ndarray], size: int) -> str:
    kept = np.empty(0, dtype=np.uint64)
    for marks in found:
        low = marks[marks < kept[-1]] if len(kept) == size else marks
        kept = np.unique(np.concatenate([kept, low]))[:size]
    plain = kept.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - _MARK_BYTES :]
    return b64encode(plain.tobytes()).decode("ascii")


def _unpacked(sketch: str) -> np.ndarray:
    try:
        plain = np.frombuffer(b64decode(sketch, validate=True), np.uint8).reshape(-1, _MARK_BYTES)
    except ValueError as error:
        raise DamagedRecord(f"no sketch of contents: {error}") from error
    padded = np.zeros((len(plain), 8), dtype=np.uint8)
    padded[:, 8 - _MARK_BYTES :] = plain
    return padded.view(">u8").ravel().astype(np.uint64)


def _digests(folder: Path) -> "pd.Series[str]":
    manifest = pd.read_parquet(folder / "manifest.parquet", columns=["sha256", "row"])
    return manifest.loc[manifest["row"] >= 0, "sha256"]


def _marks_of_images(folder: Path) -> np.ndarray:
    return _marks(_digests(folder).tolist())


def _marks_of_names(folder: Path) -> np.ndarray:
    manifest = pd.read_parquet(folder / "manifest.parquet", columns=["id", "row"])
    names = manifest.loc[manifest["row"] >= 0, "id"]
    return _marks([digest_of(name) for name in names])


def _marks(digests: list[str]) -> np.ndarray:
    return np.array([int(each[: 2 * _MARK_BYTES], 16) for each in digests], dtype=np.uint64)


def _windows(folder: Path, is_dense: bool) -> Iterator[np.ndarray]:
    """Marks of the windows of a text, of a million bytes at a time."""
    for split in SPLITS:
        with (folder / f"{split}.txt").open("rb") as file:
            content = file.read(_TEXT_AT_ONCE + _WINDOW - 1)
            while len(content) >= _WINDOW:
                yield _marks_of_windows(np.frombuffer(content, dtype=np.uint8), is_dense)
                content = content[_TEXT_AT_ONCE:] + file.read(_TEXT_AT_ONCE)


def _marks_of_windows(content: np.ndarray, is_dense: bool) -> np.ndarray:
    """A mark for the 32 bytes from each anchor on: one place in sixteen, told by its two bytes."""
    told_by = content[:-1] * np.uint8(31) + content[1:]
    anchors = np.flatnonzero(is_dense | (told_by[: len(content) - _WINDOW + 1] & 15 == 0))
    words = np.lib.stride_tricks.sliding_window_view(content, _LANE)
    mixed = np.zeros(len(anchors), dtype=np.uint64)
    for lane in range(0, _WINDOW, _LANE):  # the constants and shifts of splitmix64
        mixed += words[anchors + lane].view("<u8").ravel()
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed >> np.uint64(64 - 8 * _MARK_BYTES)
