"""How a command ends when a person or the system stops it: Ctrl-C, SIGTERM, a closed terminal.

The first signal raises KeyboardInterrupt, so that whatever is open is closed. It may get lost on
its way up. Python drops one that is raised in a finalizer or in a callback of its garbage
collector: it is raised once more, by a signal. A library may swallow it, or make another error of
it: what runs for long asks `raise_if_stopped`, and whoever catches errors asks `stopped_by` first.
Prefect swallows one that comes while it closes a flow run inside another: see `unless_stopped`.
After some seconds, a second signal says that the closing takes a while, and a third ends the
process at once; what is then left open, the next command closes.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn, TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_CODE = 130
SECONDS_OF_ONE_STOP = 2.0
"""Signals that follow the first so soon, as from a key that is pressed twice, are the same stop."""
_SECONDS_UNTIL_RAISED_AGAIN = 0.05
"""By then Python has left the callback in which it dropped a stop."""
HOW_TO_GO_ON = (
    "stopped; finished steps and checkpoints are kept: run the same command again to go on"
)
_STILL_CLOSING = "still closing what is open; once more ends it at once"

Result = TypeVar("Result")


class _Stops:
    """The signals that came, and whether one has to wait."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self.first_at = 0.0
        self.is_deferred = False
        self.is_dropped = False


_stops = _Stops()


def listen() -> None:
    """Let every signal that asks for a stop do the same; one that is ignored stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    sys.unraisablehook = _unraisable


def leave(code: int) -> None:
    """The command is over: a signal while Python ends only makes it end at once."""
    for number in SIGNALS:
        if signal.getsignal(number) == _stop:
            signal.signal(number, lambda *_: os._exit(code))


def end_at_once() -> NoReturn:
    """End a stopped command that has nothing to close, whatever its threads still wait for."""
    say(HOW_TO_GO_ON)
    os._exit(EXIT_CODE)


def stopped_by() -> str:
    """The name of the signal that asked for a stop, such as SIGINT; or nothing."""
    return signal.Signals(_stops.came[0]).name if _stops.came else ""


def unless_stopped(result: Result) -> Result:
    """Pass on what a flow inside another returned, unless a stop was asked for meanwhile.

    Raises KeyboardInterrupt: Prefect swallows the one that comes when such a flow has its result
    and its run is being closed.
    """
    if _stops.came:
        _stops.is_dropped = False
        raise KeyboardInterrupt
    return result


def raise_if_stopped() -> None:
    """Raise KeyboardInterrupt where a stop was asked for, has not ended what runs, and may do so.

    For what runs long: a library may have swallowed the interrupt that the signal raised.
    """
    if not _stops.is_deferred:
        unless_stopped(None)


@contextmanager
def deferred() -> Iterator[None]:
    """Let a stop wait for the end of a block that must not be left half done."""
    _stops.is_deferred = True
    try:
        yield
    finally:
        _stops.is_deferred = False
    unless_stopped(None)


def _stop(number: int, _: FrameType | None) -> None:
    now = time.monotonic()
    if _stops.is_dropped:
        _stops.is_dropped = False
        raise_if_stopped()
        return
    if not _stops.came:
        _stops.came, _stops.first_at = [number], now
        if not _stops.is_deferred:
            raise KeyboardInterrupt
        return
    if now - _stops.first_at < SECONDS_OF_ONE_STOP:
        return
    _stops.came.append(number)
    if len(_stops.came) == 2:
        say(_STILL_CLOSING)
    else:
        end_at_once()


def _unraisable(dropped: "sys.UnraisableHookArgs") -> None:
    """Tell of an error that Python drops; a stop among them is raised again."""
    if not (issubclass(dropped.exc_type, KeyboardInterrupt) and _stops.came):
        sys.__unraisablehook__(dropped)
        return
    _stops.is_dropped = True
    again = threading.Timer(_SECONDS_UNTIL_RAISED_AGAIN, _raise_again, [_stops.came[0]])
    again.daemon = True
    again.start()


def _raise_again(number: int) -> None:
    """Send a signal to the main thread, which may wait for something, unless it has stopped."""
    if _stops.is_dropped:
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def say(message: str) -> None:
    """Write one line at once, even from within a signal; the terminal may be gone."""
    with suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"atelier: {message}\n".encode())
