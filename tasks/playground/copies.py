"""Which parts of a written text stand in the training text."""

from collections.abc import Iterable, Iterator

import numpy as np

from models.metrics.text import known_ngrams

MIN_CHARACTERS = 16
"""What is shorter, a text of another author shares with any large text."""
_CHARACTERS_AT_ONCE = 1 << 20
Span = tuple[int, int]
"""Where it begins, and how long it is, in characters."""


def copied_spans(text: str, training: Iterable[str]) -> list[Span]:
    """The longest spans of a text that stand in another one, each within no other: in order.

    training: in pieces, for it may be larger than memory. Only spans of MIN_CHARACTERS and more.
    """
    if len(text) < MIN_CHARACTERS:
        return []
    longest = np.zeros(len(text), np.int64)  # that begins here
    for part in _overlapping(training, len(text)):
        if len(part) >= MIN_CHARACTERS:
            longest = np.maximum(longest, _longest_in(part, text))
    spans, end = [], 0
    for start in np.flatnonzero(longest).tolist():
        if start + longest[start] > end:
            end = start + int(longest[start])
            spans.append((start, end - start))
    return spans


def _longest_in(part: str, text: str) -> np.ndarray:
    """For each place of a text, how long the longest span is that begins there and stands in part.

    0 for what is too short to count.
    """
    found = np.zeros(len(text), np.int64)
    for start in np.flatnonzero(known_ngrams(text, part, MIN_CHARACTERS)).tolist():
        length = max(MIN_CHARACTERS, int(found[start - 1]) - 1 if start else 0)
        place = part.find(text[start : start + length])
        while place >= 0:
            while (
                text[start + length : start + length + 1]
                == part[place + length : place + length + 1]
                != ""
            ):
                length += 1
            found[start] = length
            if start + length == len(text):
                break
            length += 1
            place = part.find(text[start : start + length], place + 1)
    return found


def _overlapping(pieces: Iterable[str], overlap: int) -> Iterator[str]:
    """A text in parts, such that every span of `overlap` characters lies within one of them."""
    waiting = ""
    for piece in pieces:
        waiting += piece
        if len(waiting) >= _CHARACTERS_AT_ONCE + overlap:
            yield waiting
            waiting = waiting[-overlap:]
    yield waiting
