import pytest

from models.ngram.recipe import ngram_recipe
from models.presets import Preset, TextShape


@pytest.mark.parametrize("preset", ["quick", "standard", "full"])
def test_an_order_counts_fewer_tokens_of_bpe_than_characters(preset: Preset) -> None:
    of_pairs, of_characters = (
        ngram_recipe(preset, TextShape(scheme, 300, 100_000), 3)["model"]
        for scheme in ("bpe", "characters")
    )

    assert of_pairs.order < of_characters.order


def test_a_seed_changes_nothing() -> None:
    shape = TextShape("characters", 300, 100_000)

    assert ngram_recipe("quick", shape, 0) == ngram_recipe("quick", shape, 1)
