"""From one picture's file to pixels, by rules that hold for every file.

A picture is known by its content, not by its suffix. The first frame counts, EXIF orientation is
applied, transparency is laid on white, pixels of 16 bits and more are brought to 8, and a picture
whose channels are equal everywhere is grey, however it is stored.
"""

import functools
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from tasks.data.own_files import opened as open_file

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with a file is in its reason

Size = tuple[int, int]
"""Width and height in pixels."""
NOT_A_PICTURE = "no picture of a known format"
CANNOT_DECODE = "cannot be decoded"

# EPS is a program that Pillow hands to Ghostscript; the others are no pictures in themselves.
_REFUSED_FORMATS = frozenset(
    {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC", "IMT", "SPIDER"}
)
_FREQUENT_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
_KNOWN_BY_SUFFIX = {"TGA": {".tga", ".icb", ".vda", ".vst"}, "IM": {".im"}, "PCD": {".pcd"}}
"""Formats that begin with no mark of their own: almost any file could be one."""
_CAMERA_SUFFIXES = frozenset(
    {".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"}
)
_ARCHIVES = (
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"Rar!",
    b"7z\xbc\xaf",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
)
_BRANDS_OF_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

TURNED = "turned as its EXIF orientation says"
FIRST_FRAME = "of several frames, of which the first was taken"
DEEP = "of 16 or 32 bits, brought to 8"
ON_WHITE = "with transparency, laid on white"


class NotAPicture(ValueError):
    """A file holds no picture of a format that is read here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One decoded picture."""

    pixels: np.ndarray
    """(H, W, 1) or (H, W, 3) uint8; 3 only where the channels differ somewhere."""
    remarks: tuple[str, ...]
    """What was done to it, besides resizing."""


def size_of(path: Path) -> Size:
    """Width and height as shown, from the header alone; NotAPicture for other files."""
    with _opened(path) as image:
        width, height = image.size
        is_on_its_side = _orientation(image) >= 5 and image.format != "TIFF"  # already turned
        return (height, width) if is_on_its_side else (width, height)


def decoded(path: Path, image_size: int | Size | None) -> Picture:
    """The picture in a file, cropped and resized to a size if one is given.

    image_size: the side of a square, or width and height.
    Raises NotAPicture, and almost anything else for a damaged file.
    """
    with _opened(path) as opened:
        remarks = [TURNED] if _orientation(opened) > 1 else []
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):
            remarks.append(DEEP)
            image = Image.fromarray(_eight_bits(np.asarray(image)))
        mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
        if image.has_transparency_data:
            remarks.append(ON_WHITE)
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert(mode)
        if image_size is not None:
            size = (image_size, image_size) if isinstance(image_size, int) else image_size
            image = ImageOps.fit(image, size, Image.Resampling.BOX)
        if _has_more_frames(opened):
            remarks.append(FIRST_FRAME)
        return Picture(pixels=_grey_if_equal(np.asarray(image)), remarks=tuple(remarks))


def as_grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 1 or 3) uint8 as (H, W, 1): the luma of ITU-R 601-2."""
    if pixels.shape[2] == 1:
        return pixels
    return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]


def _grey_if_equal(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        return array[:, :, None]
    is_grey = bool((array == array[:, :, :1]).all())
    return np.ascontiguousarray(array[:, :, :1]) if is_grey else array


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of more than 8 bits as uint8, by what their numbers can be.

    Integers: 0 to 65535 becomes 0 to 255. Floating point: 0 to 1 where none is larger, else 0 to
    255. Raises ValueError where a value lies outside: nothing tells what is black or white then.
    """
    lowest, highest = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        white = 1.0 if highest <= 1 else 255.0
        wanted = "0 to 1 or 0 to 255"
    else:
        white, wanted = 65535.0, "0 to 65535"
    if not 0 <= lowest <= highest <= white:  # also where one is not a number
        raise ValueError(
            f"its values lie between {lowest:g} and {highest:g}; wanted {wanted}: convert it to"
            " 8 bits"
        )
    return np.rint(values * (255.0 / white)).astype(np.uint8)


def _has_more_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the second frame is damaged, and nobody wants it
        return True


def _orientation(image: Image.Image) -> int:
    # A TIFF must not be asked before it is loaded, and getexif of PNG files, unlike that of the
    # class above, decodes the whole picture.
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else Image.Image.getexif(image)
    found = tags.get(0x0112, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture's header; nothing is decoded yet."""
    suffix = path.suffix.lower()
    if suffix in _CAMERA_SUFFIXES:
        raise NotAPicture("a camera's raw file; convert it to JPEG or PNG")
    # Pillow is given the open file: by its name it would map TIFF files, and turn those wrongly.
    with open_file(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a photograph with odd metadata is still a photograph
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            opened = Image.open(file, formats=_formats(suffix))
        except UnidentifiedImageError as error:
            raise NotAPicture(_what_it_is(path)) from error
        with opened:
            yield opened


@functools.cache
def _formats(suffix: str) -> tuple[str, ...]:
    Image.init()
    left_out = {name for name, suffixes in _KNOWN_BY_SUFFIX.items() if suffix not in suffixes}
    ordered = dict.fromkeys((*_FREQUENT_FORMATS, *Image.ID))  # asked one after the other
    return tuple(name for name in ordered if name not in left_out | _REFUSED_FORMATS)


def _what_it_is(path: Path) -> str:
    with open_file(path) as file:
        head = file.read(16)
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS_OF_HEIF:
        return "HEIC; convert it to JPEG or PNG"
    if head.startswith(_ARCHIVES):
        return "an archive; unpack it"
    if path.suffix.lower() in Image.registered_extensions():
        return f"its content is of no known format, whatever {path.suffix} says"
    return "its content is of no known format"
