"""A person's own pictures: a folder with a sub-folder per class, read and checked."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from tasks.data.image_layout import Layout, layout_of
from tasks.data.image_pixels import CANNOT_DECODE, NOT_A_PICTURE, Size, decoded
from tasks.data.image_shards import Decoded, FolderPixels, Reader, reader_of, remarks_of
from tasks.data.own_files import Listing, OwnFile, SetAside, counted, listed, readable
from tasks.store.files import BadInput

MIN_SIDE, MAX_SIDE = 8, 64


@dataclass(kw_only=True, slots=True)
class RawImages:
    """Images as a reader found them."""

    pixels: np.ndarray | FolderPixels
    """(N, C, H, W) uint8."""
    labels: np.ndarray
    """(N,) int64, indices into class_names; -1 everywhere where there are no classes."""
    ids: list[str]
    class_names: tuple[str, ...]
    """Empty for images without labels."""
    official_test: np.ndarray | None = None
    """(N,) bool: the source's own test part, or None where it has none."""
    official_validation: np.ndarray | None = None
    """(N,) bool: the source's own validation part, or None where it has none."""
    set_aside: list[SetAside] = field(default_factory=list)
    """Files and folders that are no part of the data, each with the reason."""
    notes: tuple[str, ...] = ()
    """What the reader decided, in sentences."""
    resources: ExitStack = field(default_factory=ExitStack)
    """Where its pixels wait: to be left when they are stored."""


def read_image_folder(folder: Path, image_size: int | None) -> RawImages:
    """A person's images; see `tasks.data.image_layout` for classes and splits.

    What cannot be used is set aside with the reason. Raises BadInput for no images, for a split
    that contradicts itself, and without image_size for mixed sizes and for sides outside 8 to 64
    pixels; all of that is found in folders and headers, before any picture is decoded. Where there
    are many pictures, several processes read them; raises ReaderDied where one of those dies.
    """
    listing = listed(folder)
    with ExitStack() as stack:
        reader = stack.enter_context(reader_of(folder, listing.files, image_size))
        raw = _read(folder, listing, reader, image_size)
        raw.resources = stack.pop_all()
    return raw


def _read(folder: Path, listing: Listing, reader: Reader, image_size: int | None) -> RawImages:
    set_aside = list(listing.set_aside)
    sizes = _headers(reader, listing.files, set_aside)
    found = [file for file in listing.files if file.id in sizes]
    if not found:
        raise BadInput(_no_images(folder, set_aside))
    layout = layout_of(readable(folder), [file.parts[:-1] for file in found])
    set_aside += [SetAside(id=found[i].id, reason=why) for i, why in layout.left_out.items()]
    used = [index for index in range(len(found)) if index not in layout.left_out]
    files = [found[index] for index in used]
    if image_size is None:
        _check_sizes(folder, files, sizes)
    pictures = reader.decoded(files, [sizes[file.id] for file in files], image_size)
    read = list(zip(used, files, pictures.outcomes, strict=True))
    broken = [SetAside(id=file.id, reason=each.reason) for _, file, each in read if each.reason]
    set_aside += broken
    kept = [index for index, _, each in read if not each.reason]
    if not kept:
        raise BadInput(
            f"none of the {len(files)} images in {readable(folder)} can be read:"
            f" {broken[0].id}: {broken[0].reason}"
        )
    ids = [found[index].id for index in kept]
    return _raw(layout, kept, ids, pictures, sorted(set_aside, key=lambda each: each.id))


def _raw(
    layout: Layout,
    kept: Sequence[int],
    ids: list[str],
    pictures: Decoded,
    set_aside: list[SetAside],
) -> RawImages:
    labels = np.array([layout.labels[index] for index in kept], dtype=np.int64)
    pixels = FolderPixels(pictures)
    notes = [*layout.notes, *remarks_of(pictures.outcomes), *filter(None, [pixels.note])]
    official_test = official_validation = None
    if layout.parts is not None:
        parts = np.array([layout.parts[index] for index in kept])
        official_test = parts == "test"
        if (parts == "validation").any():
            official_validation = parts == "validation"
    class_names = layout.class_names
    if class_names:  # a class whose files are all damaged is none
        present, labels = np.unique(labels, return_inverse=True)
        class_names = tuple(class_names[index] for index in present)
    return RawImages(
        pixels=pixels,
        labels=labels.astype(np.int64),
        ids=ids,
        class_names=class_names,
        official_test=official_test,
        official_validation=official_validation,
        set_aside=set_aside,
        notes=tuple(notes),
    )


def _no_images(folder: Path, set_aside: list[SetAside]) -> str:
    found = ""
    if set_aside:
        first = min(set_aside, key=lambda each: each.kind not in (NOT_A_PICTURE, CANNOT_DECODE))
        found = f" (found: {counted(set_aside)}; {first.id}: {first.reason})"
    return (
        f"{readable(folder)} holds no images{found}; wanted PNG, JPEG or similar files, in one"
        " sub-folder per class or all in one folder"
    )


def _headers(
    reader: Reader, files: Sequence[OwnFile], set_aside: list[SetAside]
) -> dict[str, Size]:
    """The size of each picture by its id; what is none is set aside."""
    sizes = {}
    for file, found in zip(files, reader.sizes(files), strict=True):
        if isinstance(found, str):
            set_aside.append(SetAside(id=file.id, reason=found))
        else:
            sizes[file.id] = found
    return sizes


def _check_sizes(folder: Path, files: Sequence[OwnFile], sizes: dict[str, Size]) -> None:
    """Raise BadInput unless all pictures that can be read have one size, and a small one."""
    by_size: dict[Size, list[OwnFile]] = {}
    for file in files:
        by_size.setdefault(sizes[file.id], []).append(file)
    frequent = sorted(by_size, key=lambda size: (-len(by_size[size]), size))
    if len(frequent) > 1:  # the header of a damaged file is no reason to refuse all others
        real = (size for size in frequent if any(map(_can_be_read, by_size[size])))
        frequent = list(islice(real, 2)) or frequent[:1]
    advice = f"pass --image-size N, {MIN_SIDE} to {MAX_SIDE}, to crop and resize them all"
    if len(frequent) > 1:
        ordered = sorted(by_size, key=lambda size: (size not in frequent, -len(by_size[size])))
        shown = ", ".join(f"{width}x{height}" for width, height in ordered[:4])
        raise BadInput(
            f"the images in {readable(folder)} have {len(by_size)} different sizes ({shown}, ...);"
            f" wanted one: {advice} to N x N"
        )
    width, height = frequent[0]
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in (height, width)):
        raise BadInput(
            f"the images in {readable(folder)} are {width}x{height}; wanted sides of"
            f" {MIN_SIDE} to {MAX_SIDE} pixels: {advice} to N x N"
        )


def _can_be_read(file: OwnFile) -> bool:
    try:
        decoded(file.path, None)
    except Exception:  # decoders of damaged files raise almost anything
        return False
    return True
