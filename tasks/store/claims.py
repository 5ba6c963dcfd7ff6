"""Who makes what, where several homes share a store: claims with a lease.

A claim is a numbered generation, `00000001.claim` below a folder of what is made, created once. For
as long as its owner works, it puts numbered beats beside it, such as `00000001.00000007`. No two
clocks are compared: whoever wants the same watches the names, and a claim is stale when they have
not changed for the time of a lease on the watcher's own monotonic clock. A stale one, and one that
was given up, is followed by the next generation.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from tasks.runtime.processes import is_alive, this_process, this_start
from tasks.store.records import DamagedRecord, parsed
from tasks.store.retention import lease_seconds
from tasks.store.shared import SECONDS_FOR_A_RECORD, SharedStore, StoreAway

BEATS_OF_A_LEASE = 6
_CLAIM, _GIVEN_UP = "claim", "given-up"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a claim."""

    owner: str
    """The process, as `tasks.runtime.processes` names it."""

    def __str__(self) -> str:
        host, pid, _ = self.owner.rsplit(":", 2) if self.owner.count(":") >= 2 else ("", "", "")
        return f"process {pid} of {host}" if host else "another home"


class Claim:
    """A claim that this process holds; a thread shows the others that it is alive."""

    def __init__(self, store: SharedStore, folder: str, generation: int, say: Say) -> None:
        self._store, self._folder, self._generation, self._say = store, folder, generation, say
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="claim")
        self._thread.start()

    def end(self, *, is_done: bool, tells: bool = True) -> None:
        """Give the claim up, or forget all claims of what is made now.

        tells: whether the store is asked to note it; else, or while it is away, the claim grows
        stale.
        """
        self._has_ended.set()
        if not tells:
            return
        self._thread.join(SECONDS_FOR_A_RECORD)
        try:
            if not is_done:
                given_up = _name(self._folder, self._generation, _GIVEN_UP)
                self._store.create(given_up, b"", waits=False)  # else others wait for a lease
                return
            for name in self._store.names(self._folder, waits=False):
                if _generation_of(name) <= self._generation:
                    self._store.remove(name)
        except StoreAway:
            return

    def _beat(self) -> None:
        """Move the claim's counter until it ends, or another process has taken it over."""
        number = 0
        while not self._has_ended.wait(lease_seconds() / BEATS_OF_A_LEASE):
            number += 1  # in any case: a beat of which no answer came may lie there
            try:
                beat = _name(self._folder, self._generation, f"{number:08d}")
                self._store.create(beat, b"", waits=False)
                names = self._store.names(self._folder, waits=False)
                if _latest(names) > self._generation:
                    who = _holder(self._store, self._folder, _latest(names))
                    self._say(f"{who} has taken it over, for this one seemed lost; it goes on")
                    return
                for name in _beats(names, self._generation)[:-1]:
                    self._store.remove(name)
            except StoreAway:
                continue


class Claims:
    """The claims on one thing, as this process sees them move."""

    def __init__(self, store: SharedStore, folder: str, say: Say) -> None:
        self._store, self._folder, self._say = store, folder, say
        self._names: list[str] = []
        self._moved_at = self.seen_at = time.monotonic()

    def take(self) -> Claim | Holder:
        """Claim it, or say who holds it; raises StoreAway."""
        while True:
            names = self._store.names(self._folder)
            self.seen_at = time.monotonic()
            if names != self._names:
                self._names, self._moved_at = names, self.seen_at
            latest = _latest(names)
            if latest and (holder := self._living_holder(latest)) is not None:
                return holder
            body = json.dumps(asdict(Holder(this_process()))).encode("ascii")
            if self._store.create(_name(self._folder, latest + 1, _CLAIM), body):
                return Claim(self._store, self._folder, latest + 1, self._say)

    def _living_holder(self, generation: int) -> Holder | None:
        if _name(self._folder, generation, _GIVEN_UP) in self._names:
            return None
        holder = _holder(self._store, self._folder, generation)
        if _died_here(holder.owner):
            self._say(f"{holder} had claimed it and has died; taken over")
            return None
        if self.seen_at - self._moved_at >= lease_seconds():
            self._say(
                f"{holder} had claimed it and has not been heard of for {lease_seconds()} s; taken"
                " over"
            )
            return None
        return holder


def _holder(store: SharedStore, folder: str, generation: int) -> Holder:
    name = _name(folder, generation, _CLAIM)
    try:
        return parsed(store.read(name), Holder, name)
    except (FileNotFoundError, DamagedRecord):
        return Holder("")


def _died_here(owner: str) -> bool:
    """Whether a process of this machine, since its present start, is no more.

    Of others nothing is known, whatever they are called: machines may share a name.
    """
    return bool(this_start()) and f":{this_start()}." in owner and not is_alive(owner)


def _name(folder: str, generation: int, what: str) -> str:
    return f"{folder}/{generation:08d}.{what}"


def _generation_of(name: str) -> int:
    number = name.rpartition("/")[2].partition(".")[0]
    return int(number) if number.isdecimal() else 0


def _latest(names: Sequence[str]) -> int:
    return max(map(_generation_of, names), default=0)


def _beats(names: Sequence[str], generation: int) -> list[str]:
    """The names of a generation's beats, oldest first."""
    mine = (name for name in names if _generation_of(name) == generation)
    return sorted(name for name in mine if name.rpartition(".")[2].isdecimal())
