"""Why an n-gram model wrote what it wrote, on texts whose counts are known."""

from types import SimpleNamespace

import pytest

from models.ngram import NgramConfig, NgramModel
from models.tokenizer import CharacterTokenizer
from tasks.text_choices import Choice, choices

TEXT = "the cat sat on the mat, the cat ran\n" * 20


@pytest.fixture(scope="module")
def version() -> SimpleNamespace:
    tokenizer = CharacterTokenizer.fit(TEXT)
    ids = tokenizer.encode(TEXT)
    model = NgramModel.fit(ids, tokenizer.vocabulary_size, NgramConfig(order=5))
    return SimpleNamespace(tokenizer=tokenizer, model=model)


def test_the_tokens_are_those_of_the_text(version: SimpleNamespace) -> None:
    found = choices(version, "\n", "the mat")

    assert "".join(choice.text for choice in found) == "the mat"
    assert all(0 < choice.part <= choice.probability <= 1 for choice in found)


def test_what_follows_without_doubt_is_decided_by_the_longest_context(
    version: SimpleNamespace,
) -> None:
    found = choices(version, "\n", "the cat")

    assert found[2] == Choice(
        text="e",
        probability=pytest.approx(found[2].probability),
        context_length=3,
        context="\nth",
        part=pytest.approx(found[2].part),
    )
    assert found[2].part >= 0.5


def test_an_unseen_context_leaves_the_choice_to_shorter_ones(version: SimpleNamespace) -> None:
    (choice,) = choices(version, "sat on a", "t")

    assert choice.context_length < 4
    assert choice.context == "sat on a"[len("sat on a") - choice.context_length :]


def test_what_the_model_never_saw_is_decided_by_nothing_before_it(version: SimpleNamespace) -> None:
    found = choices(version, "the c", "é")

    assert len(found) == 2  # the bytes of the character
    assert all((choice.context, choice.part) == ("", 0.0) for choice in found)
