"""The store that several homes share, kept in order: what waits is sent, what nobody needs goes.

What any home refers to stays, and so does what the registry of this one does, with all that it was
made from. The rest goes when it is old by the store's own clock, and only when a person asks.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from prefect import task

from tasks.maintenance.garbage_collection import RECORDS
from tasks.runtime.progress import log
from tasks.runtime.retries import LOCAL
from tasks.store.announcements import announce, references
from tasks.store.artifacts import Artifact, manifest_of
from tasks.store.exchange import by_digest, is_away, note_away
from tasks.store.files import home
from tasks.store.graph import Graph
from tasks.store.outbox import send_unsent, unsent
from tasks.store.retention import days_to_keep_shared
from tasks.store.shared import Entry, SharedStore, StoreAway, shared
from tasks.store.storage import MANIFEST

DAYS_FOR_UNFINISHED = 30.0
"""How long claims, checkpoints and the files of an unfinished upload stay."""
DAYS_FOR_A_PUT = 1.0
"""How long one put of a file into a folder may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedGarbage:
    """An artifact, a claim, a checkpoint or half a file of the shared store that may go."""

    names: tuple[str, ...]
    """In the order in which they go: a manifest before its files."""
    num_bytes: int
    reason: str

    @property
    def folder(self) -> str:
        """Where they lie."""
        return self.names[0].rpartition("/")[0]


@task(name="send-results", **LOCAL)
def send_what_waits() -> int:
    """Send the shared store what it lacks of this home; returns how many artifacts went."""
    store = shared()
    if store is None:
        return 0
    sent = send_unsent(store)
    try:
        if not is_away(store):
            announce(store)
    except StoreAway as error:
        note_away(store, error)
    if left := len(unsent(store)):
        log(f"{left} results wait until the shared store takes them")
    return sent


def find_shared_garbage(store: SharedStore, kept_digests: Iterable[str]) -> list[SharedGarbage]:
    """Everything in the store that nothing refers to and that is old.

    kept_digests: content digests of the versions that have an alias or stand in an audit log.
    Raises StoreAway; DamagedRecord where it cannot be read what a home refers to.
    """
    days = days_to_keep_shared()
    told, now = references(store, days)
    entries = {
        kind: _by_folder(store.entries(kind)) for kind in ("artifacts", "checkpoints", "claims")
    }
    artifacts = {folder: _artifact(store, folder, e) for folder, e in entries["artifacts"].items()}
    finished = [each for each in artifacts.values() if each is not None]
    graph = Graph.joining(finished)
    marked = graph.reachable({*told, *kept_digests})
    return [
        *_artifacts(entries["artifacts"], artifacts, marked, now, days),
        *_unfinished(entries["checkpoints"], now, "checkpoints of a training that was given up"),
        *_unfinished(entries["claims"], now, "a claim of what was given up"),
        *_killed_puts(store, now),
    ]


def sweep(store: SharedStore, garbage: Iterable[SharedGarbage]) -> int:
    """Remove what was found; returns how many bytes that freed. Raises StoreAway."""
    freed = 0
    for each in garbage:
        for name in each.names:
            store.remove(name)
        freed += each.num_bytes
    return freed


_Folders = dict[str, dict[str, Entry]]


def _by_folder(entries: dict[str, Entry]) -> _Folders:
    found: _Folders = {}
    for name, entry in entries.items():
        found.setdefault(name.rpartition("/")[0], {})[name] = entry
    return found


def _artifact(store: SharedStore, folder: str, names: Collection[str]) -> Artifact | None:
    """The artifact of a folder; None for an unfinished one, or a damaged manifest."""
    if f"{folder}/{MANIFEST}" not in names:
        return None
    try:
        return manifest_of(store.read(f"{folder}/{MANIFEST}"), home() / folder)
    except (FileNotFoundError, ValueError):
        return None


def _artifacts(
    entries: _Folders,
    artifacts: dict[str, Artifact | None],
    marked: set[str],
    now: datetime,
    days: float,
) -> Iterator[SharedGarbage]:
    for folder, names in entries.items():
        artifact = artifacts[folder]
        if artifact is None:
            yield from _unfinished({folder: names}, now, "an upload that was not finished")
        elif not _is_needed(artifact, marked) and _age(names, now) > timedelta(days=days):
            named = {**names, by_digest(folder, artifact.digest): Entry(0, now)}
            yield _garbage(named, f"no home and no version refers to it, for {days} days")


def _is_needed(artifact: Artifact, marked: set[str]) -> bool:
    """Records of searches are a manifest and little else; an evaluation goes with its model."""
    subject = artifact.inputs[:1] if artifact.kind == "evaluations" else ()
    return artifact.kind in RECORDS or bool(marked & {artifact.digest, *subject})


def _unfinished(entries: _Folders, now: datetime, reason: str) -> Iterator[SharedGarbage]:
    for names in entries.values():
        if _age(names, now) > timedelta(days=DAYS_FOR_UNFINISHED):
            yield _garbage(names, reason)


def _killed_puts(store: SharedStore, now: datetime) -> Iterator[SharedGarbage]:
    for name, entry in store.unfinished().items():
        if now - entry.written_at > timedelta(days=DAYS_FOR_A_PUT):
            yield _garbage({name: entry}, "half a file: its sender was killed")


def _age(names: dict[str, Entry], now: datetime) -> timedelta:
    """How long ago the last of some things was written."""
    return now - max(entry.written_at for entry in names.values())


def _garbage(names: dict[str, Entry], reason: str) -> SharedGarbage:
    ordered = sorted(names, key=lambda name: (not name.endswith(MANIFEST), name))
    size = sum(entry.num_bytes for entry in names.values())
    return SharedGarbage(names=tuple(ordered), num_bytes=size, reason=reason)
