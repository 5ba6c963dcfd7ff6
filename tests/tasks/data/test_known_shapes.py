"""What a recipe is told of data before they are read: as found here, as declared, or assumed."""

from pathlib import Path

import numpy as np
import pytest

from models.presets import ImageShape, TextShape
from tasks.data.ingestion import ImageSet
from tasks.data.known_shapes import ASSUMED_TOKENS, known_shape
from tasks.data.sources import SOURCES, read_digits
from tasks.data.tokenization import TokenSet
from tasks.training.plan import shape_of


def test_what_was_read_here_is_known(images: ImageSet, tokens: TokenSet) -> None:
    of_images = known_shape(images.source, "images", images.image_size)
    of_text = known_shape(tokens.corpus.source, "text", scheme=tokens.scheme)

    assert (of_images.shape, of_images.source) == (shape_of(images), "stored")
    assert (of_text.shape, of_text.source) == (shape_of(tokens), "stored")


def test_a_size_or_scheme_that_was_not_made_here_is_assumed(
    images: ImageSet, tokens: TokenSet
) -> None:
    of_images = known_shape(images.source, "images", 24)
    other = "bpe" if tokens.scheme == "characters" else "characters"
    of_text = known_shape(tokens.corpus.source, "text", scheme=other)

    assert of_images.source == of_text.source == "assumed"
    assert isinstance(of_images.shape, ImageShape)
    assert (of_images.shape.height, of_images.shape.width) == (24, 24)
    assert isinstance(of_text.shape, TextShape)
    assert of_text.shape.num_tokens == ASSUMED_TOKENS


def test_images_that_the_program_knows_declare_their_shape(tmp_path: Path) -> None:
    digits = read_digits()
    _, channels, height, width = digits.pixels.shape

    assert SOURCES["digits"].shape == ImageShape(channels, height, width, len(digits.class_names))
    assert len(np.unique(digits.labels)) == len(digits.class_names)
    assert known_shape("digits", "images").source == "declared"
    assert all(each.shape for each in SOURCES.values() if each.kind == "images")
    assert known_shape(f"folder:{tmp_path}", "images").source == "assumed"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_sets_that_are_downloaded_declare_what_their_title_says(name: str) -> None:
    assert SOURCES[name].shape == ImageShape(1, 28, 28, 10)
    assert "28x28" in SOURCES[name].title
