"""The voice of tasks: log lines and live progress, for the terminal and the Prefect UI at once.

Lines go to the logger "atelier"; atelier/services/logging.yml sends it to both. Outside a Prefect
run, as in tests, nothing but the line itself happens. Prefect takes seconds to import: a command
that is no run does so for none of this.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast
from uuid import UUID

from tasks.runtime import watching
from tasks.runtime.markup import plain

Item = TypeVar("Item")

_logger = logging.getLogger("atelier")
_page_logger = logging.getLogger("atelier.pages")

SECONDS_BETWEEN_REPORTS = 5.0
SECONDS_BETWEEN_MOVES = 0.1
SECONDS_FOR_THE_LAST_WORD = 5.0
WAITS_FOR_PREFECT = (2.0, 6.0, 16.0, 32.0, 64.0)
"""Seconds between the attempts to show something: two minutes in all."""


def log(message: str) -> None:
    """One line for a person: what happened, with its numbers."""
    _logger.info(plain(message))


def log_on_page(message: str) -> None:
    """One line for the page of the flow run; the terminal has heard it from a step already."""
    _page_logger.info(plain(message))


def in_task_run() -> bool:
    """Whether Prefect is running the current task, so that artifacts have a place to go."""
    context = sys.modules.get("prefect.context")  # what nobody has imported runs nothing
    return context is not None and context.TaskRunContext.get() is not None


def show(what: str, create: Callable[[], object]) -> None:
    """Show something of the current task in the Prefect UI; outside a Prefect run, nothing.

    what: what is shown, in two or three words; create: makes the artifact.
    While the server is away this waits for it, two minutes, or as long as Prefect's client itself
    tries once. Then a line says what is not shown, and the work goes on: hours of it must not fail
    over a picture. Any other error is raised.
    """
    if not in_task_run():
        return
    from tasks.runtime.retries import is_prefect_away

    began = time.monotonic()
    for wait in (*WAITS_FOR_PREFECT, None):
        try:
            create()
            return
        except Exception as error:
            if not is_prefect_away(error):
                raise
            if wait is None or time.monotonic() - began >= sum(WAITS_FOR_PREFECT):
                log(f"{what}: not shown in Prefect, which is away: {type(error).__name__}")
                return
        time.sleep(wait)


class Progress:
    """Progress of one long step, reported at most every few seconds.

    what: the step in two or three words; total: how many units make it complete; done: how many
    were done before; started_at: by time.monotonic(), None for now.
    """

    def __init__(
        self, what: str, total: int, done: int = 0, started_at: float | None = None
    ) -> None:
        self.what = what
        self.total = total
        self._first = done
        self._reported_at = time.monotonic()
        self._started_at = self._reported_at if started_at is None else started_at
        self._is_complete = False
        self._moved_at = 0.0
        self._artifact: UUID | None = None
        self._sender = threading.Thread()
        if in_task_run():
            self._create(100.0 * done / total)

    def advance(self, done: int) -> None:
        """Move the bar of a person who watches; without one, and most times, this is free."""
        if watching.is_watched():
            now = time.monotonic()
            if now - self._moved_at >= SECONDS_BETWEEN_MOVES:
                self._moved_at = now
                watching.moved(watching.Reading(what=self.what, done=done, total=self.total))

    def close(self) -> None:
        """The step goes on no more, complete or not."""
        watching.ended(self.what)

    def is_due(self) -> bool:
        """Whether the last report is old enough for another."""
        return time.monotonic() - self._reported_at >= SECONDS_BETWEEN_REPORTS

    def report(self, done: int, numbers: dict[str, float]) -> None:
        """Say how far the step is, its numbers, and the time left at the speed so far.

        That it is complete is said once.
        """
        if self._is_complete:
            return
        self._is_complete = done == self.total
        self._reported_at = time.monotonic()
        elapsed = self._reported_at - self._started_at
        left = elapsed / max(1, done - self._first) * (self.total - done)
        shown = [f"{name} {value:.4g}" for name, value in numbers.items()]
        ahead = f"{left:.0f} s left" if done < self.total else f"done in {elapsed:.0f} s"
        message = "  ".join([f"{self.what}: {done}/{self.total}", *shown, ahead])
        if watching.is_watched() and not self._is_complete:
            watching.moved(
                watching.Reading(what=self.what, done=done, total=self.total, numbers=numbers)
            )
            log_on_page(message)
        else:
            log(message)
        if self._artifact is None:
            return
        if self._is_complete and self._sender.is_alive():
            self._sender.join(SECONDS_FOR_THE_LAST_WORD)
        if not self._sender.is_alive():  # else the server is slow: the next report tells more
            self._sender = threading.Thread(
                target=self._update, args=(100.0 * done / self.total, message), daemon=True
            )
            self._sender.start()
        if self._is_complete:
            self._sender.join(SECONDS_FOR_THE_LAST_WORD)

    def _create(self, percent: float) -> None:
        from prefect.artifacts import create_progress_artifact

        try:
            made = create_progress_artifact(percent, description=f"{self.what}: starting")
            self._artifact = cast(UUID, made)
        except Exception as error:  # whatever it is: the work itself needs no picture of itself
            log(f"{self.what}: Prefect does not show the progress: {type(error).__name__}")

    def _update(self, percent: float, message: str) -> None:
        """Runs in a thread, because training must not wait for a server that is slow or away."""
        from prefect.artifacts import update_progress_artifact

        try:
            update_progress_artifact(
                cast(UUID, self._artifact), progress=percent, description=message
            )
        except Exception as error:
            _logger.debug("no progress shown: %s", error)


def with_progress(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Give items one by one; where that takes longer than some seconds, report how far it is."""
    began = time.monotonic()
    progress: Progress | None = None
    try:
        for index, item in enumerate(items):
            if progress is None:
                if index and time.monotonic() - began >= SECONDS_BETWEEN_REPORTS:
                    progress = Progress(what, len(items), started_at=began)
                    progress.report(index, {})
            elif progress.is_due():
                progress.report(index, {})
            else:
                progress.advance(index)
            yield item
        if progress is not None:
            progress.report(len(items), {})
    finally:
        if progress is not None:
            progress.close()
