"""N-grams as keys that sort in the order of their symbols.

A key is an integer of 64 bits where that suffices, else a string of bytes. It holds the symbols of
an n-gram of the highest order. So the n-grams of every lower order are the distinct beginnings of
sorted keys, and one sort finds all orders. Where a sentence ends before the n-gram does, BEGIN
fills it up: a whole n-gram holds BEGIN nowhere but in front.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Keys = NDArray[Any]
"""Of np.int64, or of np.bytes_."""
BEGIN = 0
"""The symbol before the first token of every sentence."""


@dataclass(frozen=True, slots=True)
class IntegerKeys:
    """The symbols are the digits of one number, the first the highest, to the base num_symbols."""

    order: int
    num_symbols: int

    @property
    def dtype(self) -> np.dtype[np.int64]:
        """Of keys."""
        return np.dtype(np.int64)

    def ending_dtype(self, length: int) -> np.dtype[np.int64]:
        """Of what `without_first` returns."""
        return self.dtype

    def spell(self, symbols: Integers) -> NDArray[np.int64]:
        """The keys of the n-grams at all places: (n + order - 1,) symbols to (n,) keys."""
        num_places = len(symbols) - self.order + 1
        return _spelled(_columns(symbols, self.order), self.num_symbols, num_places)

    def column(self, keys: Keys, position: int) -> Integers:
        """The symbols at one position, counted from 0, of all keys: (n,)."""
        return self._last_digits(self._beginnings(keys, position + 1), 1)

    def without_first(self, keys: Keys, length: int) -> Keys:
        """Keys of the symbols 1 to length - 1 alone, to be sorted among each other: (n,)."""
        return self._last_digits(self._beginnings(keys, length), length - 1)

    def _beginnings(self, keys: Keys, length: int) -> Integers:
        beginnings: Integers = keys // self.num_symbols ** (self.order - length)
        return beginnings

    def _last_digits(self, numbers: Integers, length: int) -> Integers:
        power = self.num_symbols**length
        digits: Integers = numbers - numbers // power * power  # remainders take NumPy longer
        return digits


@dataclass(frozen=True, slots=True)
class ByteKeys:
    """The symbols one after the other as big-endian numbers, which compare like strings."""

    order: int
    num_symbols: int
    symbol_dtype: np.dtype[np.unsignedinteger]

    @property
    def dtype(self) -> np.dtype[np.bytes_]:
        """Of keys: strings of as many bytes as an n-gram of the highest order takes."""
        return self._string(self.order)

    def ending_dtype(self, length: int) -> np.dtype[Any]:
        """Of what `without_first` returns: integers where they suffice, as they sort faster."""
        is_short = _fits(self.num_symbols, length - 1)
        return np.dtype(np.int64) if is_short else self._string(length - 1)

    def spell(self, symbols: Integers) -> NDArray[np.bytes_]:
        """The keys of the n-grams at all places: (n + order - 1,) symbols to (n,) keys."""
        spelled = np.empty((len(symbols) - self.order + 1, self.order), self.symbol_dtype)
        for position, column in enumerate(_columns(symbols, self.order)):
            spelled[:, position] = column
        return self._strings(spelled)

    def column(self, keys: Keys, position: int) -> Integers:
        """The symbols at one position, counted from 0, of all keys: (n,)."""
        return self._matrix(keys)[:, position].astype(np.int64)

    def without_first(self, keys: Keys, length: int) -> Keys:
        """Keys of the symbols 1 to length - 1 alone, to be sorted among each other: (n,)."""
        endings = self._matrix(keys)[:, 1:length]
        if not _fits(self.num_symbols, length - 1):
            return self._strings(np.ascontiguousarray(endings))
        return _spelled(endings.T, self.num_symbols, len(keys))

    def _matrix(self, keys: Keys) -> NDArray[np.unsignedinteger]:
        matrix: NDArray[np.unsignedinteger] = keys.view(self.symbol_dtype)
        return matrix.reshape(len(keys), self.order)

    def _strings(self, matrix: NDArray[np.unsignedinteger]) -> NDArray[np.bytes_]:
        return matrix.reshape(-1).view(self._string(matrix.shape[1]))

    def _string(self, length: int) -> np.dtype[np.bytes_]:
        return np.dtype(f"S{length * self.symbol_dtype.itemsize}")


def keys_for(num_symbols: int, order: int) -> IntegerKeys | ByteKeys:
    """The fastest keys that n-grams of `order` symbols in 0 to num_symbols - 1 fit into."""
    if _fits(num_symbols, order):
        return IntegerKeys(order, num_symbols)
    bits = (num_symbols - 1).bit_length()
    dtype = np.dtype(">u1" if bits <= 8 else ">u2" if bits <= 16 else ">u4")
    return ByteKeys(order, num_symbols, dtype)


def _fits(num_symbols: int, length: int) -> bool:
    return bool(num_symbols**length < 2**63)


def _spelled(columns: Iterable[Integers], num_symbols: int, num_keys: int) -> NDArray[np.int64]:
    """Symbols as the digits of one number."""
    numbers = np.zeros(num_keys, np.int64)
    for column in columns:
        numbers *= num_symbols
        numbers += column
    return numbers


def _columns(symbols: Integers, order: int) -> Iterator[Integers]:
    """The symbols at each position of the n-grams at all places, cut off at the sentence's end."""
    num_places = len(symbols) - order + 1
    begins = np.flatnonzero(symbols[1:] == BEGIN) + 1
    is_cut = len(begins) and symbols[begins[0] :].any()  # not only where the text ends
    goes_on = np.ones(num_places, bool)
    for position in range(order):
        column = symbols[position : position + num_places]
        if is_cut and position:
            goes_on &= column != BEGIN
            column = column * goes_on
        yield column
