"""A card, which is written in Markdown for the registry's page, as text for a terminal."""

import re
import textwrap
from collections.abc import Iterator
from html import unescape
from itertools import groupby

from atelier.cli.tables import table_lines
from tasks.runtime.markup import plain

BOLD, NORMAL = "\x1b[1m", "\x1b[0m"
_FENCE = re.compile(r"(`{3,})\w*")
_PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)]*)\)")
_STRONG = re.compile(r"\*\*(.+?)\*\*")
_CODE = re.compile(r"(`+) ?(.+?) ?\1")
_RULE = re.compile(r"\|[\s:|-]+\|")
_MARK = "\0"  # in no card: what `plain` would spell out


def readable_card(markdown: str, columns: int, *, has_styles: bool = False) -> str:
    """Tables in columns, paragraphs within a terminal's width, no pictures, no markup.

    columns: characters in a line; a table or a block of code keeps its own width. has_styles:
    whether what is strong is bold, by escape sequences. What the card itself holds steers nothing.
    """
    lines = list(_blocks(markdown, columns))
    text = re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
    begin, end = (BOLD, NORMAL) if has_styles else ("", "")
    return re.sub(f"{_MARK}(.*?){_MARK}", rf"{begin}\1{end}", text, flags=re.DOTALL)


def _blocks(markdown: str, columns: int) -> Iterator[str]:
    fence = ""
    for is_table, group in groupby(
        markdown.replace(_MARK, "").splitlines(), key=lambda line: line.startswith("|")
    ):
        lines = list(group)
        if is_table and not fence:
            rows = [_cells(line) for line in lines if not _RULE.fullmatch(line)]
            width = max(map(len, rows))
            yield from table_lines([[*row, *[""] * (width - len(row))] for row in rows])
            continue
        for line in lines:
            if fence:
                if line == fence:
                    fence = ""
                else:
                    yield f"    {plain(line)}"
            elif opened := _FENCE.fullmatch(line):
                fence = opened[1]
            else:
                yield from _paragraph(line, columns)


def _cells(line: str) -> list[str]:
    return [_words(cell).replace(_MARK, "") for cell in line.strip().strip("|").split("|")]


def _paragraph(line: str, columns: int) -> list[str]:
    """A line of Markdown is a paragraph, or an item of a list."""
    indent = "  " if line.startswith("* ") else ""
    return textwrap.wrap(
        _words(line), columns, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    ) or [""]  # fmt: skip


def _words(line: str) -> str:
    line = _LINK.sub(_address_told, _PICTURE.sub("", line))
    line = _CODE.sub(r"`\2`", line)
    parts = _STRONG.split(line)  # every second one is strong
    shown = [plain(unescape(part)) for part in parts]
    marked = [f"{_MARK}{p}{_MARK}" if number % 2 else p for number, p in enumerate(shown)]
    return "".join(marked).strip()


def _address_told(link: re.Match[str]) -> str:
    """An address that can be opened is told; one of a page on the same server is not."""
    return f"{link[1]} {link[2]}" if link[2].startswith("http") else link[1]
