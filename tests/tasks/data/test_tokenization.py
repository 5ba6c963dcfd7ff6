from pathlib import Path

import numpy as np
import pytest

from models.text.tokenizer import BpeTokenizer, CharacterTokenizer, Tokenizer
from tasks.data.ingestion import Corpus, ingest_text
from tasks.data.splits import SPLITS, load_text, load_tokens
from tasks.data.tokenization import Scheme, load_tokenizer, tokenize_corpus
from tasks.store.artifacts import folders
from tasks.store.files import BadInput, sha256_of


@pytest.fixture
def corpus(atelier_home: Path, text_file: Path) -> Corpus:
    """The receipt of the small corpus."""
    return ingest_text.fn(f"file:{text_file}")


@pytest.mark.parametrize("scheme", ["characters", "bpe"])
def test_every_split_decodes_to_its_text(corpus: Corpus, scheme: Scheme) -> None:
    tokens = tokenize_corpus.fn(corpus, scheme, vocabulary_size=300)

    tokenizer = load_tokenizer(tokens)
    for split, number in (("train", tokens.num_train), ("test", tokens.num_test)):
        ids = load_tokens(tokens, split)
        assert isinstance(ids, np.memmap)
        assert ids.dtype == np.uint16
        assert len(ids) == number
        assert tokenizer.decode(ids.tolist()) == load_text(corpus, split)
    assert tokenizer.decode(tokenizer.encode("☃ never seen")) == "☃ never seen"


def test_tokenizing_twice_writes_nothing_and_repairs_damage(corpus: Corpus) -> None:
    first = tokenize_corpus.fn(corpus)
    ids = Path(first.folder) / "test.npy"
    good, written_at = sha256_of(ids), ids.stat().st_mtime_ns

    assert tokenize_corpus.fn(corpus) == first
    assert ids.stat().st_mtime_ns == written_at

    ids.write_bytes(ids.read_bytes()[:-1])
    assert tokenize_corpus.fn(corpus) == first
    assert sha256_of(ids) == good


@pytest.mark.parametrize(
    "text", ["ab" * 12_000, "a" * 12_000, "\n" * 12_000, " " * 9000 + "x" * 3000]
)
def test_too_few_tokens_are_refused_with_advice(
    atelier_home: Path, tmp_path: Path, text: str
) -> None:
    (tmp_path / "ab.txt").write_text(text)
    corpus = ingest_text.fn(f"file:{tmp_path / 'ab.txt'}")

    with pytest.raises(
        BadInput, match=r"ab.txt has \d+ / 4 / [45] tokens \(train / validation / te"
    ):
        tokenize_corpus.fn(corpus, "bpe")

    assert folders("tokens") == []
    assert tokenize_corpus.fn(corpus, "characters").num_train >= 9600


def test_schemes_and_sizes_have_digests_of_their_own(corpus: Corpus) -> None:
    made = [
        tokenize_corpus.fn(corpus, "characters"),
        tokenize_corpus.fn(corpus, "bpe", vocabulary_size=290),
        tokenize_corpus.fn(corpus, "bpe", vocabulary_size=300),
    ]

    assert len({tokens.digest for tokens in made}) == 3
    assert made[2].num_train < made[0].num_train


@pytest.mark.parametrize("scheme", ["characters", "bpe"])
def test_the_vocabulary_of_another_text_is_taken_where_it_is_given(
    corpus: Corpus, scheme: Scheme, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="atelier")
    theirs = tokenize_corpus.fn(corpus, scheme, vocabulary_size=300)
    (tmp_path / "other.txt").write_text("the bird sees a Ω, a Ω and one é.\n" * 400)
    other = ingest_text.fn(f"file:{tmp_path / 'other.txt'}")

    ours = tokenize_corpus.fn(other, tokenizer_file=str(theirs.tokenizer_path))
    own = tokenize_corpus.fn(other, scheme, vocabulary_size=300)

    assert ours.scheme == scheme
    assert ours.vocabulary_size == theirs.vocabulary_size
    assert load_tokenizer(ours).to_dict() == load_tokenizer(theirs).to_dict()
    assert load_tokenizer(own).to_dict() != load_tokenizer(theirs).to_dict()
    ids = load_tokens(ours, "test").tolist()
    assert load_tokenizer(ours).decode(ids) == load_text(other, "test")
    told = [line for line in caplog.messages if "not in the vocabulary" in line]
    if scheme == "bpe":  # all of it is made of bytes
        assert not told
    else:
        assert told[0].endswith("and are spelled in bytes: 'Ω', ',', 'é'")
        assert "1,600 of 13,600 characters" in told[0]


@pytest.mark.parametrize("scheme", ["characters", "bpe"])
def test_tokens_are_written_as_numpy_writes_the_whole(
    corpus: Corpus, scheme: Scheme, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.data.splits.CHARACTERS_AT_ONCE", 100)
    monkeypatch.setattr("models.text.tokenizer._PIECE_LENGTH", 70)
    monkeypatch.setattr("models.text.tokenizer._LONG_LINE", 150)

    tokens = tokenize_corpus.fn(corpus, scheme, 300)

    whole = load_text(corpus, "train")
    learned: Tokenizer = CharacterTokenizer.fit(whole)
    if scheme == "bpe":
        learned = BpeTokenizer.fit(whole, 300)
    assert load_tokenizer(tokens).to_dict() == learned.to_dict()
    for split in SPLITS:
        ids = learned.encode(load_text(corpus, split)).astype(np.uint16)
        np.save(tmp_path / "whole.npy", ids)
        stored = Path(tokens.folder) / f"{split}.npy"
        assert stored.read_bytes() == (tmp_path / "whole.npy").read_bytes()
