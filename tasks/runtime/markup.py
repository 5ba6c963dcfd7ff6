"""Text from data, models and people, made harmless for the place that it goes to.

A file's name, a sample, a reason that somebody typed may hold anything: a fence's end, an image of
a foreign host, an escape sequence of a terminal. One function for each kind of place: Markdown
(MLflow's descriptions, Prefect's artifacts and forms), terminals and logs. The gallery's page
escapes by `html.escape`; templates escape by themselves (`tasks.runtime.templates`). Imports
nothing of ours.
"""

import logging
import re
import unicodedata
from collections.abc import Iterator

_MARKDOWN = frozenset("&<>[](){}*_`|#~!\\$:@^")
"""What can mean something in the middle of a line, in any of the dialects that our pages speak."""
_MARKDOWN_BEGINS = frozenset("+-=")
"""What can begin a list or a rule where it begins a line; a number and a dot can, too."""
WORD_JOINER = "\u2060"
_ADDRESSES = re.compile(r"(https?\\:|www)(//|\.)", re.IGNORECASE)
_JOINERS = frozenset("\u200c\u200d")
"""Unseen, and needed to write Persian, Hindi and families of emoji."""
_LINE_ENDS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_SHORTEST_FENCE = 4


def plain(text: object) -> str:
    r"""One line for a terminal or a log: what steers one is spelt out, as `\x1b`."""
    line = str(text)
    if line.isprintable():  # most are, and a table has ten thousand
        return line
    return "".join(map(_seen, _LINE_ENDS.sub(" ", line)))


def plain_lines(text: object) -> str:
    r"""The same of a text whose lines, tabs and indents stay."""
    return "".join(c if c in "\n\t" else _seen(c) for c in str(text))


def _seen(character: str) -> str:
    """A character that can be seen, or its number; directions of writing are unseen, too."""
    if character.isprintable() or character in _JOINERS:
        return character
    if unicodedata.category(character) == "Zs":
        return character
    return f"{character!a}".strip("'")


def markdown(text: object) -> str:
    """One line of Markdown for Prefect's pages that shows a text as it is, table cells included.

    By backslashes: Prefect's older pages show a character's number as it stands. The newer ones
    make links of bare addresses, unless something that nobody sees stands inside.
    """
    line = "".join(f"\\{c}" if is_odd else c for c, is_odd in _told_apart(text))
    return _ADDRESSES.sub(lambda found: f"{found[1]}{WORD_JOINER}{found[2]}", line)


def registry_markdown(text: object, max_characters: int | None = None) -> str:
    """The same for the registry's pages, whose dialect knows no backslash before `<`.

    max_characters: characters of the result at which the rest is cut off.
    """
    pieces: list[str] = []
    length = 0
    for character, is_odd in _told_apart(text):
        piece = f"&#{ord(character)};" if is_odd else character
        length += len(piece)
        if max_characters is not None and length > max_characters:
            return "".join(pieces) + "…"
        pieces.append(piece)
    return "".join(pieces)


def _told_apart(text: object) -> Iterator[tuple[str, bool]]:
    """Each character of a text, in one line, and whether it could mean something to Markdown."""
    line = plain(text).strip()
    for number, character in enumerate(line):
        begins = number == 0 and character in _MARKDOWN_BEGINS
        is_last = line[number + 1 : number + 2] in ("", " ")
        ends_a_number = character == "." and is_last and line[:number].isdecimal()
        yield character, character in _MARKDOWN or begins or ends_a_number


def fenced(text: object, language: str = "text") -> str:
    """A block of Markdown that shows a text line by line; no run of backticks inside closes it."""
    shown = plain_lines(str(text).replace("\r\n", "\n").replace("\r", "\n"))
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * max(_SHORTEST_FENCE, longest + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def code(text: object) -> str:
    """A span of code in a line of Markdown, which no run of backticks inside closes.

    Not for the cells of a table, where a bar ends the cell, unless the text can hold none.
    """
    shown = plain(text)
    runs = re.findall("`+", shown)
    fence = "`" * (max(map(len, runs), default=0) + 1)
    gap = " " if shown[:1] == "`" or shown[-1:] == "`" else ""
    return f"{fence}{gap}{shown}{gap}{fence}"


class PlainFormatter(logging.Formatter):
    """Lines of a log on a terminal; those of libraries quote what people and files gave them."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with a traceback if there is one."""
        return plain_lines(super().format(record))
