"""Why an n-gram model wrote what it wrote, on texts whose counts are known."""

import pytest

from models.ngram.config import NgramConfig
from models.ngram.model import NgramModel
from models.text.tokenizer import BpeTokenizer, CharacterTokenizer
from tasks.packaging.served_model import SampleModel
from tasks.samples.token_attribution import choices

TEXT = "the cat sat on the mat, the cat ran\n" * 20


def version_of(tokenizer: CharacterTokenizer | BpeTokenizer) -> SampleModel:
    version = SampleModel()
    version.family, version.prompt, version.tokenizer = "ngram", "\n", tokenizer
    ids = tokenizer.encode(TEXT)
    version.model = NgramModel.fit(ids, tokenizer.vocabulary_size, NgramConfig(order=5))
    return version


@pytest.fixture(scope="module")
def version() -> SampleModel:
    """A version that knows characters."""
    return version_of(CharacterTokenizer.fit(TEXT))


def test_the_text_is_the_one_that_the_version_writes(version: SampleModel) -> None:
    found = choices(version, "\n", num_tokens=80, temperature=0.8, seed=3)

    (written,) = version.write_texts(1, 3, 0.8, num_tokens=80)
    assert "".join(choice.text for choice in found) == written
    assert all(0 < choice.part <= choice.probability <= 1 for choice in found)


def test_a_longer_text_begins_as_a_shorter_one(version: SampleModel) -> None:
    longer = choices(version, "\n", num_tokens=80, seed=3)

    assert choices(version, "\n", num_tokens=30, seed=3) == longer[:30]


def test_byte_pairs_are_explained_as_they_were_drawn() -> None:
    """Encoding a written text again may part it elsewhere."""
    pairs = version_of(BpeTokenizer.fit(TEXT, vocabulary_size=270))
    found = choices(pairs, "\n", num_tokens=60, temperature=1.5, seed=1)

    (written,) = pairs.write_texts(1, 1, 1.5, num_tokens=60)
    assert len(found) == 60
    assert any(len(choice.text) > 1 for choice in found)
    assert "".join(choice.text for choice in found) == written


def test_what_follows_without_doubt_is_decided_by_the_longest_context(
    version: SampleModel,
) -> None:
    (choice,) = choices(version, "\nthe cat sat on th", num_tokens=1, temperature=0.01)

    assert (choice.text, choice.context_length, choice.context) == ("e", 4, "n th")
    assert choice.part >= 0.5


def test_an_unseen_context_leaves_the_choice_to_shorter_ones(version: SampleModel) -> None:
    (choice,) = choices(version, "sat on a", num_tokens=1, temperature=0.01)

    assert choice.context_length < 4
    assert "sat on a".endswith(choice.context)
