"""What an error says, at a length that people read."""

import re

MAX_CHARACTERS = 400
MAX_OF_A_MESSAGE = 2000
"""Characters of what a command says at its end; what it was given may be longer than any page."""
MAX_OF_A_WORD = 400
"""Characters without a blank, as of a path, that are shown in full."""

_LONG_WORDS = re.compile(rf"\S{{{MAX_OF_A_WORD + 1},}}")


def one_line(error: BaseException) -> str:
    """An error's message: its first line, and where that only opens what follows, the next too.

    An error without words gives its class's name.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    said = lines[0]
    for line in lines[1:]:
        if not (said.endswith(":") or _counts_errors(said)):
            break
        said = f"{said} {line}"
    if said.endswith(":"):  # nothing followed
        said = said[:-1]
    return said if len(said) <= MAX_CHARACTERS else f"{said[: MAX_CHARACTERS - 4]} ..."


def shortened(message: str) -> str:
    """A message in which long values, and what is too much in all, lack their middle.

    Their ends stay: a path's last part, and what is to be done.
    """
    words = _LONG_WORDS.sub(lambda word: _without_middle(word[0], MAX_OF_A_WORD // 4), message)
    return _without_middle(words, MAX_OF_A_MESSAGE // 2) if len(words) > MAX_OF_A_MESSAGE else words


def _without_middle(text: str, kept: int) -> str:
    """kept: characters at each end."""
    return f"{text[:kept]}[... {len(text) - 2 * kept:,} characters ...]{text[-kept:]}"


def _counts_errors(said: str) -> bool:
    """Whether a line is pydantic's "1 validation error for Name", and perhaps the field's name."""
    _, is_there, rest = said.partition(" validation error")
    return bool(is_there) and len(rest.split()) <= 3
