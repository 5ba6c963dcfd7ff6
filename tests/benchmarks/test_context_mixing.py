"""The mixture of counts is a distribution, learns what it is told, and looks nowhere ahead."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.context_mixing import ContextMixing, code_tree

ALPHABET = "\n :ATaehnost"
TEXT = "Anna:\nto the hot tea to the nest at noon\nToo hot:\nno toast\n" * 12


def mixture(text: str = TEXT) -> ContextMixing:
    model = ContextMixing(ALPHABET)
    model.learn(text)
    return model


def test_every_character_has_a_path_of_its_own() -> None:
    nodes, bits, lengths = code_tree(ALPHABET)
    paths = {
        tuple(zip(nodes[index, :length].tolist(), bits[index, :length].tolist(), strict=True))
        for index, length in enumerate(lengths)
    }

    assert len(paths) == len(ALPHABET)
    assert sum(2.0**-length for length in lengths) == 1.0
    assert nodes.max() == len(ALPHABET) - 2


@pytest.mark.parametrize("after", ["", "to the ho", "\nAnna:", "o"], ids=repr)
def test_the_probabilities_of_all_characters_sum_to_one(after: str) -> None:
    model = mixture(TEXT + after)
    probabilities = np.exp([-model.score(character)[0] for character in ALPHABET])

    assert probabilities.sum() == pytest.approx(1, abs=1e-9)
    assert probabilities.min() > 0


@pytest.mark.parametrize("method", ["learn", "score"])
def test_what_follows_changes_no_score_before_it(method: str) -> None:
    def nats(text: str) -> NDArray[np.float64]:
        read: Callable[[str], NDArray[np.float64]] = getattr(mixture(), method)
        return read(text)

    known = "to the hot tea to the nest at no"
    others = [nats(known + future)[: len(known)] for future in ("on\n" * 9, "TTTT:::: sssss")]

    assert np.array_equal(others[0], others[1])
    assert np.array_equal(others[0], nats(known))


def test_scoring_learns_nothing_and_learning_does() -> None:
    model, new = mixture(), "shoes to shoes\n"
    first, again = model.score(new), model.score(new)
    model.learn(new)

    assert np.array_equal(first, again)
    assert model.score(new).mean() < 0.8 * first.mean()


def test_weights_learn_from_blocks_of_which_nothing_is_counted_yet() -> None:
    together, whole, halves = (ContextMixing(ALPHABET) for _ in range(3))
    together.learn(TEXT)
    whole.learn_apart(TEXT, len(TEXT))
    halves.learn_apart(TEXT, len(TEXT) // 2)
    new = ContextMixing(ALPHABET)._tables

    for each in (whole, halves):
        assert np.array_equal(each._tables.slots, together._tables.slots)
        assert np.array_equal(each._tables.heads, together._tables.heads)
    assert np.array_equal(whole._tables.weights, new.weights)
    assert not np.array_equal(halves._tables.weights, new.weights)
    assert halves.score(TEXT).mean() < whole.score(TEXT).mean()


def test_a_text_begun_anew_has_no_counts_of_the_one_before() -> None:
    model = mixture()
    model.forget_counts()
    fresh = model.score("to the ")

    assert fresh.mean() > mixture().score("to the ").mean()
    assert not model._tables.slots.any()


@pytest.mark.parametrize("alphabet", ["a", "aa", "a€", "".join(map(chr, range(32, 98)))])
def test_alphabets_without_a_choice_or_too_large_are_refused(alphabet: str) -> None:
    with pytest.raises(ValueError, match="an alphabet has 2 to 65 different characters"):
        ContextMixing(alphabet)
