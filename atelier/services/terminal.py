"""What a command says while it works: lines, bars above which lines go by, or nothing.

`atelier/services/logging.yml` sends the lines of the log here.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING

from tasks.runtime import watching
from tasks.runtime.markup import PlainFormatter, plain_lines
from tasks.runtime.watching import Reading

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task, TaskID

_LOGGER = "atelier"
DRAWINGS_A_SECOND = 5
SECONDS_OF_SPEED = 20.0
"""The time left is estimated from so much of the past."""


class _Voice:
    """Where lines go now; one for the process, as its standard output is."""

    def __init__(self) -> None:
        self.is_quiet = False
        self.console: Console | None = None


_voice = _Voice()


@contextmanager
def quiet_if(is_quiet: bool) -> Iterator[None]:
    """Keep to results and errors while the block runs, if that was asked for."""
    before, _voice.is_quiet = _voice.is_quiet, is_quiet
    try:
        yield
    finally:
        _voice.is_quiet = before


def say(line: str) -> None:
    """One line for a person who watches; nothing where a command was told to be quiet."""
    if _voice.is_quiet:
        return
    if (console := _voice.console) is not None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


class LineHandler(logging.Handler):
    """The lines of the log, said."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say one."""
        try:
            say(self.format(record))
        except BrokenPipeError:  # nobody reads any more; the work goes on, as `nohup` would have it
            pass
        except Exception:
            self.handleError(record)


@contextmanager
def heard() -> Iterator[None]:
    """Say the lines of the log while the block runs, as `atelier/services/logging.yml` has it.

    Prefect reads that file, and takes seconds to import: where it is imported, before or meanwhile,
    its handlers say them.
    """
    logger = logging.getLogger(_LOGGER)
    if logger.handlers:
        yield
        return
    handler, level = LineHandler(), logger.level
    handler.setFormatter(PlainFormatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: record.name == _LOGGER)  # not what is for pages alone
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        if handler in logger.handlers:
            logger.removeHandler(handler)
            logger.setLevel(level)


def has_a_watcher() -> bool:
    """Whether a person sees standard output who can be shown bars."""
    is_simple = os.environ.get("TERM", "dumb") in ("dumb", "unknown") or "CI" in os.environ
    return sys.stdout.isatty() and not is_simple and not _voice.is_quiet


@contextmanager
def live() -> Iterator[None]:
    """Show bars below the lines while the block runs, where a person watches."""
    if not has_a_watcher() or _voice.console is not None:
        yield
        return
    from rich.console import Console  # a tenth of a second, for those alone who see it

    class Steady(Console):
        """Keeps the cursor: a process that is killed could not bring it back."""

        def show_cursor(self, show: bool = True) -> bool:
            return False

    console = Steady(highlight=False, emoji=False)
    rows = Rows(console)
    with rows.progress, watching.watched_by(rows):
        _voice.console = console
        try:
            yield
        finally:
            _voice.console = None


MIN_BAR, MAX_BAR = 8, 24
"""Columns of a bar: the narrower the terminal, the shorter it is."""


class Rows:
    """A row for all that goes on: a bar where its length is known, else how long it has taken.

    Implements `tasks.runtime.watching.Watcher`.
    """

    def __init__(self, console: "Console") -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column
        from rich.text import Text

        class Elapsed(TimeElapsedColumn):
            """Where no end is known; elsewhere the room is for what is told."""

            def render(self, task: "Task") -> Text:
                return super().render(task) if task.total is None else Text()

        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=MAX_BAR),
            TextColumn("{task.fields[told]}", markup=False, table_column=Column(no_wrap=True)),
            Elapsed(),
            console=console,
            refresh_per_second=DRAWINGS_A_SECOND,
            transient=True,  # a finished piece of work has its line
            speed_estimate_period=SECONDS_OF_SPEED,
        )
        self._bars: dict[str, TaskID] = {}
        self._numbers: dict[str, list[str]] = {}
        self._others: dict[str, TaskID] = {}
        self._lock = RLock()  # a signal's handler may come back here

    def began(self, what: str) -> None:
        """See `Watcher`."""
        with self._lock:
            if what not in self._others:
                self._others[what] = self.progress.add_task(
                    plain_lines(what), total=None, told="", visible=not self._bars
                )

    def moved(self, reading: Reading) -> None:
        """See `Watcher`."""
        what = reading.what
        with self._lock:
            if what not in self._bars:
                self._bars[what] = self.progress.add_task(
                    plain_lines(what), total=reading.total, completed=reading.done, told=""
                )
                self._show_others(False)
            row = self._bars[what]
            self.progress.update(row, completed=reading.done)
            if reading.numbers:
                pairs = [f"{name} {value:.4g}" for name, value in reading.numbers.items()]
                self._numbers[what] = pairs
            speed = next(task.speed for task in self.progress.tasks if task.id == row)
            told = [f"{reading.done}/{reading.total}"]
            if speed:
                told += [f"{speed:.3g}/s", f"{(reading.total - reading.done) / speed:.0f} s left"]
            self.progress.update(row, told=self._fitting([*told, *self._numbers.get(what, [])]))

    def ended(self, what: str) -> None:
        """See `Watcher`."""
        with self._lock:
            self._numbers.pop(what, None)
            for rows in (self._bars, self._others):
                if (row := rows.pop(what, None)) is not None:
                    self.progress.remove_task(row)
            if not self._bars:
                self._show_others(True)

    def _fitting(self, told: list[str]) -> str:
        """As much of it as stands beside a short bar; the last comes off first, as a whole.

        The table takes what it lacks from the bar, and what it still lacks from every column.
        """
        from rich.cells import cell_len

        names = [task.description for task in self.progress.tasks if task.visible]
        taken = max(map(cell_len, names), default=0) + MIN_BAR + len("  ") + 1
        room = self.progress.console.width - taken
        while len(told) > 1 and cell_len("  ".join(told)) > room:
            told = told[:-1]
        return "  ".join(told)

    def _show_others(self, is_visible: bool) -> None:
        for row in self._others.values():
            self.progress.update(row, visible=is_visible)
