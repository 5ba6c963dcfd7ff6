"""From a corpus to tokens: fit a vocabulary on the training split, encode every split.

Token ids lie in memory-mappable arrays beside the vocabulary that made them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from models.text.tokenizer import (
    BpeTokenizer,
    CharacterTokenizer,
    Tokenizer,
    pieces,
    tokenizer_from_dict,
)
from tasks.data.ingestion import Corpus
from tasks.data.kinds import Scheme
from tasks.data.own_files import one_line
from tasks.data.splits import SPLITS, Split, text_pieces
from tasks.runtime.progress import log
from tasks.runtime.retries import LOCAL
from tasks.store.artifacts import get_or_create
from tasks.store.files import BadInput, digest_of, read_json, write_json
from tasks.store.fingerprint import cache_key_inputs

MIN_TOKENS: dict[Split, int] = {"train": 1000, "validation": 100, "test": 100}
"""Below this there is nothing to learn from, or nothing to judge by."""
MAX_CHARACTERS_TOLD = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounts:
    """What a token set's manifest says; see `TokenSet`."""

    digest: str
    vocabulary_size: int
    num_train: int
    num_validation: int
    num_test: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSet:
    """Receipt of a tokenized corpus."""

    name: str
    """The corpus's name, the first part of its models' names."""
    corpus: Corpus
    scheme: Scheme
    folder: str
    digest: str
    """sha256 of the vocabulary and of the corpus it encoded."""
    vocabulary_size: int
    num_train: int
    num_validation: int
    num_test: int

    @property
    def tokenizer_path(self) -> Path:
        """The vocabulary, as JSON."""
        return Path(self.folder) / "tokenizer.json"


@task(name="tokenize-corpus", task_run_name="tokenize {corpus.name}", **LOCAL)
def tokenize_corpus(
    corpus: Corpus,
    scheme: Scheme = "characters",
    vocabulary_size: int = 1024,
    tokenizer_file: str | None = None,
) -> TokenSet:
    """Fit a vocabulary on the training split and write every split as ids.

    vocabulary_size counts for "bpe" only; "characters" has as many as the text, and 256 bytes.
    tokenizer_file: of a vocabulary that was learned from another text, which is taken instead.
    """
    settings: dict[str, Any] = {"scheme": scheme, "vocabulary_size": vocabulary_size}
    given = None
    if tokenizer_file is not None:
        given = tokenizer_from_dict(read_json(Path(tokenizer_file)))
        scheme = "characters" if isinstance(given, CharacterTokenizer) else "bpe"
        settings = {"tokenizer": digest_of(given.to_dict())}
    parts = cache_key_inputs(settings, [corpus.digest], ["models.text.tokenizer"], "cpu")
    made = get_or_create(
        "tokens",
        f"{corpus.name}-{scheme}",
        parts,
        lambda folder: _write(folder, corpus, scheme, vocabulary_size, given),
        inputs=[corpus.digest],
        record=TokenCounts,
    )
    counts = asdict(made.as_receipt(TokenCounts))
    tokens = TokenSet(
        name=corpus.name, corpus=corpus, scheme=scheme, folder=str(made.folder), **counts
    )
    _check_lengths(corpus, scheme, counts)
    log(
        f"{tokens.name}: {tokens.vocabulary_size} {scheme} in the vocabulary;"
        f" {tokens.num_train} / {tokens.num_validation} / {tokens.num_test} tokens{made.remark}"
    )
    if given is not None and (told := _unknown_characters(given, corpus)):
        log(f"{tokens.name}: {told}")
    return tokens


def _unknown_characters(tokenizer: Tokenizer, corpus: Corpus) -> str:
    """Which characters of a text a vocabulary lacks, and spells in bytes, in words."""
    if not isinstance(tokenizer, CharacterTokenizer):
        return ""  # all of its tokens are made of bytes
    counts: Counter[str] = Counter()
    for split in SPLITS:
        for piece in text_pieces(corpus, split):
            counts.update(piece)
    known = {chr(point) for point in tokenizer.to_dict()["code_points"]}
    unknown = sorted(counts.keys() - known, key=lambda each: (-counts[each], each))
    if not unknown:
        return ""
    number, most = sum(counts[each] for each in unknown), MAX_CHARACTERS_TOLD
    shown = ", ".join(repr(each) for each in unknown[:most])
    if len(unknown) > most:
        shown += f" and {len(unknown) - most} more"
    return (
        f"{number:,} of {counts.total():,} characters are not in the vocabulary that it is given,"
        f" and are spelled in bytes: {shown}"
    )


def fit_tokenizer(parts: Iterable[str], scheme: Scheme, vocabulary_size: int) -> Tokenizer:
    """A vocabulary learned from a training text, in parts."""
    if scheme == "characters":
        return CharacterTokenizer.fit("".join(set().union(*parts)))
    return BpeTokenizer.fit(parts, vocabulary_size)


def _write(
    folder: Path,
    corpus: Corpus,
    scheme: Scheme,
    vocabulary_size: int,
    given: Tokenizer | None = None,
) -> dict[str, int]:
    tokenizer = given or fit_tokenizer(text_pieces(corpus, "train"), scheme, vocabulary_size)
    write_json(folder / "tokenizer.json", tokenizer.to_dict())
    dtype = np.uint16 if tokenizer.vocabulary_size <= 2**16 else np.uint32
    sizes = {}
    for split in SPLITS:
        encoded = (tokenizer.encode(piece) for piece in pieces(text_pieces(corpus, split)))
        sizes[f"num_{split}"] = _save(folder / f"{split}.npy", encoded, np.dtype(dtype))
    _check_lengths(corpus, scheme, sizes)
    return {"vocabulary_size": tokenizer.vocabulary_size, **sizes}


def _save(path: Path, parts: Iterable[np.ndarray], dtype: np.dtype[Any]) -> int:
    """Write arrays, (n,) each, one after the other as `numpy.save` does the whole; its length."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": (0,)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for part in parts:
            file.write(part.astype(dtype).data)
        length = (file.tell() - start) // dtype.itemsize
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (length,)})
        assert file.tell() == start, "the header has room for any length"
    return int(length)


def _check_lengths(corpus: Corpus, scheme: Scheme, sizes: Mapping[str, Any]) -> None:
    """Raise BadInput for too few tokens: a repetitive text has many characters and few of them."""
    got = [sizes[f"num_{split}"] for split in SPLITS]
    wanted = [MIN_TOKENS[split] for split in SPLITS]
    if any(number < fewest for number, fewest in zip(got, wanted, strict=True)):
        instead = ", or take --tokenizer characters" if scheme == "bpe" else ""
        raise BadInput(
            f"{one_line(corpus.source)} has {' / '.join(map(str, got))} tokens"
            f" ({' / '.join(SPLITS)}) in {corpus.num_characters} characters; wanted at least"
            f" {' / '.join(map(str, wanted))}: give a longer or less repetitive text{instead}"
        )


def load_tokenizer(tokens: TokenSet) -> Tokenizer:
    """The vocabulary that encoded a token set."""
    return tokenizer_from_dict(read_json(tokens.tokenizer_path))
