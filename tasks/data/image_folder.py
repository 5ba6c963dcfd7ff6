"""A person's own pictures: a folder with a sub-folder per class, read and checked."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from tasks.data.image_layout import Layout, layout_of
from tasks.data.image_pixels import (
    CANNOT_DECODE,
    NOT_A_PICTURE,
    NotAPicture,
    Picture,
    as_grey,
    decoded,
    size_of,
)
from tasks.data.own_files import CANNOT_OPEN, OwnFile, SetAside, counted, listed, readable
from tasks.store.files import BadInput

MIN_SIDE, MAX_SIDE = 8, 64
COLOUR_FROM = 0.1
"""A set is in colour where at least this share of its pictures is; else all become grey."""

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(kw_only=True, slots=True)
class RawImages:
    """Images as a reader found them."""

    pixels: np.ndarray
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


def read_image_folder(folder: Path, image_size: int | None) -> RawImages:
    """A person's images; see `tasks.data.image_layout` for classes and splits.

    What cannot be used is set aside with the reason. Raises BadInput for no images, for a split
    that contradicts itself, and without image_size for mixed sizes and for sides outside 8 to 64
    pixels; all of that is found in folders and headers, before any picture is decoded.
    """
    listing = listed(folder)
    set_aside = list(listing.set_aside)
    sizes = _headers(listing.files, set_aside)
    found = [file for file in listing.files if file.id in sizes]
    if not found:
        raise BadInput(_no_images(folder, set_aside))
    layout = layout_of(readable(folder), [file.parts[:-1] for file in found])
    set_aside += [SetAside(id=found[i].id, reason=why) for i, why in layout.left_out.items()]
    used = [index for index in range(len(found)) if index not in layout.left_out]
    files = [found[index] for index in used]
    if image_size is None:
        _check_sizes(folder, files, sizes)
    broken: list[SetAside] = []
    pictures = dict(_decoded(files, sizes, image_size, broken))
    set_aside += broken
    kept = [index for index in used if found[index].id in pictures]
    if not kept:
        raise BadInput(
            f"none of the {len(files)} images in {readable(folder)} can be read:"
            f" {broken[0].id}: {broken[0].reason}"
        )
    taken = [pictures.pop(found[index].id) for index in kept]
    ids = [found[index].id for index in kept]
    return _raw(layout, kept, ids, taken, sorted(set_aside, key=lambda each: each.id))


def _raw(
    layout: Layout,
    kept: Sequence[int],
    ids: list[str],
    pictures: list[Picture],
    set_aside: list[SetAside],
) -> RawImages:
    labels = np.array([layout.labels[index] for index in kept], dtype=np.int64)
    remarks = Counter(remark for picture in pictures for remark in picture.remarks)
    notes = [*layout.notes, *(f"{number} {remark}" for remark, number in sorted(remarks.items()))]
    pixels = _stacked(pictures, notes)
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


def _headers(files: Sequence[OwnFile], set_aside: list[SetAside]) -> dict[str, Size]:
    """The size of each picture by its id; what is none is set aside."""
    from tasks.runtime.progress import (
        with_progress,  # imports Prefect: not before settings are made
    )

    sizes = {}
    for file in with_progress(files, "look at files"):
        try:
            sizes[file.id] = size_of(file.path)
        except Exception as error:  # decoders of damaged files raise almost anything
            set_aside.append(SetAside(id=file.id, reason=_reason(error, file.path)))
    return sizes


def _decoded(
    files: Sequence[OwnFile],
    sizes: dict[str, Size],
    image_size: int | None,
    set_aside: list[SetAside],
) -> Iterator[tuple[str, Picture]]:
    """Each picture that can be read, with its id; the others are set aside."""
    from tasks.runtime.progress import with_progress  # see above

    for file in with_progress(files, "read pictures"):
        try:
            picture = decoded(file.path, image_size)
            height, width = picture.pixels.shape[:2]
            if image_size is None and (width, height) != sizes[file.id]:
                raise ValueError(f"is {width}x{height}, its header says otherwise")
            yield file.id, picture
        except Exception as error:  # see above
            set_aside.append(SetAside(id=file.id, reason=_reason(error, file.path)))


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"{CANNOT_OPEN}: {error.strerror}"
    words = (str(error) or type(error).__name__).splitlines()[0]
    kind = NOT_A_PICTURE if isinstance(error, NotAPicture) else CANNOT_DECODE
    return f"{kind}: {readable(words.replace(str(path), path.name))}"


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
    except Exception:  # see above
        return False
    return True


def _stacked(pictures: list[Picture], notes: list[str]) -> np.ndarray:
    """(N, C, H, W) uint8; the pictures are given up one by one, so that memory holds them once.

    A decision between grey and colour is added to the notes.
    """
    number, num_coloured = len(pictures), sum(each.pixels.shape[2] == 3 for each in pictures)
    channels = 3 if num_coloured and num_coloured >= COLOUR_FROM * number else 1
    if 0 < num_coloured < number:
        done = "the others are kept as colour too" if channels == 3 else "they became grey"
        notes.append(f"{num_coloured} of {number} pictures have colour: {done}")
    height, width = pictures[0].pixels.shape[:2]
    stacked = np.empty((number, channels, height, width), dtype=np.uint8)
    for index in reversed(range(number)):
        pixels = pictures.pop().pixels
        stacked[index] = (pixels if channels == 3 else as_grey(pixels)).transpose(2, 0, 1)
    return stacked
