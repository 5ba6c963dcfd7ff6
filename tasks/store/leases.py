"""Which processes of other machines live: a lease of each in the store that homes share.

From here nobody can look whether a process of another machine still runs. So each process that
works on runs holds a claim of its own name in the shared store (`tasks.store.claims`), whose beats
show that it lives. No two clocks are compared: a process whose beats have not moved for the time of
a lease, on the monotonic clock of whoever watches, is gone, with its machine perhaps. Of a process
that never had a lease nothing is known, and without a shared store of none: those count as alive.
"""

import threading
import time
from collections.abc import Iterable

from tasks.runtime.processes import is_alive, is_elsewhere, this_process
from tasks.store.claims import BEATS_OF_A_LEASE, Claim, Claims
from tasks.store.retention import lease_seconds
from tasks.store.shared import SharedStore, StoreAway, shared

FOLDER = "processes"
_SECONDS_BETWEEN_LOOKS = 1.0

_holding = threading.Lock()
_held_by: dict[str, str] = {}
"""The store in which this process holds a lease, by the process's name: a fork has none."""
_seen: dict[str, tuple[list[str], float]] = {}
"""What was last seen of each process's lease, and since when it has not moved."""


def hold_lease() -> None:
    """Show other machines from now on that this process lives, once and for as long as it does."""
    store = shared()
    if store is None:
        return
    with _holding:
        if this_process() in _held_by:
            return
        _held_by[this_process()] = store.address
    threading.Thread(target=_take, args=(store, this_process()), daemon=True, name="lease").start()


def lives(process: str) -> bool:
    """Whether a process runs, here or elsewhere, as far as this process has seen until now."""
    if not is_alive(process):
        return False
    store = shared()
    return store is None or not is_elsewhere(process) or not _has_vanished(store, process)


def observe(processes: Iterable[str]) -> None:
    """Look after processes of other machines until `lives` can tell of each: a lease's time.

    Those that show a sign of life are believed at once, and so are those that hold no lease.
    """
    store = shared()
    if store is None:
        return
    began, watched = time.monotonic(), {each for each in processes if is_elsewhere(each)}
    first = {each: _look(store, each) for each in watched}
    # Unless the store is away, which may have one: then none of the process is among those seen.
    watched = {each for each in watched if first[each] or each not in _seen}
    while watched and time.monotonic() - began <= lease_seconds() + _SECONDS_BETWEEN_LOOKS:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        watched = {
            each
            for each in watched
            if _look(store, each) == first[each] and not _has_vanished(store, each)
        }


def forget_ended(days: float) -> None:
    """Remove what is left in the store of leases that have not moved for days, by its clock."""
    store = shared()
    if store is None:
        return
    written = {name: entry.written_at for name, entry in store.entries(FOLDER).items()}
    newest = max(written.values(), default=None)
    for name, moment in written.items():
        if newest is not None and (newest - moment).total_seconds() > days * 86_400:
            store.remove(name)


def _take(store: SharedStore, process: str) -> Claim:
    """Claim this process's own name, once the store answers; its thread then moves the claim."""
    while True:
        try:
            claim = Claims(store, _folder(process), lambda _: None).take()
            if isinstance(claim, Claim):
                return claim
        except StoreAway:
            pass
        time.sleep(lease_seconds() / BEATS_OF_A_LEASE)


def _has_vanished(store: SharedStore, process: str) -> bool:
    names = _look(store, process)
    if not names:
        return False
    return time.monotonic() - _seen[process][1] >= lease_seconds()


def _look(store: SharedStore, process: str) -> list[str]:
    """What lies there of a lease now; while the store is away nobody's time runs out."""
    try:
        names = store.names(_folder(process))
    except StoreAway:
        _seen.pop(process, None)
        return []
    if _seen.get(process, (None, 0.0))[0] != names:
        _seen[process] = (names, time.monotonic())
    return names


def _folder(process: str) -> str:
    return f"{FOLDER}/{process.replace(':', '_')}"
