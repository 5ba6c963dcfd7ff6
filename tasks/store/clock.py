"""What time it is, for decisions that a clock that somebody sets must not spoil.

Ages decide what is thrown away and which runs count as lost. When the clock jumps ahead, all that
exists looks old at once. So a home keeps, for the present start of the machine, how far the wall
clock is from the time that the machine has been up; a jump ahead is believed after an hour, one
back at once, since it makes things younger. What follows a restart is taken from the clock.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tasks.runtime.processes import seconds_up, this_start
from tasks.store.files import home, read_json, write_json

SECONDS_UNTIL_A_JUMP_IS_BELIEVED = 3600.0
SECONDS_OF_DRIFT = 2.0


@dataclass(frozen=True, slots=True)
class _Anchor:
    """The wall clock at the machine's start, as this home believes it."""

    start: str
    offset: float
    """Seconds since 1970 at which the machine started."""
    jumped_to: float | None = None
    """Such an offset that the clock has told since it jumped ahead, and is not believed yet."""
    seen_at: float = 0.0
    """At how many seconds of the machine's being up that was first seen."""


def steady_now() -> float:
    """Seconds since 1970, but for jumps ahead of the wall clock within the last hour.

    Reads and keeps `clock.json` in the home; where that cannot be written, the clock is believed
    as far as the file says.
    """
    told, up = time.time(), seconds_up()
    known = _read()
    anchor = _moved_on(known, told - up, up)
    if anchor != known:
        with suppress(OSError):
            write_json(_path(), anchor)
    return anchor.offset + up if anchor.start else told


def jump_ahead(now: float) -> float:
    """By how many seconds a clock that tells `now` is ahead of what is believed; only reads."""
    known = _read()
    if known is None or known.start != this_start():
        return 0.0
    return max(0.0, now - (known.offset + seconds_up()))


def _moved_on(known: _Anchor | None, offset: float, up: float) -> _Anchor:
    """What to believe now that the clock tells such an offset."""
    if known is None or known.start != this_start():
        return _Anchor(this_start(), offset)
    if offset < known.offset + SECONDS_OF_DRIFT:
        stays = abs(offset - known.offset) < SECONDS_OF_DRIFT and known.jumped_to is None
        return known if stays else _Anchor(known.start, min(offset, known.offset))
    if known.jumped_to is None or abs(offset - known.jumped_to) >= SECONDS_OF_DRIFT:
        return _Anchor(known.start, known.offset, offset, up)
    is_believed = up - known.seen_at >= SECONDS_UNTIL_A_JUMP_IS_BELIEVED
    return _Anchor(known.start, offset) if is_believed else known


def _read() -> _Anchor | None:
    try:
        return _Anchor(**read_json(_path()))
    except (OSError, ValueError, TypeError):
        return None


def _path() -> Path:
    return home() / "clock.json"
