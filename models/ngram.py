"""Interpolated modified Kneser-Ney: the next token predicted by counting, without a neural network.

Each order k refines the order below it: p_k(w | h) = u_k(h, w) + backoff_k(h) p_{k-1}(w | h'),
where u_k is the share of w in the discounted counts after the context h, backoff_k(h) is the mass
that discounting freed there, and h' is h without its first token. Order 0 is uniform. A tuned
config (`models.ngram_tuning`) changes u and backoff; all else stays.

References: Chen & Goodman 1998, "An empirical study of smoothing techniques for language
modeling"; Heafield et al. 2013, "Scalable modified Kneser-Ney language model estimation" (KenLM,
whose numbers this model reproduces).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.ngram_counting import UNKNOWN, MarkedText, NgramTable, check_ids, count_ngrams
from models.ngram_explanation import Level, explained
from models.ngram_keys import BEGIN, Integers
from models.ngram_smoothing import (
    NUM_TUNED,
    Floats,
    Mixture,
    discounted,
    estimated_discounts,
    mixed,
)
from models.ngram_spilling import SpillConfig
from models.ngram_stream import DenseOrders, NgramStream

if TYPE_CHECKING:  # counting needs NumPy alone, and torch takes longer to import than to count
    from torch import Tensor

SCORED_AT_ONCE = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class NgramConfig:
    """The defaults are plain modified Kneser-Ney."""

    order: int = 7
    """Tokens in the longest n-gram, the predicted one included."""
    sentence_end: int | None = None
    """Token id after which the context starts afresh; None takes the text as one sentence."""
    fallback_discounts: tuple[float, float, float] = (0.5, 1.0, 1.5)
    """For n-grams seen once, twice and more often, in orders whose counts determine none."""
    tuned: tuple[tuple[float, ...], ...] | None = None
    """What `models.ngram_tuning.tune` found: per order the numbers of a `Mixture`, in a row."""

    def __post_init__(self) -> None:
        if self.order < 1:
            raise ValueError(f"order must be at least 1, got {self.order}")
        if self.sentence_end is not None and self.sentence_end < 0:
            raise ValueError(f"sentence_end must be a token id or None, got {self.sentence_end}")
        # JSON turns tuples into lists.
        object.__setattr__(self, "fallback_discounts", tuple(self.fallback_discounts))
        limits = zip(self.fallback_discounts, (1, 2, 3), strict=True)
        if not all(0 < discount <= limit for discount, limit in limits):
            raise ValueError(
                "fallback_discounts must lie above 0 and at most at 1, 2 and 3, got"
                f" {self.fallback_discounts}"
            )
        if self.tuned is not None:
            object.__setattr__(self, "tuned", tuple(map(tuple, self.tuned)))
            if [len(row) for row in self.tuned] != [NUM_TUNED] * self.order:
                raise ValueError(
                    f"tuned must hold {NUM_TUNED} numbers for each of {self.order} orders, got rows"
                    f" of {[len(row) for row in self.tuned]}; tune again after changing the order"
                )
            if not np.isfinite(self.tuned).all():
                raise ValueError("tuned holds numbers that are not finite; tune again")


class NgramModel:
    """A table of counts and what follows from it: the probability of every token after any other.

    Tokens are ids in 0 to vocabulary_size - 1; ids that the training text lacks share the mass that
    unigram discounting freed evenly with all others. At the start of a text the context is the mark
    of a sentence's beginning.
    """

    def __init__(
        self,
        config: NgramConfig,
        vocabulary_size: int,
        seen_tokens: Integers,
        tables: Sequence[NgramTable],
    ) -> None:
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.context_length = config.order - 1
        self.tables = tables
        self.seen_tokens = seen_tokens
        self.num_symbols = len(seen_tokens) + 1
        self.symbol_of = _symbols_of(seen_tokens, vocabulary_size)
        # Made when first asked, by order: counting and storing a model need neither.
        self._estimates: dict[int, tuple[Floats, Floats]] = {}
        self._bounds: dict[int, Integers] = {}

    @classmethod
    def fit(
        cls,
        tokens: NDArray[np.integer],
        vocabulary_size: int,
        config: NgramConfig | None = None,
        spill: SpillConfig | None = None,
    ) -> "NgramModel":
        """Count a text. tokens: (N,) ids in 0 to vocabulary_size - 1, N >= 1.

        With `spill`, counting keeps within its memory, whatever the text's length, and the tables
        are mapped from disk; the model is the same. Raises OSError when that disk is full.
        """
        config = config or NgramConfig()
        if len(tokens) == 0:
            raise ValueError("the training text has no tokens; an n-gram model needs at least one")
        if config.sentence_end is not None:
            check_ids(config.sentence_end, config.sentence_end, vocabulary_size)
        seen_tokens = _seen_tokens(tokens, vocabulary_size)
        text = MarkedText(tokens, _symbols_of(seen_tokens, vocabulary_size), config.sentence_end)
        tables = count_ngrams(text, len(seen_tokens) + 1, config.order, spill)
        return cls(config, vocabulary_size, seen_tokens, tables)

    def adjusted_counts(self, order: int) -> Integers:
        """Kneser-Ney's counts of one order's n-grams: (n,).

        The highest order counts occurrences, lower ones distinct left neighbours, except for
        n-grams that begin a sentence: they have no neighbour and keep their occurrences.
        """
        counts = self.occurrences(order)
        num_left = self.tables[order - 1].num_left
        return np.where(num_left > 0, num_left, counts) if order < self.config.order else counts

    def discounts(self, order: int) -> tuple[float, float, float]:
        """What is subtracted from the counts 1, 2 and 3 or more of one order."""
        counts = self.adjusted_counts(order)
        return estimated_discounts(counts) or self.config.fallback_discounts

    def shares(self, order: int) -> Floats:
        """u, the discounted share of every n-gram of one order after its context: (n + 1,).

        The last is 0, which index UNKNOWN finds.
        """
        return self._estimate(order)[0]

    def backoffs(self, order: int) -> Floats:
        """The weight of the order below after every context of this order: (contexts + 1,).

        The last is 1, which index UNKNOWN finds.
        """
        return self._estimate(order)[1]

    def occurrences(self, order: int) -> Integers:
        """How often the n-grams of one order occurred: (n,)."""
        counts = self.tables[order - 1].counts.astype(np.int64)
        if order == 1:
            counts[BEGIN] = 0
        return counts

    def _estimate(self, order: int) -> tuple[Floats, Floats]:
        """Discounted shares of the n-grams and back-off weights of their contexts; kept."""
        if order not in self._estimates:
            num_contexts = len(self.tables[order - 2].keys) if order > 1 else 1
            contexts, counts = self.contexts(order), self.adjusted_counts(order)
            if self.config.tuned is None:
                discounts = self.discounts(order)
                shares, backoffs = discounted(counts, contexts, num_contexts, discounts)
            else:
                mixture = Mixture.of(self.config.tuned[order - 1])
                occurrences = self.occurrences(order)
                shares, backoffs = mixed(mixture, counts, occurrences, contexts, num_contexts)
            # What index UNKNOWN finds is appended.
            self._estimates[order] = np.append(shares, 0.0), np.append(backoffs, 1.0)
        return self._estimates[order]

    def contexts(self, order: int) -> Integers:
        """The context of each n-gram of one order, as its rank one order below: (n,)."""
        return self.tables[order - 1].keys // self.num_symbols

    def score(self, tokens: "Tensor", start: int = 0) -> "Tensor":
        """Natural log-probabilities of tokens[start:], each given the tokens before it.

        tokens: (N,) int64, the beginning of a text. Returns (N - start,) float64.
        """
        import torch

        ids = tokens.cpu().numpy()
        if len(ids):
            check_ids(int(ids.min()), int(ids.max()), self.vocabulary_size)
        parts = [np.empty(0)]
        for first in range(start, len(ids), SCORED_AT_ONCE):
            context_start = max(0, first - self.context_length)
            probs = self._probabilities(
                ids[context_start : first + SCORED_AT_ONCE], is_beginning=context_start == 0
            )
            parts.append(np.log(probs[first - context_start :]))
        return torch.from_numpy(np.concatenate(parts)).to(tokens.device)

    def _probabilities(self, ids: Integers, is_beginning: bool) -> Floats:
        """Probability of each token given those before it: (n,) to (n,)."""
        symbols = self.symbols(ids, is_beginning=is_beginning)
        probs = np.full(len(symbols), 1 / self.vocabulary_size)
        for k, contexts, ranks in self.ranked(symbols):
            probs = self.shares(k)[ranks] + self.backoffs(k)[contexts] * probs
        predicted: Floats = probs[symbols != BEGIN]
        return predicted

    def symbols(self, ids: Integers, *, is_beginning: bool) -> Integers:
        """The symbols of a text, with the marks of the sentences that begin in it."""
        text = MarkedText(ids, self.symbol_of, self.config.sentence_end)
        symbols = text.symbols(0, len(ids))
        return symbols if is_beginning else symbols[1:]

    def ranked(self, symbols: Integers) -> Iterator[tuple[int, Integers, Integers]]:
        """For each order: the order, and at each place the ranks of the context and the n-gram."""
        contexts = np.zeros(len(symbols), np.int64)
        for k in range(1, self.config.order + 1):
            ranks = self.extended(k, contexts, symbols)
            yield k, contexts, ranks
            contexts = np.append(UNKNOWN, ranks[:-1])

    def extended(self, order: int, contexts: Integers, symbols: Integers) -> Integers:
        """Ranks of the n-grams that extend contexts, ranks one order below, by symbols.

        UNKNOWN where the n-gram was not seen.
        """
        if order == 1:
            return symbols
        return self.tables[order - 1].rank(contexts, symbols, self.num_symbols)

    def followers(self, order: int, contexts: Integers) -> tuple[Integers, Integers, Integers]:
        """All that was seen after contexts of one order: (B,) to three of (F,).

        For each follower: the index in `contexts`, the symbol, the rank of the n-gram.
        """
        keys, bounds = self.tables[order - 1].keys, self._follower_bounds(order)
        firsts = bounds[contexts]
        lengths = bounds[contexts + 1] - firsts
        lengths[contexts < 0] = 0
        texts = np.repeat(np.arange(len(contexts)), lengths)
        ranks = np.arange(len(texts)) + (firsts - (np.cumsum(lengths) - lengths))[texts]
        return texts, keys[ranks] - (contexts * self.num_symbols)[texts], ranks

    def _follower_bounds(self, order: int) -> Integers:
        """Where the followers of each context begin, and at last where they end; kept.

        (contexts + 1,)
        """
        if order not in self._bounds:
            num_contexts = len(self.backoffs(order)) - 1
            num_followers = np.bincount(self.contexts(order), minlength=num_contexts)
            self._bounds[order] = np.append(0, np.cumsum(num_followers))
        return self._bounds[order]

    @cached_property
    def dense(self) -> DenseOrders:
        """The distributions after all short contexts, as far as they fit; made when first asked."""
        return DenseOrders.of(self)

    def stream(self, num_sequences: int) -> NgramStream:
        """Texts that grow side by side."""
        return NgramStream(self, num_sequences)

    def explain(self, context: Sequence[int], token: int) -> list[Level]:
        """How the probability of `token` after `context` came about, from order 1 upwards.

        context: the tokens before it from the beginning of the text, or at least context_length of
        them. The last level's probability is the model's.
        """
        return explained(self, context, token)

    def tensors(self) -> "dict[str, Tensor]":
        """The whole model, but for its config: counts by order, from which all else follows."""
        import torch

        named = {"seen_tokens": self.seen_tokens, "vocabulary_size": np.array(self.vocabulary_size)}
        for k, table in enumerate(self.tables, 1):
            named |= {f"keys_{k}": table.keys, f"counts_{k}": table.counts}
            named |= {f"num_left_{k}": table.num_left}
        return {name: torch.from_numpy(array) for name, array in named.items()}

    @classmethod
    def from_tensors(cls, config: NgramConfig, tensors: "Mapping[str, Tensor]") -> "NgramModel":
        """Rebuild a model from its `tensors()` and the config it was fitted with."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        tables = [
            NgramTable(arrays[f"keys_{k}"], arrays[f"counts_{k}"], arrays[f"num_left_{k}"])
            for k in range(1, config.order + 1)
        ]
        return cls(config, int(arrays["vocabulary_size"]), arrays["seen_tokens"], tables)


def _symbols_of(seen_tokens: Integers, vocabulary_size: int) -> Integers:
    """The symbol of every token id: (V,)."""
    symbols = np.full(vocabulary_size, UNKNOWN, np.int64)
    symbols[seen_tokens] = np.arange(1, len(seen_tokens) + 1)
    return symbols


def _seen_tokens(tokens: NDArray[np.integer], vocabulary_size: int) -> Integers:
    """The ids that occur in a text, a part at a time, as NumPy counts copies of 64 bits each."""
    is_seen = np.zeros(vocabulary_size, bool)
    for first in range(0, len(tokens), SCORED_AT_ONCE):
        part = tokens[first : first + SCORED_AT_ONCE]
        check_ids(int(part.min()), int(part.max()), vocabulary_size)
        is_seen |= np.bincount(part, minlength=vocabulary_size) > 0
    return np.flatnonzero(is_seen)
