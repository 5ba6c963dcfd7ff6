"""Counting n-grams of every order by sorting those of the highest, without a dictionary.

The n-grams of order k are one sorted array of integer keys: a key is the rank of the n-gram's
first k - 1 symbols among those of order k - 1, times the number of symbols, plus its last symbol.
So a key fits 64 bits whatever the order, a parent is a division away, and the continuations of a
context lie side by side.

Symbols are the token ids that occur in the text, renumbered from 1. Symbol 0 is the mark that
stands before the first token of the text and after every token that ends a sentence; it is never
predicted and no n-gram crosses it.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.memory_maps import release
from models.ngram.external_sort import (
    ExternalSortConfig,
    GrowingArray,
    OpenFile,
    SortedRuns,
    scratch_files,
)
from models.ngram.keys import BEGIN, ByteKeys, IntegerKeys, Integers, Keys, keys_for

UNKNOWN = -1
"""The symbol of a token that the training text lacks; also the rank of an n-gram it lacks."""
COUNT = np.dtype(np.int32)
MAX_TOKENS = 2**31 - 1
KEYS_IN_MEMORY = 1 << 22
"""Places whose n-grams are sorted at once where no memory is stated."""
BYTES_PER_ROW = 16
"""Of a table."""


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

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All that it holds."""
        return self.keys, self.counts, self.num_left

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


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A text as symbols, with a mark where each sentence begins; read a part at a time."""

    tokens: NDArray[np.integer]
    """(N,) ids, all with a symbol."""
    symbol_of: Integers
    """(V,) the symbol of every id."""
    sentence_end: int | None
    """The id after which a sentence begins; None takes the text as one sentence."""

    def symbols(self, first: int, end: int) -> Integers:
        """The symbols of tokens[first:end], each beginning of a sentence with its mark."""
        starts = self._starts(first, end)
        return np.insert(self.symbol_of[self.tokens[first:end]], starts, BEGIN)

    def places(self, first: int, end: int, order: int) -> Integers:
        """The symbols of tokens[first:end], and the order - 1 that follow or BEGIN for lack of any.

        So as many n-grams of that order start in it as it has tokens and marks.
        """
        num_places = end - first + len(self._starts(first, end))
        padded = np.full(num_places + order - 1, BEGIN, np.int64)
        symbols = self.symbols(first, min(end + order - 1, len(self.tokens)))[: len(padded)]
        padded[: len(symbols)] = symbols
        return padded

    def _starts(self, first: int, end: int) -> Integers:
        """Which of tokens[first:end] begin a sentence, counted from first."""
        if self.sentence_end is None:
            return np.zeros(int(first == 0 < end), np.int64)
        before = self.tokens[max(first - 1, 0) : end - 1] == self.sentence_end
        return np.flatnonzero(np.append(True, before) if first == 0 else before)


def count_ngrams(
    text: MarkedText, num_symbols: int, order: int, spill: ExternalSortConfig | None = None
) -> list[NgramTable]:
    """Tables of orders 1 to `order`; orders that the text is too short for have empty ones.

    With `spill`, what does not fit its memory goes to disk, and the tables are then mapped from
    there; the numbers are the same. Raises OSError when that disk is full.
    """
    if len(text.tokens) > MAX_TOKENS:
        raise ValueError(f"at most {MAX_TOKENS} tokens can be counted, got {len(text.tokens)}")
    keys = keys_for(num_symbols, order)
    if spill is not None and _most_bytes(text, keys) <= spill.memory_bytes:
        spill = None
    at_once = _keys_at_once(keys, spill)
    with scratch_files(spill) as open_file:
        longest = SortedRuns(keys.dtype, at_once, open_file, "quicksort")
        tokens_at_once = max(1, at_once if text.sentence_end is None else at_once // 2)
        for first in range(0, len(text.tokens), tokens_at_once):
            end = min(first + tokens_at_once, len(text.tokens))
            longest.add(keys.spell(text.places(first, end, order)))
            release(text.tokens)
        # Where memory is scarce, the orders, whose endings wait side by side, share a part of it.
        waiting = at_once if spill is None else at_once // (2 * order)
        tables = [_GrowingTable(k, keys, waiting, open_file) for k in range(1, order + 1)]
        last = np.empty(0, keys.dtype)
        for block, counts in longest.blocks():
            _extend(tables, keys, num_symbols, np.append(last, block), counts)
            last = block[-1:]
        for below, above in pairwise(tables):
            below.count_left_neighbours(above)
        return [table.finished() for table in tables]


def _keys_at_once(keys: IntegerKeys | ByteKeys, spill: ExternalSortConfig | None) -> int:
    return KEYS_IN_MEMORY if spill is None else spill.memory_bytes // _bytes_per_key(keys)


def _bytes_per_key(keys: IntegerKeys | ByteKeys) -> int:
    """What counting takes for each key at the peak; 48 bytes were measured for integers."""
    return 56 * -(-keys.dtype.itemsize // 8)


def _most_bytes(text: MarkedText, keys: IntegerKeys | ByteKeys) -> int:
    """What counting a text in memory takes, were all its n-grams of all orders different."""
    num_places = len(text.tokens) * (1 if text.sentence_end is None else 2)
    return num_places * (_bytes_per_key(keys) + keys.order * BYTES_PER_ROW)


def _extend(
    tables: "list[_GrowingTable]",
    spelling: IntegerKeys | ByteKeys,
    num_symbols: int,
    block: Keys,
    counts: Integers,
) -> None:
    """Add the n-grams of all orders that a block of sorted keys begins with.

    block: the keys, (n,), but for the first block after the last key of the one before. counts:
    (n,) or (n - 1,), of the keys that are new.
    """
    is_new = np.zeros(len(block), bool)
    is_new[0] = len(counts) == len(block)
    counts = counts if is_new[0] else np.append(0, counts)
    ranks = np.zeros(len(block), np.int64)
    for position, table in enumerate(tables):
        column = spelling.column(block, position)
        is_new[1:] |= column[1:] != column[:-1]
        exists = (column != BEGIN) if position else np.ones(len(block), bool)
        starts = np.flatnonzero(is_new & exists)
        keys = ranks[starts] * num_symbols + column[starts]
        ranks = np.cumsum(is_new & exists) + (table.num_grams - 1)
        table.extend(keys, np.where(exists, counts, 0), starts)
        table.add_endings(block[starts])


class _GrowingTable:
    """The table of one order, as it grows with every block of sorted n-grams."""

    def __init__(
        self,
        order: int,
        spelling: IntegerKeys | ByteKeys,
        endings_at_once: int,
        open_file: OpenFile | None,
    ) -> None:
        self._order, self._spelling = order, spelling
        self._keys = GrowingArray(np.dtype(np.int64), open_file)
        self._counts = GrowingArray(COUNT, open_file)
        self._num_left = GrowingArray(COUNT, open_file)
        self._open_count = 0  # of the last n-gram, which the next block may continue
        dtype = spelling.ending_dtype(order)
        self._endings = SortedRuns(dtype, endings_at_once, open_file, "stable")

    @property
    def num_grams(self) -> int:
        """How many n-grams there are so far."""
        return len(self._keys)

    def extend(self, keys: Integers, counts: Integers, starts: Integers) -> None:
        """Add n-grams, (m,), that start at the places `starts` of a block with these counts, (n,).

        What comes before the first start belongs to the last n-gram that was added before.
        """
        self._open_count += int(counts[: starts[0] if len(starts) else None].sum())
        if len(starts) == 0:
            return
        if self.num_grams:
            self._counts.append(np.array([self._open_count]))
        sums = np.add.reduceat(counts, starts)
        self._counts.append(sums[:-1])
        self._open_count = int(sums[-1])
        self._keys.append(keys)

    def add_endings(self, grams: Keys) -> None:
        """Note what new n-grams end with, and which of them have no left neighbour.

        These are the ones that begin a sentence; in the highest order nobody asks.
        """
        is_highest = self._order == self._spelling.order
        begin = self._spelling.column(grams, 0) == BEGIN
        self._num_left.append(np.zeros(len(grams) if is_highest else begin.sum(), COUNT))
        if self._order > 1:
            self._endings.add(self._spelling.without_first(grams, self._order))

    def count_left_neighbours(self, longer: "_GrowingTable") -> None:
        """Each distinct longer n-gram is one left neighbour of the n-gram it ends with.

        In sorted order, what begins a sentence comes first.
        """
        for _, counts in longer._endings.blocks():
            self._num_left.append(counts)

    def finished(self) -> NgramTable:
        """The table, when all blocks and all left neighbours are in."""
        if self.num_grams:
            self._counts.append(np.array([self._open_count]))
            self._open_count = 0
        return NgramTable(self._keys.finished(), self._counts.finished(), self._num_left.finished())
