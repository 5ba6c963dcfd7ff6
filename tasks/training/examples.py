"""What a version carries along of its data: example images, or a prompt."""

import numpy as np
import torch
from torch import Tensor

from models.training.protocol import ImageData, TextData
from tasks.data.ingestion import Corpus, ImageSet
from tasks.data.splits import load_images, load_text, load_tokens
from tasks.data.tokenization import TokenSet


def example_images(images: ImageSet, number: int = 16) -> Tensor:
    """A few validation images that a version carries along: (N, C, H, W) uint8.

    No fit reads the test split, so whoever chooses among fits cannot have seen it.
    """
    pixels, _ = load_images(images, "validation")
    chosen = np.linspace(0, len(pixels) - 1, number).astype(int)
    return torch.from_numpy(pixels[chosen].copy())


def default_prompt(corpus: Corpus, most_characters: int = 40) -> str:
    """The beginning of a held-out line: what a token model continues when nobody asks."""
    text = load_text(corpus, "validation")
    lines = text.split("\n")[1:] or [text.partition(" ")[2] or text]
    line = next((line for line in lines if len(line) >= most_characters // 2), "\n")
    cut = line[:most_characters]
    return cut if len(line) <= most_characters else cut.rsplit(" ", 1)[0] or cut


def splits_of(data: ImageSet | TokenSet) -> ImageData | TextData:
    """What a training learns from, and what it is validated on."""
    if isinstance(data, TokenSet):
        return TextData(
            train=load_tokens(data, "train"),
            validation=load_tokens(data, "validation"),
            vocabulary_size=data.vocabulary_size,
        )
    (train, train_labels), (validation, validation_labels) = (
        load_images(data, split) for split in ("train", "validation")
    )
    return ImageData(
        train=train,
        train_labels=train_labels,
        validation=validation,
        validation_labels=validation_labels,
    )
