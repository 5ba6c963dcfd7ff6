"""What somebody may have meant by a name that is not there."""

from collections.abc import Iterable
from difflib import get_close_matches

MAX_TOLD = 12


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that is most like a word, or nothing where none is like it."""
    return next(iter(get_close_matches(word[:200], list(known), n=1, cutoff=0.6)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a refusal: the nearest name if there is one, and a dozen of what there is."""
    names = sorted(known)
    found = nearest(word, names)
    hint = f" (did you mean {found}?)" if found else ""
    more = f" and {len(names) - MAX_TOLD} more" if len(names) > MAX_TOLD else ""
    return f"{hint}; there are: {', '.join(names[:MAX_TOLD]) or 'none'}{more}"
