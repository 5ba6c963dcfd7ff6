"""A person's own pictures: a folder with a sub-folder per class, read and checked."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.messages import one_line
from tasks.storage import BadInput

SMALLEST_SIDE, LARGEST_SIDE = 8, 64


@dataclass(kw_only=True, slots=True)
class RawImages:
    """Images as a reader found them."""

    pixels: np.ndarray
    """(N, C, H, W) uint8."""
    labels: np.ndarray
    """(N,) int64, indices into class_names."""
    ids: list[str]
    class_names: tuple[str, ...]
    official_test: np.ndarray | None = None
    """(N,) bool: the source's own test part, or None where it has none."""
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    """Ids of files that could not be read, each with the reason."""


def read_image_folder(folder: Path, image_size: int | None) -> RawImages:
    """A person's images: every sub-folder is a class; grey if all are grey, else RGB.

    Files that cannot be decoded are quarantined. Raises BadInput for no images, for mixed sizes
    without image_size, and for sides outside 8 to 64 pixels.
    """
    from PIL import Image

    suffixes = set(Image.registered_extensions())
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    if not paths:
        raise BadInput(
            f"{folder} holds no images; wanted one sub-folder per class with PNG, JPEG or similar"
        )
    pictures, kept, quarantined = [], [], []
    for path in paths:
        try:
            pictures.append(_decoded(path, image_size))
            kept.append(path)
        except Exception as error:  # decoders of damaged files raise almost anything
            reason = one_line(error)
            reason = reason.replace(str(path), path.name)
            quarantined.append((path.relative_to(folder).as_posix(), reason))
    if not kept:
        raise BadInput(f"none of the {len(paths)} images in {folder} can be read: {quarantined[0]}")
    pixels = _stacked(folder, pictures)
    class_names = tuple(sorted({path.parent.relative_to(folder).as_posix() for path in kept}))
    index_of = {name: index for index, name in enumerate(class_names)}
    labels = [index_of[path.parent.relative_to(folder).as_posix()] for path in kept]
    return RawImages(
        pixels=pixels,
        labels=np.array(labels, dtype=np.int64),
        ids=[path.relative_to(folder).as_posix() for path in kept],
        class_names=class_names,
        quarantined=quarantined,
    )


def _decoded(path: Path, image_size: int | None) -> np.ndarray:
    """One picture as (H, W, 1) or (H, W, 3) uint8; transparency is laid on white."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a photograph with odd metadata is still a photograph
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as opened:
            if opened.mode.startswith(("I", "F")):
                raise ValueError(f"{opened.mode} pixels are not supported; convert it to 8 bits")
            mode = "L" if opened.mode in ("1", "L", "LA") else "RGB"
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert(mode)
            if image_size is not None:
                image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BOX)
            array = np.asarray(image, dtype=np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def _stacked(folder: Path, pictures: list[np.ndarray]) -> np.ndarray:
    sizes = sorted({picture.shape[:2] for picture in pictures})
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width in sizes[:4])
        raise BadInput(
            f"the images in {folder} have {len(sizes)} different sizes ({shown}, ...); wanted one:"
            " pass --image-size N to crop and resize them all to N x N"
        )
    height, width = sizes[0]
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (height, width)):
        raise BadInput(
            f"the images in {folder} are {width}x{height}; wanted sides of {SMALLEST_SIDE} to"
            f" {LARGEST_SIDE} pixels: pass --image-size N to crop and resize them to N x N"
        )
    num_channels = max(picture.shape[2] for picture in pictures)
    stacked = [np.broadcast_to(p, (height, width, num_channels)) for p in pictures]
    return np.ascontiguousarray(np.stack(stacked).transpose(0, 3, 1, 2))
