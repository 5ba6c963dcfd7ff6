"""Interpolated back-off over tables of counts: each order's share, and what it leaves below.

p_k(w | h) = u_k(h, w) + backoff_k(h) p_{k-1}(w | h'), see `models.ngram.model`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from models.ngram.config import NgramConfig
from models.ngram.counting import UNKNOWN, MarkedText, NgramTable
from models.ngram.keys import BEGIN, Integers
from models.ngram.smoothing import Floats, Mixture, discounted, estimated_discounts, mixed

DENSE_SIZE = 1 << 20
"""Numbers in the largest order whose distributions are kept whole."""


@dataclass(frozen=True, slots=True)
class DenseOrders:
    """Whole distributions after every context of the lowest orders."""

    probs: Floats
    """(rows, S) by symbol; column BEGIN is the probability of any one unseen token."""
    first_rows: Integers
    """(orders,) the row of each order's context of rank 0."""

    @classmethod
    def of(cls, model: "BackoffModel") -> "DenseOrders":
        """Order 1, and as many more as have at most DENSE_SIZE numbers each."""
        probs = np.full((1, model.num_symbols), 1 / model.vocabulary_size)
        suffixes = np.zeros(1, np.int64)  # of each context, without its first symbol
        blocks: list[Floats] = []
        for k, table in enumerate(model.tables, 1):
            if blocks and len(suffixes) * model.num_symbols > DENSE_SIZE:
                break
            probs = probs[suffixes] * model.backoffs(k)[:-1, None]
            places, symbols, ranks = model.followers(k, np.arange(len(suffixes)))
            probs[places, symbols] += model.shares(k)[ranks]
            blocks.append(probs)
            symbols = table.keys % model.num_symbols
            parents = suffixes[model.contexts(k)]
            suffixes = np.zeros_like(symbols) if k == 1 else model.extended(k - 1, parents, symbols)
        first_rows = np.cumsum([0, *(len(block) for block in blocks[:-1])])
        return cls(np.concatenate(blocks), first_rows)


class BackoffModel:
    """Tables of counts, and what follows from them: shares, back-off weights, followers.

    Tokens are ids in 0 to vocabulary_size - 1. n-grams are known by their rank in the table of
    their order; what was not seen has the rank UNKNOWN.
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
        self.symbol_of = symbols_of(seen_tokens, vocabulary_size)
        # Made when first asked, by order: counting and storing a model need neither.
        self._estimates: dict[int, tuple[Floats, Floats]] = {}
        self._bounds: dict[int, Integers] = {}

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

    def counts_at(self, order: int, ranks: Integers) -> tuple[Integers, Integers]:
        """Kneser-Ney's counts and the occurrences of some n-grams of one order, by rank: (n,) each.

        0 for UNKNOWN. Only these are read of tables that may be larger than memory.
        """
        table, is_seen = self.tables[order - 1], ranks != UNKNOWN
        if len(table.keys) == 0:
            return np.zeros(len(ranks), np.int64), np.zeros(len(ranks), np.int64)
        counted = is_seen & (ranks != BEGIN) if order == 1 else is_seen
        occurrences = np.where(counted, table.counts[ranks], 0).astype(np.int64)
        if order == self.config.order:
            return occurrences, occurrences
        num_left = np.where(is_seen, table.num_left[ranks], 0)
        return np.where(num_left > 0, num_left, occurrences), occurrences

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


def symbols_of(seen_tokens: Integers, vocabulary_size: int) -> Integers:
    """The symbol of every token id: (V,)."""
    symbols = np.full(vocabulary_size, UNKNOWN, np.int64)
    symbols[seen_tokens] = np.arange(1, len(seen_tokens) + 1)
    return symbols
