"""Tables in the terminal."""

from collections.abc import Sequence

from tasks.runtime.markup import plain


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows of equally many cells, in columns."""
    print("\n".join(table_lines(rows)))


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of such a table."""
    shown = [list(map(plain, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
