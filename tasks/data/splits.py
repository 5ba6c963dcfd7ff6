"""Stored data as arrays and text, split by split: what training and measuring read.

These few lines are in every cache key, unlike the rest of this room, whose results' digests are.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:  # both begin here
    from tasks.data.ingestion import Corpus, ImageSet
    from tasks.data.tokenization import TokenSet

Split = Literal["train", "validation", "test"]
CHARACTERS_AT_ONCE = 1 << 18
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def load_images(images: "ImageSet", split: Split) -> tuple[np.ndarray, np.ndarray]:
    """One split: pixels (N, C, H, W) uint8, memory-mapped, and labels (N,) int64."""
    sizes = [images.num_train, images.num_validation, images.num_test]
    start = sum(sizes[: SPLITS.index(split)])
    part = slice(start, start + sizes[SPLITS.index(split)])
    folder = Path(images.folder)
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    return pixels[part], np.load(folder / "labels.npy")[part]


def load_text(corpus: "Corpus", split: Split) -> str:
    """One split of a corpus."""
    return (Path(corpus.folder) / f"{split}.txt").read_bytes().decode("utf-8")


def text_pieces(corpus: "Corpus", split: Split) -> Iterator[str]:
    """One split of a corpus, a part at a time."""
    path = Path(corpus.folder) / f"{split}.txt"
    with path.open(encoding="utf-8", newline="") as file:
        while piece := file.read(CHARACTERS_AT_ONCE):
            yield piece


def load_end(corpus: "Corpus", split: Split, num_characters: int) -> str:
    """The last so many characters of one split, or all of a shorter one; no more is read."""
    with (Path(corpus.folder) / f"{split}.txt").open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 4 * num_characters))
        content = file.read()
    first = next((place for place in range(len(content)) if content[place] & 0xC0 != 0x80), 0)
    text = content[first:].decode("utf-8")  # from a character's first byte on
    return text[max(0, len(text) - num_characters) :]


def load_tokens(tokens: "TokenSet", split: Split) -> np.ndarray:
    """The ids of one split: (N,) uint16 or uint32, memory-mapped."""
    ids: np.ndarray = np.load(Path(tokens.folder) / f"{split}.npy", mmap_mode="r")
    return ids
