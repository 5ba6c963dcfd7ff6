"""Counting n-grams of every order by sorting, without a dictionary.

The n-grams of order k are one sorted array of integer keys: a key is the rank of the n-gram's
first k - 1 symbols among those of order k - 1, times the number of symbols, plus its last symbol.
So a key fits 64 bits whatever the order, a parent is a division away, and the continuations of a
context lie side by side.

Symbols are the token ids that occur in the text, renumbered from 1. Symbol 0 is the mark that
stands before the first token of the text and after every token that ends a sentence; it is never
predicted and no n-gram crosses it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
BEGIN = 0
"""The symbol before the first token of every sentence."""
UNKNOWN = -1
"""The symbol of a token that the training text lacks; also the rank of an n-gram it lacks."""


@dataclass(frozen=True, slots=True)
class NgramTable:
    """All distinct n-grams of one order, sorted by key. N-grams are named by their rank here."""

    keys: Integers
    """(n,) rank of the first k - 1 symbols, times the number of symbols, plus the last symbol."""
    counts: NDArray[np.int32]
    """(n,) occurrences."""
    num_left: NDArray[np.int32]
    """(n,) distinct symbols seen before it; 0 for those that begin a sentence, and for all of the
    highest order, where nothing longer was counted."""

    def rank(self, contexts: Integers, symbols: Integers, num_symbols: int) -> Integers:
        """Ranks of the n-grams that extend `contexts`, ranks one order below, by `symbols`.

        UNKNOWN where the n-gram was not seen.
        """
        if len(self.keys) == 0:
            return np.full(len(contexts), UNKNOWN, np.int64)
        wanted = contexts * num_symbols + symbols
        ranks = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        seen = (self.keys[ranks] == wanted) & (contexts >= 0) & (symbols >= 0)
        return np.where(seen, ranks, UNKNOWN)


def check_ids(lowest: int, highest: int, vocabulary_size: int) -> None:
    """Refuse token ids outside 0 to vocabulary_size - 1."""
    if not 0 <= lowest <= highest < vocabulary_size:
        raise ValueError(
            f"token ids must lie between 0 and {vocabulary_size - 1}, got {lowest} to {highest}"
        )


def count_ngrams(symbols: Integers, num_symbols: int, order: int) -> list[NgramTable]:
    """Tables of orders 1 to `order` of a text with begin marks.

    symbols: (N,) in 0 to num_symbols - 1. Orders that the text is too short for have empty tables.
    """
    ranks = symbols  # the n-gram that ends at each place, or UNKNOWN: (N,)
    keys, counts = np.arange(num_symbols), np.bincount(symbols, minlength=num_symbols)
    tables = []
    for _ in range(1, order):
        ends = np.flatnonzero((ranks[:-1] >= 0) & (symbols[1:] != BEGIN)) + 1
        longer_keys, longer_counts, longer_ranks, examples = count_distinct(
            ranks[ends - 1] * num_symbols + symbols[ends]
        )
        # Each distinct longer n-gram is one left neighbour of the n-gram it ends with.
        num_left = np.bincount(ranks[ends[examples]], minlength=len(keys))
        tables.append(_table(keys, counts, num_left))
        keys, counts = longer_keys, longer_counts
        ranks = np.full(len(symbols), UNKNOWN, np.int64)
        ranks[ends] = longer_ranks
    return [*tables, _table(keys, counts, np.zeros_like(counts))]


def _table(keys: Integers, counts: Integers, num_left: Integers) -> NgramTable:
    return NgramTable(keys, counts.astype(np.int32), num_left.astype(np.int32))


def count_distinct(values: Integers) -> tuple[Integers, Integers, Integers, Integers]:
    """Sorted distinct values, how often each occurs, the rank of each input, an index of each."""
    num_bits = len(values).bit_length()
    if len(values) and int(values.max()).bit_length() + num_bits <= 63:
        # One sort of plain integers is several times faster than an indirect one.
        packed = np.sort((values << num_bits) | np.arange(len(values)))
        places = packed & ((1 << num_bits) - 1)
        ordered = packed >> num_bits
    else:
        places = np.argsort(values, kind="stable")
        ordered = values[places]
    is_first = np.ones(len(values), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    firsts = np.flatnonzero(is_first)
    ranks = np.empty(len(values), np.int64)
    ranks[places] = np.cumsum(is_first) - 1
    return ordered[firsts], np.diff(firsts, append=len(values)), ranks, places[firsts]
