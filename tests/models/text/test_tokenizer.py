import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.text.tokenizer import (
    BpeTokenizer,
    CharacterTokenizer,
    _without_long_words,
    pieces,
    tokenizer_from_dict,
)

CORPUS = "the cat sat on the mat; the café's cat sat.\n\nWhat a cat!\n  indented\n" * 20
ROOT = Path(__file__).parents[3]
TOKENIZERS = [
    CharacterTokenizer.fit(CORPUS),
    CharacterTokenizer.fit(""),
    CharacterTokenizer.fit("a\ud800\udc00\U0001f389"),
    BpeTokenizer.fit(CORPUS, 300),
    BpeTokenizer.fit("", 300),
]
# Any code point, surrogates included, mixed with characters that the corpus holds.
ANY_TEXT = st.text(st.characters(codec=None) | st.characters(categories=["Cs"])) | st.text(
    "the cat\r\n\0\x1c\u2028\ud800\udc00é🎉"
)


@given(text=ANY_TEXT)
@settings(max_examples=200, deadline=None)
def test_any_text_survives_encoding_and_decoding(text):
    for tokenizer in TOKENIZERS:
        ids = tokenizer.encode(text)
        assert ids.dtype == np.uint32
        assert tokenizer.decode(ids) == text
        spelled = b"".join(tokenizer.token_bytes(token) for token in ids.tolist())
        assert spelled == text.encode("utf-8", "surrogatepass")


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_freely_sampled_ids_always_decode(seed):
    for tokenizer in TOKENIZERS:
        ids = np.random.default_rng(seed).integers(0, tokenizer.vocabulary_size, 60)
        assert isinstance(tokenizer.decode(ids), str)


def test_bytes_that_are_not_utf8_show_as_replacement_characters():
    tokenizer = CharacterTokenizer.fit("ab")

    assert tokenizer.decode([0, 2 + 0xC3, 1]) == "a\ufffdb"
    assert tokenizer.decode([0, 2 + 0xC3, 2 + 0xA9, 1]) == "aéb"


def test_character_ids_are_in_code_point_order_and_then_bytes():
    tokenizer = CharacterTokenizer.fit("hello")

    assert tokenizer.vocabulary_size == 4 + 256
    assert tokenizer.encode("hello").tolist() == [1, 0, 2, 2, 3]
    assert tokenizer.encode("he!é").tolist() == [1, 0, 4 + 0x21, 4 + 0xC3, 4 + 0xA9]
    assert tokenizer.decode([1, 0, 4 + 0x21]) == "he!"


def test_bpe_learns_exactly_the_merges_worked_by_hand():
    # Words: "aaab" x1 and " aaab" x2. Pairs: (a,a) 6, (a,b) 3, (space,a) 2. So "aa" comes first;
    # then (aa,a) 3 and (a,b) 3 tie; whichever wins, the third token that is built spells "aaab".
    tokenizer = BpeTokenizer.fit("aaab aaab aaab", 259)

    assert tokenizer.token_bytes(256) == b"aa"
    assert tokenizer.token_bytes(258) == b"aaab"
    assert tokenizer.encode("aaab").tolist() == [258]
    assert tokenizer.encode("z").tolist() == [ord("z")]


def test_a_long_text_has_the_tokens_of_the_whole():
    """Long texts are cut into pieces; the cuts must not show."""
    text = CORPUS * 120  # more than two pieces
    tokenizer = TOKENIZERS[3]
    pieced = tokenizer.encode(text)
    whole = tokenizer._library.encode(text).ids

    assert len(text) > 2 << 16
    np.testing.assert_array_equal(pieced, whole)


@settings(deadline=None)
@given(st.text(alphabet="ab'é1. \n\t\u00a0\u3000\x1c\x1f", max_size=400))
def test_cuts_never_show_wherever_they_fall(text):
    """Also within a line too long to be one piece, and beside every kind of white space."""
    tokenizer = TOKENIZERS[3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.text.tokenizer._PIECE_LENGTH", 7)
        patch.setattr("models.text.tokenizer._LONG_LINE", 20)
        pieced = tokenizer.encode(text)

    np.testing.assert_array_equal(pieced, tokenizer._library.encode(text).ids)


def test_a_line_of_megabytes_is_cut():
    text = "words and more words, " * 100_000

    found = list(pieces([text]))

    assert "".join(found) == text
    assert max(map(len, found)) < 1 << 17


def pieces_of_a_whole(text, shortest, longest):
    """The same by its definition, with all of the text at hand."""

    def cut(mark, first, last):
        places = range(max(1, first), min(last, len(text)))
        return next((p for p in places if text[p] == mark and not text[p - 1].isspace()), None)

    start = 0
    while start < len(text):
        first, last = start + shortest, start + longest
        end = cut("\n", first, last) or cut(" ", first, last) or cut("\n", first, len(text))
        yield text[start : (end or len(text))]
        start = end or len(text)


@settings(deadline=None)
@given(
    st.lists(st.text(alphabet="ab \n\u00a0", max_size=40), max_size=12),
    st.sampled_from([(3, 9), (7, 20), (1, 2)]),
)
def test_pieces_do_not_depend_on_how_the_text_arrives(parts, sizes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.text.tokenizer._PIECE_LENGTH", sizes[0])
        patch.setattr("models.text.tokenizer._LONG_LINE", sizes[1])
        found = list(pieces(parts))

    assert found == list(pieces_of_a_whole("".join(parts), *sizes))


def test_a_vocabulary_is_learned_from_parts_as_from_the_whole():
    text = CORPUS * 3000
    parts = [text[start : start + 1009] for start in range(0, len(text), 1009)]

    assert BpeTokenizer.fit(parts, 400).to_dict() == BpeTokenizer.fit(text, 400).to_dict()


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_json_rebuilds_the_tokenizer(tokenizer):
    record = json.loads(json.dumps(tokenizer.to_dict()))
    rebuilt = tokenizer_from_dict(record)
    text = CORPUS + "\ud800\udc00 unseen: ñ 🎉"

    assert rebuilt.to_dict() == record
    assert rebuilt.vocabulary_size == tokenizer.vocabulary_size
    np.testing.assert_array_equal(rebuilt.encode(text), tokenizer.encode(text))


def test_another_process_learns_the_same_vocabulary():
    program = (
        "import json, sys; from models.text.tokenizer import *; text = sys.stdin.read();"
        "print(json.dumps([CharacterTokenizer.fit(text).to_dict(),"
        " BpeTokenizer.fit(text, 400).to_dict()]))"
    )
    text = "".join(f"{n * n % 97} bottles of {n % 7} kinds,\n" for n in range(500))
    here = [CharacterTokenizer.fit(text).to_dict(), BpeTokenizer.fit(text, 400).to_dict()]
    there = subprocess.run(
        [sys.executable, "-c", program],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )

    assert json.loads(there.stdout) == here


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(ValueError, match="at least 256, one id per byte, got 100"):
        BpeTokenizer.fit("text", 100)


@pytest.mark.parametrize("ids", [[-1], [260], [0, 10**6]])
def test_ids_outside_the_vocabulary_are_refused(ids):
    with pytest.raises(ValueError, match="between 0 and 259, got"):
        CharacterTokenizer.fit("hello").decode(ids)


def test_an_unknown_kind_of_tokenizer_is_refused():
    with pytest.raises(ValueError, match="got 'words'"):
        tokenizer_from_dict({"kind": "words"})


@pytest.mark.parametrize("alphabet", ["ACGT", "0123456789", "a", "\n", " "])
def test_vocabularies_of_long_texts_without_words_are_learned_from_short_parts(alphabet):
    """As a whole, a line of this length takes the library minutes."""
    letters = np.random.default_rng(0).choice(list(alphabet), 300_000)
    text = "A genome, or a number: " + "".join(letters) + "\nand what follows it\n"

    parts = list(_without_long_words([text]))
    tokenizer = BpeTokenizer.fit(text, 300)

    assert "".join(parts) == text
    assert all(len(word) <= 4096 for part in parts for word in part.split())
    assert tokenizer.vocabulary_size > 256 + len(alphabet)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_texts_with_words_are_learned_from_as_they_are():
    text = f"{CORPUS * 100}{'=' * 4095} {' ' * 4000}\n{'x' * 4000}\n{CORPUS * 2000}"

    assert list(_without_long_words([text])) == list(pieces([text]))
