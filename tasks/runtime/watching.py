"""What goes on at this moment, told to whoever watches: a terminal with bars, or nobody.

Apart from `tasks.runtime.progress`, whose import of Prefect takes a second.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How far one piece of work is."""

    what: str
    done: int
    total: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Such as its losses; none where nothing new was measured."""


class Watcher(Protocol):
    """Shows what goes on; its methods are called often, from any thread, and must return soon."""

    def began(self, what: str) -> None:
        """A piece of work began, whose length is not known."""

    def moved(self, reading: Reading) -> None:
        """A piece of work is so far."""

    def ended(self, what: str) -> None:
        """A piece of work ended, well or not; it may never have been told of."""


_watchers: list[Watcher] = []


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Tell a watcher what goes on in this process while the block runs."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def is_watched() -> bool:
    """Whether somebody sees what `moved` tells, so that lines of progress would be noise."""
    return bool(_watchers)


def began(what: str) -> None:
    """Tell that a piece of work began."""
    for watcher in _watchers:
        watcher.began(what)


@contextmanager
def underway(what: str) -> Iterator[None]:
    """Tell that a piece of work goes on while the block runs."""
    began(what)
    try:
        yield
    finally:
        ended(what)


def moved(reading: Reading) -> None:
    """Tell how far a piece of work is."""
    for watcher in _watchers:
        watcher.moved(reading)


def ended(what: str) -> None:
    """Tell that a piece of work ended."""
    for watcher in _watchers:
        watcher.ended(what)
