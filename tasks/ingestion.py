"""From a source's name to a data set on disk: read, check, split, write and report.

Images become one uint8 array, ordered by split so that each split is a slice of a memory map,
beside a parquet manifest with a row for every file that was seen. Text becomes three UTF-8 files.
A data set's folder is named by its digest, so ingesting twice finds the first result.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from prefect import task

from tasks.image_folder import RawImages
from tasks.names import derived_name
from tasks.reporting import log
from tasks.retries import NETWORKED
from tasks.source_address import source_address
from tasks.sources import SOURCES, find_source
from tasks.step_records import made_once
from tasks.storage import (
    BadInput,
    digest_of,
    folder_digests,
    home,
    write_receipt,
)

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

FEWEST_IMAGES, FEWEST_PER_CLASS, FEWEST_CHARACTERS = 100, 8, 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSet:
    """Receipt of an ingested image set."""

    name: str
    """Short name, the first part of its models' names: `digits`."""
    source: str
    """`digits`, `folder:PATH` or `pets=folder:PATH`, with the whole path."""
    title: str
    licence: str
    folder: str
    digest: str
    """sha256 over every image's content, label and split."""
    channels: int
    height: int
    width: int
    class_names: tuple[str, ...]
    num_train: int
    num_validation: int
    num_test: int
    num_quarantined: int
    num_duplicates: int
    """Images that repeat an earlier one exactly."""
    num_leaked: int
    """Validation and test images that also stand in the training split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Receipt of an ingested text."""

    name: str
    source: str
    title: str
    licence: str
    folder: str
    digest: str
    """sha256 over the three splits."""
    num_characters: int
    bytes_train: int
    bytes_validation: int
    bytes_test: int
    leaked_lines_fraction: float
    """Share of the test split's long lines that also stand in the training split."""


@task(
    name="ingest-images",
    task_run_name="ingest {source}",
    **NETWORKED,
)
def ingest_images(source: str, image_size: int | None = None) -> ImageSet:
    """Read, check, split and store an image source; see `tasks.sources` for the names."""
    found = find_source(source, "images", image_size)
    assert found.read_images is not None
    raw = found.read_images()
    hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in raw.pixels]
    _check_images(source, raw, hashes)
    splits = split_images(raw.labels, hashes, raw.official_test)
    manifest = _manifest(raw, hashes, splits, source)
    digest = digest_of([hashes, raw.labels.tolist(), splits.tolist(), raw.quarantined])
    kept = manifest[manifest["row"] >= 0]
    sizes = kept["split"].value_counts()
    train = set(kept.loc[kept["split"] == "train", "sha256"])
    held_out = kept.loc[kept["split"] != "train", "sha256"]
    name = short_name(source)
    images = ImageSet(
        name=name,
        source=str(source_address(source)),
        title=found.title,
        licence=found.licence,
        folder=str(home() / "data" / "images" / f"{name}-{digest[:12]}"),
        digest=digest,
        channels=raw.pixels.shape[1],
        height=raw.pixels.shape[2],
        width=raw.pixels.shape[3],
        class_names=raw.class_names,
        num_train=int(sizes["train"]),
        num_validation=int(sizes["validation"]),
        num_test=int(sizes["test"]),
        num_quarantined=len(raw.quarantined),
        num_duplicates=int(kept["duplicate_of"].notna().sum()),
        num_leaked=int(held_out.isin(train).sum()),
    )
    record = made_once(
        f"{images.name}-images",
        {"settings": {"source": source, "image_size": image_size}, "inputs": [digest]},
        Path(images.folder),
        lambda folder: _write_images(folder, images, raw.pixels, manifest),
    )
    _log_images(images, record.remark)
    return images


def _check_images(source: str, raw: RawImages, hashes: list[str]) -> None:
    first_of = dict(zip(reversed(hashes), reversed(raw.labels.tolist()), strict=True))
    counts = np.bincount(list(first_of.values()), minlength=len(raw.class_names))
    if len(raw.class_names) < 2:
        raise BadInput(
            f"{source} has one class ({raw.class_names[0]!r}); wanted at least two, because samples"
            " are judged by a classifier: put each class's images in its own sub-folder"
        )
    if len(first_of) < FEWEST_IMAGES or counts.min() < FEWEST_PER_CLASS:
        rarest = raw.class_names[int(counts.argmin())]
        raise BadInput(
            f"{source} has {len(first_of)} different images, {counts.min()} of class {rarest!r};"
            f" wanted at least {FEWEST_IMAGES} in all and {FEWEST_PER_CLASS} of each class"
        )


def split_images(
    labels: np.ndarray, hashes: list[str], official_test: np.ndarray | None = None
) -> np.ndarray:
    """Each image's split, by class and content: (N,) of "train", "validation" or "test".

    Within a class the images are put in the order of their hashes and cut: 70 % train, 15 %
    validation, 15 % test, or 90 / 10 around an official test part. No seed takes part, so every
    run of every seed is judged on the same images; equal images always share a split.
    """
    splits = np.full(len(labels), "train", dtype=object)
    free = np.ones(len(labels), dtype=bool)
    fractions = {"test": 0.15, "validation": 0.15}
    if official_test is not None:
        splits[official_test] = "test"
        free = ~official_test
        fractions = {"validation": 0.1}
    class_of: dict[str, int] = {}  # an image under two labels belongs to the first
    for index in np.flatnonzero(free):
        class_of.setdefault(hashes[index], int(labels[index]))
    split_of: dict[str, str] = {}
    for label in np.unique(labels):
        distinct = sorted(key for key, value in class_of.items() if value == label)
        start = 0
        for split, fraction in fractions.items():
            end = start + max(1, round(fraction * len(distinct)))
            split_of.update(dict.fromkeys(distinct[start:end], split))
            start = end
    for index in np.flatnonzero(free):
        splits[index] = split_of.get(hashes[index], "train")
    return splits


def _manifest(raw: RawImages, hashes: list[str], splits: np.ndarray, source: str) -> pd.DataFrame:
    """A row for each file; `row` is its place in pixels.npy, or -1 for a quarantined one."""
    height, width = raw.pixels.shape[2:]
    kept = pd.DataFrame(
        {
            "id": raw.ids,
            "label": raw.labels,
            "split": splits.astype(str),
            "sha256": hashes,
            "width": width,
            "height": height,
            "source": source,
            "quarantine_reason": None,
        }
    )
    first = kept.drop_duplicates("sha256").set_index("sha256")["id"]
    original = kept["sha256"].map(first)
    kept["duplicate_of"] = original.where(original != kept["id"], None)
    kept["row"] = kept["split"].map(SPLITS.index).argsort(kind="stable").argsort()
    lost = pd.DataFrame(
        {
            "id": [name for name, _ in raw.quarantined],
            "label": -1,
            "split": "quarantined",
            "sha256": "",
            "width": 0,
            "height": 0,
            "source": source,
            "quarantine_reason": [reason for _, reason in raw.quarantined],
            "duplicate_of": None,
            "row": -1,
        }
    )
    return kept if lost.empty else pd.concat([kept, lost], ignore_index=True)


def _write_images(
    folder: Path, images: ImageSet, pixels: np.ndarray, manifest: pd.DataFrame
) -> None:
    kept = manifest[manifest["row"] >= 0]
    order = np.empty(len(pixels), dtype=np.int64)
    order[kept["row"].to_numpy()] = np.arange(len(pixels))
    np.save(folder / "pixels.npy", pixels[order])
    np.save(folder / "labels.npy", kept["label"].to_numpy(dtype=np.int64)[order])
    manifest.to_parquet(folder / "manifest.parquet", index=False)
    _write_receipt(folder, images)


def _write_receipt(folder: Path, receipt: ImageSet | Corpus) -> None:
    write_receipt(folder, receipt, folder_digests(folder))


def _log_images(images: ImageSet, remark: str) -> None:
    sizes = f"{images.num_train} / {images.num_validation} / {images.num_test}"
    log(
        f"{images.name}: {sizes} images (train / validation / test),"
        f" {images.width}x{images.height}x{images.channels}, {len(images.class_names)} classes;"
        f" {images.num_duplicates} exact duplicates, {images.num_leaked} of them across splits;"
        f" {images.num_quarantined} unreadable files quarantined{remark}"
    )


def load_images(images: ImageSet, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """One split: pixels (N, C, H, W) uint8, memory-mapped, and labels (N,) int64."""
    sizes = [images.num_train, images.num_validation, images.num_test]
    start = sum(sizes[: SPLITS.index(split)])
    part = slice(start, start + sizes[SPLITS.index(split)])
    folder = Path(images.folder)
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    return pixels[part], np.load(folder / "labels.npy")[part]


@task(
    name="ingest-text",
    task_run_name="ingest {source}",
    **NETWORKED,
)
def ingest_text(source: str) -> Corpus:
    """Read, check, normalise, split and store a text source."""
    found = find_source(source, "text")
    assert found.read_text is not None
    text = normalised(found.read_text())
    _check_text(source, text)
    parts = split_text(text)
    digest = digest_of(parts)
    name = short_name(source)
    corpus = Corpus(
        name=name,
        source=str(source_address(source)),
        title=found.title,
        licence=found.licence,
        folder=str(home() / "data" / "text" / f"{name}-{digest[:12]}"),
        digest=digest,
        num_characters=len(text),
        bytes_train=len(parts["train"].encode()),
        bytes_validation=len(parts["validation"].encode()),
        bytes_test=len(parts["test"].encode()),
        leaked_lines_fraction=_leaked_lines(parts["train"], parts["test"]),
    )
    record = made_once(
        f"{corpus.name}-text",
        {"settings": {"source": source}, "inputs": [digest]},
        Path(corpus.folder),
        lambda folder: _write_text(folder, corpus, parts),
    )
    log(
        f"{corpus.name}: {corpus.num_characters} characters; held out: {corpus.bytes_validation}"
        f" bytes for validation, {corpus.bytes_test} for the test;"
        f" {corpus.leaked_lines_fraction:.1%} of the test's long lines also stand in the training"
        f" text{record.remark}"
    )
    return corpus


def _write_text(folder: Path, corpus: Corpus, parts: Mapping[str, str]) -> None:
    for split, part in parts.items():
        (folder / f"{split}.txt").write_text(part, encoding="utf-8", newline="")
    _write_receipt(folder, corpus)


def normalised(text: str) -> str:
    r"""Text with `\n` line ends and a final newline."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") or not text else text + "\n"


def _check_text(source: str, text: str) -> None:
    num_lines = text.count("\n")
    if num_lines < 2 or len(text) < FEWEST_CHARACTERS:
        raise BadInput(
            f"{source} has {len(text)} characters in {num_lines} lines; wanted at least"
            f" {FEWEST_CHARACTERS} characters in two lines or more: give a longer text"
        )


def split_text(text: str) -> dict[str, str]:
    """The first 10 % to validate, the last 10 % to test, all between to train.

    The test is nanoGPT's validation part, the text from character int(0.9 * length) on, and as
    there it follows the training text directly: a gap of a tenth between the two costs an n-gram
    model 0.17 nats per character on tiny Shakespeare, because neighbours share a play.
    """
    first, second = int(0.1 * len(text)), int(0.9 * len(text))
    return {"train": text[first:second], "validation": text[:first], "test": text[second:]}


def _leaked_lines(train: str, test: str) -> float:
    known = set(train.split("\n"))
    long_lines = [line for line in test.split("\n") if len(line) >= 30]
    return sum(line in known for line in long_lines) / max(1, len(long_lines))


def load_text(corpus: Corpus, split: Split) -> str:
    """One split of a corpus."""
    return (Path(corpus.folder) / f"{split}.txt").read_bytes().decode("utf-8")


def short_name(source: str) -> str:
    """The name of a source's data set: the first part of its models' names.

    The name that a person gives, or else the folder's or file's own; never that of an embedded or
    downloaded source.
    """
    address = source_address(source, known=SOURCES)
    if not address.scheme or address.given_name:
        return address.given_name or address.location
    own = address.path.name if address.scheme == "folder" else address.path.stem
    return derived_name(own, taken=SOURCES)
