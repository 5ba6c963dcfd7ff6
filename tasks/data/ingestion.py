"""From a source's name to a data set on disk: read, check, split, write and report.

Images become one uint8 array, ordered by split so that each split is a slice of a memory map,
beside a parquet manifest with a row for every file that was seen. Text becomes three UTF-8 files.
A data set is stored under its digest, so ingesting twice finds the first result.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from tasks.data.image_folder import RawImages
from tasks.data.image_layout import Part
from tasks.data.image_splits import check_images, split_images
from tasks.data.manifests import image_manifest, text_manifest
from tasks.data.own_files import counted, one_line
from tasks.data.source_address import source_address
from tasks.data.sources import SOURCES, Source, find_source
from tasks.data.splits import SPLITS
from tasks.data.stored_data import digest_of_rows, fingerprint_of, made_before, store
from tasks.data.text_files import RawText
from tasks.data.text_spool import (
    TextRange,
    digest_of_texts,
    normalised_pieces,
    shared_lines,
    written,
)
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED
from tasks.store.artifacts import artifact_folder
from tasks.store.files import BadInput, digest_of, scratch_folder
from tasks.store.names import derived_name

MIN_CHARACTERS = 10_000
MIN_LINE = 30
"""Characters of a line that is looked for in the training text: shorter ones repeat by chance."""


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
    """Empty for a set without labels, whose label array is -1 everywhere."""
    num_train: int
    num_validation: int
    num_test: int
    num_quarantined: int
    """Files and folders that were seen and are no part of the data."""
    num_duplicates: int
    """Images that repeat an earlier one exactly."""
    num_leaked: int
    """Validation and test images that also stand in the training split."""
    image_size: int | None = None
    """The side to which a person's own images were resized, where one was asked for."""
    set_aside: str = ""
    """How many were set aside, by kind, in words."""
    notes: tuple[str, ...] = ()
    """What was decided while reading, in sentences."""
    manifest: str = ""
    """sha256 of the manifest's rows."""


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
    glob: str | None = None
    """The pattern that chose files of a person's folder, where one was given."""
    num_files: int = 1
    set_aside: str = ""
    """How many files and folders were set aside, by kind, in words."""
    manifest: str = ""
    """sha256 of the manifest's rows; empty where one file, or none, was read."""
    note: str = ""
    """What was decided of an author's split, in a sentence."""


@task(
    name="ingest-images",
    task_run_name="ingest {source}",
    **NETWORKED,
)
def ingest_images(source: str, image_size: int | None = None, rehash: bool = False) -> ImageSet:
    """Read, check, split and store an image source; see `tasks.data.sources` for the names.

    rehash: read a person's files again even if none seems to have changed.
    """
    found = find_source(source, "images", image_size)
    source = str(source_address(source))  # the same from every working directory
    settings = {"source": source, "image_size": image_size}
    fingerprint = fingerprint_of(found.path, "images", settings)
    kept = None if rehash else made_before(fingerprint, "images", settings, ImageSet)
    if kept is not None:
        _log_images(kept, "; unchanged")
        return kept
    assert found.read_images is not None
    raw = found.read_images()
    with raw.resources:
        hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in raw.pixels]
        check_images(source, raw, hashes)
        splits = split_images(raw.labels, hashes, raw.official_test, raw.official_validation)
        manifest = image_manifest(raw, hashes, splits, SPLITS, source)
        images = _image_set(source, found, raw, manifest, image_size)
        made = store(
            "images",
            images,
            settings,
            lambda folder: _write_images(folder, raw, manifest),
            manifest,
        )
    if fingerprint is not None:
        fingerprint.keep(images)
    _log_images(images, made.remark)
    return images


def _image_set(
    source: str, found: Source, raw: RawImages, manifest: pd.DataFrame, image_size: int | None
) -> ImageSet:
    kept = manifest[manifest["row"] >= 0]
    # The empty list stands where files that were set aside once counted: they are no data, and
    # sets from before keep their digests.
    content = [kept[column].tolist() for column in ("sha256", "label", "split")]
    digest = digest_of([*content, []])
    sizes = kept["split"].value_counts()
    train = set(kept.loc[kept["split"] == "train", "sha256"])
    held_out = kept.loc[kept["split"] != "train", "sha256"]
    name = short_name(source)
    return ImageSet(
        name=name,
        source=source,
        title=found.title,
        licence=found.licence,
        folder=str(artifact_folder("images", name, digest)),
        digest=digest,
        channels=raw.pixels.shape[1],
        height=raw.pixels.shape[2],
        width=raw.pixels.shape[3],
        class_names=raw.class_names,
        num_train=int(sizes["train"]),
        num_validation=int(sizes["validation"]),
        num_test=int(sizes["test"]),
        num_quarantined=len(raw.set_aside),
        num_duplicates=int(kept["duplicate_of"].notna().sum()),
        num_leaked=int(held_out.isin(train).sum()),
        image_size=image_size,
        set_aside=counted(raw.set_aside),
        notes=raw.notes,
        manifest=digest_of_rows(manifest),
    )


def _write_images(folder: Path, raw: RawImages, manifest: pd.DataFrame) -> None:
    """Write pixels.npy image by image, each in its place: they may be more than memory holds."""
    kept = manifest[manifest["row"] >= 0]
    rows = kept["row"].to_numpy()
    header = {"descr": "|u1", "fortran_order": False, "shape": raw.pixels.shape}
    with (folder / "pixels.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start, size = file.tell(), math.prod(raw.pixels.shape[1:])
        for row, image in zip(rows.tolist(), raw.pixels, strict=True):
            file.seek(start + row * size)
            file.write(image.tobytes())
    order = np.empty(len(rows), dtype=np.int64)
    order[rows] = np.arange(len(rows))
    np.save(folder / "labels.npy", kept["label"].to_numpy(dtype=np.int64)[order])


def _log_images(images: ImageSet, remark: str) -> None:
    sizes = f"{images.num_train} / {images.num_validation} / {images.num_test}"
    classes = f"{len(images.class_names)} classes" if images.class_names else "no classes"
    log(
        f"{images.name}: {sizes} images (train / validation / test),"
        f" {images.width}x{images.height}x{images.channels}, {classes};"
        f" {images.num_duplicates} exact duplicates, {images.num_leaked} of them across splits"
        f"{_left_out(images)}{remark}"
    )
    for note in images.notes:
        log(f"{images.name}: {note}")


def _left_out(receipt: ImageSet | Corpus) -> str:
    return f"; set aside: {receipt.set_aside}" if receipt.set_aside else ""


@task(
    name="ingest-text",
    task_run_name="ingest {source}",
    **NETWORKED,
)
def ingest_text(source: str, glob: str | None = None, rehash: bool = False) -> Corpus:
    """Read, check, normalise, split and store a text source.

    glob: which files of a person's folder are read; None takes all that hold text. rehash: read a
    person's files again even if none seems to have changed.
    """
    found = find_source(source, "text", glob=glob)
    source = str(source_address(source))
    settings = {"source": source, **({"glob": glob} if glob is not None else {})}
    fingerprint = fingerprint_of(found.path, "corpora", settings)
    kept = None if rehash else made_before(fingerprint, "corpora", settings, Corpus)
    if kept is not None:
        _log_text(kept, "; unchanged")
        return kept
    assert found.read_text is not None
    raw = found.read_text()
    with scratch_folder() as scratch:
        parts = _parts_of(source, raw, scratch)
        manifest = text_manifest(raw, source) if raw.files else None
        corpus = _corpus(source, found, raw, parts, manifest, glob)
        made = store(
            "corpora", corpus, settings, lambda folder: _write_text(folder, parts), manifest
        )
    if fingerprint is not None:
        fingerprint.keep(corpus)
    _log_text(corpus, made.remark)
    return corpus


def _corpus(
    source: str,
    found: Source,
    raw: RawText,
    parts: dict[str, TextRange],
    manifest: pd.DataFrame | None,
    glob: str | None,
) -> Corpus:
    digest = digest_of_texts(parts)
    name = short_name(source)
    return Corpus(
        name=name,
        source=source,
        title=found.title,
        licence=found.licence,
        folder=str(artifact_folder("corpora", name, digest)),
        digest=digest,
        num_characters=sum(part.length for part in parts.values()),
        bytes_train=parts["train"].num_bytes,
        bytes_validation=parts["validation"].num_bytes,
        bytes_test=parts["test"].num_bytes,
        leaked_lines_fraction=shared_lines(parts["train"], parts["test"], MIN_LINE),
        glob=glob,
        num_files=max(1, len(raw.files)),
        set_aside=counted(raw.set_aside),
        manifest=digest_of_rows(manifest) if manifest is not None else "",
        note=raw.note,
    )


def _log_text(corpus: Corpus, remark: str) -> None:
    files = f" in {corpus.num_files} files" if corpus.num_files > 1 else ""
    log(
        f"{corpus.name}: {corpus.num_characters} characters{files}; held out:"
        f" {corpus.bytes_validation} bytes for validation, {corpus.bytes_test} for the test;"
        f" {corpus.leaked_lines_fraction:.1%} of the test's long lines also stand in the training"
        f" text{_left_out(corpus)}{remark}"
    )
    if corpus.note:
        log(f"{corpus.name}: {corpus.note}")


def _write_text(folder: Path, parts: Mapping[str, TextRange]) -> None:
    for split, part in parts.items():
        with (folder / f"{split}.txt").open("wb") as file:
            file.writelines(part.blocks())


def _parts_of(source: str, raw: RawText, scratch: Path) -> dict[str, TextRange]:
    r"""The three parts of a text with `\n` line ends, each with a final newline, on the disk.

    The first 10 % to validate, the last 10 % to test, all between to train; or an author's split.
    The test is nanoGPT's validation part, the text from character int(0.9 * length) on, and as
    there it follows the training text directly: a gap of a tenth between the two costs an n-gram
    model 0.17 nats per character on tiny Shakespeare, because neighbours share a play.
    """
    lines = _Counted(normalised_pieces(raw.whole))
    whole = written(scratch / "whole.txt", lines)
    if whole.length < MIN_CHARACTERS:
        raise BadInput(
            f"{one_line(source)} has {whole.length} characters in {lines.number} lines; wanted at"
            f" least {MIN_CHARACTERS} characters: give a longer text"
        )
    if raw.parts is not None:
        return _official_parts(raw.parts, scratch)
    before, test = whole.cut(int(0.9 * whole.length))
    validation, train = before.cut(int(0.1 * whole.length))
    return {"train": train, "validation": validation, "test": test}


class _Counted:
    """Pieces of a text, whose lines are counted as they pass."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces, self.number = pieces, 0

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self.number += piece.count("\n")
            yield piece


def _official_parts(given: Mapping[Part, Iterable[str]], scratch: Path) -> dict[str, TextRange]:
    """An author's split as three parts: of one held-out part, whatever its name, the test is made.

    Where there is no validation part besides, the first 10 % of the training text are that.
    """
    parts = {
        name: written(scratch / f"{name}.txt", normalised_pieces(text))
        for name, text in given.items()
    }
    train, test = parts["train"], parts.get("test") or parts["validation"]
    if len(parts) == 3:
        return {"train": train, "validation": parts["validation"], "test": test}
    validation, rest = train.cut(int(0.1 * train.length))
    return {"train": rest, "validation": validation, "test": test}


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
