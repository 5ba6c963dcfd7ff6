"""Numbers about token models and the text they write.

A text is a string or a sequence of integers (tokens, bytes); its symbols are characters or those
integers. Everything is exact: windows are compared by numbers that name them without collisions,
built by doubling (Karp, Miller and Rosenberg 1972), not by hashes.

References: Li et al. 2016 (distinct-n).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Text: TypeAlias = str | Sequence[int] | NDArray[Any] | Tensor
Symbols: TypeAlias = NDArray[Any]  # of any integer type: one per character or token
Names: TypeAlias = NDArray[np.int32]  # one per window of a text

SYMBOLS_AT_ONCE = 2**20
"""Windows of the training text named at one time: bounds memory, changes no number."""


class CopiedSpan(NamedTuple):
    """A span that two texts share: its length in symbols and where it begins in each."""

    length: int
    generated_start: int
    training_start: int


def bits_per_byte(total_nats: float, num_bytes: int) -> float:
    """Cross-entropy of a text in bits per byte of its UTF-8 form: nats / (log 2 * bytes).

    The yardstick that does not depend on the vocabulary: sum the nats over every token of the
    text, divide by the bytes that those tokens spell. Never average per-token numbers first.
    Raises ValueError unless num_bytes is positive and total_nats is 0 or more.
    """
    if num_bytes < 1:
        raise ValueError(f"num_bytes must be at least 1, got {num_bytes}")
    if not total_nats >= 0:
        raise ValueError(f"total_nats must be 0 or more, got {total_nats}")
    return total_nats / (math.log(2) * num_bytes)


def distinct_n(tokens: Text, n: int) -> float:
    """Distinct n-grams of a text over all its n-grams: 1 never repeats, near 0 loops.

    Falls with the length of the text: compare equal lengths, and beside a real text.
    1 - distinct_n is the repetition rate "seq-rep-n" of Welleck et al. 2020.
    Source: Li et al. 2016. Raises ValueError if the text is shorter than n.
    """
    symbols = _symbols(tokens, "tokens", n)
    names = _named_windows(symbols, symbols, n)[0]
    return len(np.unique(names)) / len(names)


def novel_ngram_share(generated: Text, training: Text, n: int) -> float:
    """Share of the generated text's n-grams that occur nowhere in the training text.

    Every occurrence counts. Read beside the share of a held-out real text of the same length: a
    model that copies lies below it, one that babbles above.
    Raises ValueError if the generated text is shorter than n or the training text empty.
    """
    return 1 - float(known_ngrams(generated, training, n).mean())


def known_ngrams(generated: Text, training: Text, n: int) -> NDArray[np.bool_]:
    """Which of the generated text's n-grams, by where they begin, occur in the training text.

    Of a long training text it may be asked part by part, if neighbours share n - 1 symbols.
    Raises ValueError if the generated text is shorter than n or the training text empty.
    """
    made = _symbols(generated, "generated", n)
    known = _symbols(training, "training", 1)
    names, seen = _named_windows(made, known, n)
    return _shared(names, seen)


def longest_copied_span(generated: Text, training: Text) -> CopiedSpan:
    """The longest span of the generated text that also stands in the training text.

    The first such span in the generated text, at its first place in the training text; length 0 at
    (0, 0) if they share no symbol. Grows with both lengths by chance (about the logarithm of their
    product): read beside the span of a held-out real text. Time grows like the training text times
    the logarithm of the span (1 MB: a fraction of a second), memory like 12 bytes per symbol.
    Raises ValueError if either text is empty.
    """
    made = _symbols(generated, "generated", 1)
    known = _symbols(training, "training", 1)
    width, names, seen = 1, *_first_names(made, known)
    if not _shared(names, seen).any():
        return CopiedSpan(0, 0, 0)
    while True:  # double the width while some window of that width is shared
        wider = _joined(names, seen, width)
        if not _shared(*wider).any():
            break
        width, (names, seen) = 2 * width, wider
    low, high = 0, width  # width + low is shared, width + high is not
    while high - low > 1:
        middle = (low + high) // 2
        if _shared(*_joined(names, seen, middle)).any():
            low = middle
        else:
            high = middle
    names, seen = _joined(names, seen, low)
    start = int(_shared(names, seen).argmax())
    return CopiedSpan(width + low, start, int((seen == names[start]).argmax()))


def _named_windows(generated: Symbols, training: Symbols, n: int) -> tuple[Names, Names]:
    """A number for every window of n symbols, equal where the windows are equal.

    Windows of the training text that the generated one does not hold are all -1.
    """
    width, names, seen = 1, *_first_names(generated, training)
    while width < n:
        step = min(width, n - width)
        names, seen = _joined(names, seen, step)
        width += step
    return names, seen


def _first_names(generated: Symbols, training: Symbols) -> tuple[Names, Names]:
    alphabet, names = np.unique(generated, return_inverse=True)
    seen = np.empty(len(training), dtype=np.int32)
    for start in range(0, len(training), SYMBOLS_AT_ONCE):
        some = slice(start, start + SYMBOLS_AT_ONCE)
        seen[some] = _found(training[some], alphabet)
    return names.astype(np.int32), seen


def _joined(names: Names, seen: Names, step: int) -> tuple[Names, Names]:
    """Names of windows that are `step` longer: two windows of the old width, `step` apart."""
    if step == 0:
        return names, seen
    count = np.int64(names.max(initial=0)) + 1
    pairs, longer = np.unique(names[:-step] * count + names[step:], return_inverse=True)
    first, second = seen[:-step], seen[step:]
    joined = np.full(len(first), -1, dtype=np.int32)
    for start in range(0, len(first), SYMBOLS_AT_ONCE):
        some = slice(start, start + SYMBOLS_AT_ONCE)
        alive = start + np.flatnonzero((first[some] >= 0) & (second[some] >= 0))
        joined[alive] = _found(first[alive] * count + second[alive], pairs)
    return longer.astype(np.int32), joined


def _found(values: NDArray[Any], known: NDArray[Any]) -> Names:
    """The place of each value in sorted `known`, or -1."""
    if not len(known):
        return np.full(len(values), -1, dtype=np.int32)
    places = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[places] == values, places, -1).astype(np.int32)


def _shared(names: Names, seen: Names) -> NDArray[np.bool_]:
    """Which windows of the generated text the training text holds."""
    present = np.zeros(int(names.max(initial=-1)) + 1, dtype=np.bool_)
    for start in range(0, len(seen), SYMBOLS_AT_ONCE):
        part = seen[start : start + SYMBOLS_AT_ONCE]
        present[part[part >= 0]] = True
    return present[names]


def _symbols(text: Text, name: str, least: int) -> Symbols:
    """A text as integers, checked to have at least so many."""
    if least < 1:
        raise ValueError(f"n must be at least 1, got {least}")
    if isinstance(text, str):
        # surrogatepass: a character model may write half of a surrogate pair
        encoded = text.encode("utf-32-le", "surrogatepass")
        symbols = np.frombuffer(encoded, dtype="<u4")
    else:
        symbols = text.detach().cpu().numpy() if isinstance(text, Tensor) else np.asarray(text)
        if symbols.ndim != 1 or (symbols.size and symbols.dtype.kind not in "iu"):
            raise ValueError(
                f"{name} must be a string or one sequence of integers, got {symbols.dtype} of"
                f" shape {symbols.shape}"
            )
    if len(symbols) < least:
        raise ValueError(f"{name} has {len(symbols)} symbols, wanted at least {least}")
    return symbols
