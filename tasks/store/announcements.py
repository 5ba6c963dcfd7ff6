"""What each home refers to, told in the store that they share: nobody sweeps that there.

A home has a numbered record, `homes/<home>/00000001.json`, with the digests of all artifacts that
it holds and of what these were made from. It is told anew once a day, when something is sent; a
home that has been silent for long is forgotten.
"""

import json
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from tasks.store.clock import steady_now
from tasks.store.files import home, write_json
from tasks.store.graph import Graph
from tasks.store.known_stores import TOLD
from tasks.store.records import DamagedRecord, parsed, read_record
from tasks.store.shared import SharedStore

SECONDS_BETWEEN = 86_400.0


@dataclass(frozen=True, slots=True)
class _Own:
    """What this home knows of its announcements."""

    home: str
    """Its name in the store."""
    address: str = ""
    at: float = 0.0
    """When it told that store last, in seconds since 1970."""


def announce(store: SharedStore) -> str:
    """Tell what this home refers to; returns the record's name. Raises StoreAway."""
    graph = Graph.of_home()
    inputs = (digest for artifact in graph for digest in artifact.inputs)
    digests = sorted({*graph.by_digest, *inputs})
    own = _own()
    earlier = store.names(f"homes/{own.home}")
    number = max((int(Path(name).stem) for name in earlier), default=0) + 1
    content = json.dumps({"digests": digests}).encode("ascii")
    while not store.create(name := f"homes/{own.home}/{number:08d}.json", content):
        number += 1  # another process of this home was faster
    for old in earlier:
        store.remove(old)
    write_json(_path(), replace(own, address=store.address, at=steady_now()))
    return name


def is_due(store: SharedStore) -> bool:
    """Whether this home has not told the store for a day."""
    own = _own()
    return own.address != store.address or steady_now() - own.at >= SECONDS_BETWEEN


def references(store: SharedStore, days: float) -> tuple[set[str], datetime]:
    """The digests that homes refer to, this one anew, and the time by the store's own clock.

    days: how long ago a home may have told of itself last. Raises StoreAway.
    """
    told = announce(store)
    found = store.entries("homes")
    now = found[told].written_at
    digests: set[str] = set()
    for name, entry in found.items():
        if now - entry.written_at <= timedelta(days=days):
            with suppress(FileNotFoundError):  # told anew just now
                digests.update(parsed(store.read(name), dict[str, list[str]], name)["digests"])
    return digests, now


def _own() -> _Own:
    try:
        return read_record(_path(), _Own)
    except (FileNotFoundError, DamagedRecord):
        write_json(_path(), made := _Own(uuid.uuid4().hex))
        return made


def _path() -> Path:
    return home() / TOLD
