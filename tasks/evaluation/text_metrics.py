"""Measure token models on held-out text, all on one yardstick: bits per byte."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from models.metrics.bootstrap import bootstrap_mean_interval
from models.metrics.text import (
    bits_per_byte,
    distinct_n,
    known_ngrams,
    longest_copied_span,
)
from models.text.decoding import generate
from models.text.tokenizer import readable
from tasks.data.ingestion import Corpus
from tasks.data.splits import load_end, load_text, text_pieces
from tasks.evaluation.result import EVALUATION_SEED, EvaluationResult, not_finite

SAMPLED_TEXTS, SAMPLED_TOKENS = 8, 500
COMPARED_AT_ONCE = 1 << 22
"""Characters of the training text that written texts are compared with at one time."""
SPAN = 12
"""Characters of the spans that are looked for in the training text: two words, about."""
MIN_BLOCKS, MAX_BLOCK_BYTES, MIN_BLOCK_BYTES = 40, 2000, 250
HISTORY_CHARACTERS = 16
"""Characters of the text before the test that are read for each token of context."""


def measure_text(subject: Any, corpus: Corpus) -> EvaluationResult:
    """Measure a token model on the test split, and the texts that it writes.

    subject: a SampleModel, ours or one that a registered version brought along. It reads the text
    with its own tokenizer, so models of different vocabularies compare.
    """
    ids, nats = _scored(subject, corpus)
    block_bits = _bits_by_block(subject.tokenizer, ids, nats, corpus.bytes_test)
    written = _written(subject)
    texts = "\n".join(written)
    metrics = {
        "test_bits_per_byte": bits_per_byte(float(nats.sum()), corpus.bytes_test),
        "test_nats_per_token": float(nats.mean()),
        **_measures_of_writing(written, corpus),
    }
    failed_checks = not_finite(metrics)
    if metrics["test_bits_per_byte"] >= 8:
        failed_checks.append("knows nothing: 8 bits per byte or more, as uniform guessing")
    low, high = math.nan, math.nan
    if len(block_bits) > 1 and np.isfinite(block_bits).all():
        _, low, high = bootstrap_mean_interval(block_bits)
    return EvaluationResult(
        main_metric="test_bits_per_byte",
        unit="bits per byte",
        metrics=metrics,
        failed_checks=failed_checks,
        scores=block_bits,
        are_resamples=False,
        low=low,
        high=high,
        files={"samples.txt": texts.encode("utf-8", "replace")},
        example=texts[:600],
    )


def scored_blocks(subject: Any, corpus: Corpus) -> np.ndarray:
    """Bits per byte of the blocks of the test split (B,): what an evaluation stores."""
    ids, nats = _scored(subject, corpus)
    return _bits_by_block(subject.tokenizer, ids, nats, corpus.bytes_test)


def _scored(subject: Any, corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """The test's token ids (N,), and the nats of each given the text before it (N,) float64."""
    context = subject.model.context_length
    before = load_end(corpus, "train", HISTORY_CHARACTERS * context)
    history = subject.tokenizer.encode(before)[-context:]
    ids = subject.tokenizer.encode(load_text(corpus, "test"))
    sequence = np.concatenate([history, ids]).astype(np.int64)
    log_probs = subject.model.score(torch.from_numpy(sequence), start=len(history)).double()
    return ids, -log_probs.cpu().numpy()


def _bits_by_block(tokenizer: Any, ids: np.ndarray, nats: np.ndarray, num_bytes: int) -> np.ndarray:
    """Bits per byte of consecutive blocks of the test: (B,), with the whole's as their mean.

    Neighbouring tokens stand or fall together; blocks of a kilobyte or two hardly do. They are cut
    at places of the text, not of tokens, so that two models' blocks pair. A token belongs to the
    block in which it begins.
    """
    wanted = min(MAX_BLOCK_BYTES, max(MIN_BLOCK_BYTES, num_bytes // MIN_BLOCKS))
    num_blocks = max(1, num_bytes // wanted)
    lengths = np.array([len(tokenizer.token_bytes(token)) for token in ids.tolist()])
    starts = np.cumsum(lengths) - lengths
    blocks = np.minimum(starts * num_blocks // num_bytes, num_blocks - 1)
    bits = np.bincount(blocks, weights=nats / math.log(2), minlength=num_blocks)
    found: np.ndarray = bits * num_blocks / num_bytes
    return found


def _measures_of_writing(written: list[str], corpus: Corpus) -> dict[str, float]:
    """How varied and how new texts are, beside as much of the held-out text where there is.

    A model that copies its training text has fewer new spans than real text, one that babbles more.
    """
    held_out = load_text(corpus, "test")
    measured = {"test": written}
    lengths = [len(text) for text in written]
    if sum(lengths) <= len(held_out):
        ends = np.linspace(max(lengths), len(held_out), len(written), dtype=int).tolist()
        measured["real_data"] = [
            held_out[end - n : end] for end, n in zip(ends, lengths, strict=True)
        ]
    found: dict[str, float] = {}
    for part, texts in measured.items():
        whole = "\n".join(texts)
        found |= {f"{part}_distinct_{n}": distinct_n(whole, n) for n in (1, 2, 3)}
        novel, longest = _beside_training(texts, text_pieces(corpus, "train"))
        found[f"{part}_novel_{SPAN}gram_share"] = novel
        found[f"{part}_longest_copied_characters"] = float(longest)
    return found


def _beside_training(texts: list[str], training: Iterable[str]) -> tuple[float, int]:
    """Share of the texts' spans that are new, and the length of the longest that is copied.

    No span crosses from one text to another. training: in pieces, for it may be larger than memory.
    """
    long_enough = [text for text in texts if len(text) >= SPAN]
    known = [np.zeros(len(text) - SPAN + 1, dtype=np.bool_) for text in long_enough]
    longest = 0
    for part in _overlapping(training, max([SPAN, *map(len, texts)])):
        for text, so_far in zip(long_enough, known, strict=True):
            np.logical_or(so_far, known_ngrams(text, part, SPAN), out=so_far)
        longest = max(longest, *(longest_copied_span(text, part).length for text in texts))
    if not long_enough:
        return math.nan, longest
    shares = [1 - float(each.mean()) for each in known]
    return float(np.average(shares, weights=[len(each) for each in known])), longest


def _overlapping(pieces: Iterable[str], overlap: int) -> Iterator[str]:
    """A text in parts, such that every span of `overlap` characters lies within one of them."""
    waiting: list[str] = []
    length, is_new = 0, False
    for piece in pieces:
        waiting.append(piece)
        length, is_new = length + len(piece), True
        if length >= COMPARED_AT_ONCE + overlap:
            part = "".join(waiting)
            yield part
            waiting, length, is_new = [part[-overlap:]], overlap, False
    if is_new:
        yield "".join(waiting)


def _written(subject: Any) -> list[str]:
    """Texts at temperature 1."""
    prompt = subject.tokenizer.encode(subject.prompt).astype(np.int64)
    drawn = generate(
        subject.model,
        torch.from_numpy(prompt),
        num_tokens=SAMPLED_TOKENS,
        num_sequences=SAMPLED_TEXTS,
        seed=EVALUATION_SEED,
    )
    return [readable(subject.tokenizer.decode(row)) for row in drawn.tolist()]
