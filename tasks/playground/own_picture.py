"""A picture that a person brings along, as a version takes it: by the rules of ingestion."""

import re
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from tasks.data.image_pixels import as_grey
from tasks.data.picture_processes import picture_or_reason
from tasks.store.files import BadInput, scratch_folder

_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class OwnPicture:
    """What a version is shown."""

    pixels: np.ndarray
    """(C, H, W) uint8."""
    remarks: tuple[str, ...]
    """What was done to it, besides cropping and resizing."""


def own_picture(content: bytes, name: str, shape: tuple[int, int, int]) -> OwnPicture:
    """The picture in a file's content, cropped and resized to a version's shape (C, H, W).

    name: the file's, of which only the suffix counts. Raises BadInput with the reason for what is
    no picture, is damaged, or would take more memory than a picture may.
    """
    channels, height, width = shape
    suffix = PurePath(name).suffix.lower()
    with scratch_folder() as folder:  # as ingestion, which knows pictures by the file
        path = folder / f"picture{suffix if _SUFFIX.fullmatch(suffix) else ''}"
        path.write_bytes(content)
        found = picture_or_reason(path, (width, height), (width, height))
    if isinstance(found, str):
        raise BadInput(found)
    pixels = as_grey(found.pixels) if channels == 1 else found.pixels
    planes = np.broadcast_to(pixels, (height, width, channels)).transpose(2, 0, 1)
    return OwnPicture(planes.copy(), found.remarks)
