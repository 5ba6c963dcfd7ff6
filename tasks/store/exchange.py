"""What the maker of one artifact does with the shared store: ask, claim, send, pass on checkpoints.

An artifact lies there as it does in a home, `artifacts/<kind>/<name>/<key>/manifest.json`, created
once and last, with its files beside it, each under the sha256 of its content. While the store is
away the work goes on here, which is said once; what was not sent is marked as such by its lacking
`.shared`, and goes later.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from tasks.runtime.markup import plain
from tasks.runtime.messages import one_line
from tasks.store.claims import Claim, Claims
from tasks.store.files import (
    ChecksumMismatch,
    atomic_file,
    atomic_folder,
    remove,
    scratch_folder,
    sha256_of,
    write_bytes,
    write_text,
)
from tasks.store.records import DamagedRecord
from tasks.store.retention import lease_seconds, seconds_between_shared_checkpoints
from tasks.store.shared import SharedStore, StoreAway
from tasks.store.storage import MANIFEST, MARK, name_of

SECONDS_BETWEEN_TRIES = 60.0
"""How long a store that was away is not asked again."""
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_REPORTS = 5.0
SECONDS_FOR_THE_LAST_CHECKPOINT = 60.0
CHECKPOINTS_KEPT = 2
"""The newest of a training: the one before may be being read."""

Files = Mapping[str, tuple[int, str]]
"""Size in bytes and sha256, by path below an artifact's folder."""
Say = Callable[[str], None]

_logger = logging.getLogger("atelier")
_away_since: dict[str, float] = {}
"""When a store was found to be away last, by its address, on the monotonic clock."""
_emptied: set[str] = set()
"""The addresses of stores to which this process has sent what waited since they answered."""


def is_away(store: SharedStore) -> bool:
    """Whether the store was away a moment ago, so that it is not asked now."""
    since = _away_since.get(store.address)
    return since is not None and time.monotonic() - since < SECONDS_BETWEEN_TRIES


def note_away(store: SharedStore, error: StoreAway) -> None:
    """Note that the store is away, and say so if that is new."""
    if store.address not in _away_since:
        _log(
            f"the shared store is away; the work goes on here, and what it makes is sent later:"
            f" {one_line(error)}"
        )
    _away_since[store.address] = time.monotonic()
    _emptied.discard(store.address)


def note_here(store: SharedStore) -> None:
    """Note that the store answered, and say so if it had been away."""
    if _away_since.pop(store.address, None) is not None:
        _log("the shared store answers again")


def is_first_answer(store: SharedStore) -> bool:
    """Whether what waited has not been sent to the store since it answered; asked once."""
    is_first = store.address not in _emptied
    _emptied.add(store.address)
    return is_first


def is_sent(folder: Path, store: SharedStore) -> bool:
    """Whether a store has the artifact of a folder, as far as this home knows.

    What an earlier version sent names the address alone.
    """
    try:
        return (folder / MARK).read_text(encoding="utf-8") in (store.identity, store.address)
    except (OSError, ValueError):
        return False


def mark_sent(store: SharedStore, folder: Path) -> None:
    """Note that a store has the artifact of a folder."""
    write_text(folder / MARK, store.identity)


def send(
    store: SharedStore, folder: Path, files: Files, digest: str, *, replaces: bool = False
) -> None:
    """Send an artifact, its manifest last; raises StoreAway.

    files, digest: what its manifest says; replaces: what lies there is damaged. Another home's
    stays as it is, and files that are there already are not sent again. The caller marks it as sent
    once all is done.
    """
    name = name_of(folder)
    manifest, there = f"{name}/{MANIFEST}", set() if replaces else set(store.names(name))
    if manifest not in there:
        for file, (size, sha256) in files.items():
            if f"{name}/{sha256}" not in there:
                store.send(folder / file, f"{name}/{sha256}", _reporter(f"sending {file}", size))
        if replaces:
            store.remove(manifest)
        store.create(manifest, (folder / MANIFEST).read_bytes())
    store.create(by_digest(name, digest), b"")


def forget_making(store: SharedStore, folder: Path) -> None:
    """Remove checkpoints and claims of an artifact that the store has now; raises StoreAway.

    Who is still making it finds the other's manifest in its place.
    """
    below = name_of(folder).partition("/")[2]
    for kind in ("checkpoints", "claims"):
        _remove_all(store, f"{kind}/{below}")


def _remove_all(store: SharedStore, folder: str) -> None:
    for name in store.names(folder):
        store.remove(name)


def by_digest(name: str, digest: str) -> str:
    """The name by which an artifact is found whose content alone is known; see `with_digest`."""
    _, kind, rest = name.split("/", 2)
    return f"digests/{kind}/{digest}/{rest}"


def with_digest(store: SharedStore, kind: str, digest: str) -> list[str]:
    """The names of the folders of all artifacts of a content; raises StoreAway."""
    below = f"digests/{kind}/{digest}"
    return [f"artifacts/{kind}{name.removeprefix(below)}" for name in store.names(below)]


class Exchange:
    """One artifact between this home and the shared store, for the process that has it."""

    def __init__(self, store: SharedStore, folder: Path, say: Say) -> None:
        """folder: in this home; say: logs, and keeps why."""
        self.store = store
        self._name, self._folder, self._say = name_of(folder), folder, say
        below = self._name.partition("/")[2]
        self._checkpoints = f"checkpoints/{below}"
        self._claims = Claims(store, f"claims/{below}", say)
        self._claim: Claim | None = None
        self._is_damaged = False
        self._sender = threading.Thread()
        self._checkpoint_at = time.monotonic()

    # The artifact ----------------------------------------------------------------------------

    def fetched(self, files_of: Callable[[bytes], Files]) -> bool:
        """Get the artifact into the home, or have it claimed for this process.

        While another home is making it, this waits for it. files_of: the files that a manifest
        lists; raises ValueError for one that cannot be used. False also while the store is away.
        """
        if is_away(self.store):
            return False
        is_waiting = False
        while True:
            try:
                if self._fetch(files_of):
                    return True
                if self._claim is not None:
                    return False
                taken = self._claims.take()
                note_here(self.store)
            except StoreAway as error:
                silent = time.monotonic() - self._claims.seen_at
                if not is_waiting or silent > lease_seconds():
                    note_away(self.store, error)
                    return False
            else:
                if isinstance(taken, Claim):  # once more: it may have been finished just now
                    self._claim = taken
                    continue
                if not is_waiting:
                    self._say(f"{taken} is making it; waiting for its result")
                is_waiting = True
            # With the slot of this machine's device in hand, if the run has one. To give it back
            # meanwhile, as for a lock of a task, could end in waiting for ever: the run would ask
            # for it again while it holds this artifact's lock, and that of its model's registry or
            # of the gallery, for which the run that got the slot may wait in turn. This wait ends
            # by itself: nobody takes a slot with a claim in hand, so the maker needs none of ours,
            # and one that falls silent is taken over from.
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def offer(self, files: Files, digest: str) -> bool:
        """Send the finished artifact, unless the store has it; False while that is away."""
        if is_away(self.store):
            return False
        try:
            if not is_sent(self._folder, self.store):
                send(self.store, self._folder, files, digest, replaces=self._is_damaged)
                self._forget_checkpoints()
                mark_sent(self.store, self._folder)
                note_here(self.store)
        except StoreAway as error:
            note_away(self.store, error)
            return False
        return True

    def close(self) -> None:
        """Give the claim back; it is over where the store has the artifact."""
        if self._claim is not None:
            is_done = is_sent(self._folder, self.store)
            self._claim.end(is_done=is_done, tells=not is_away(self.store))
            self._claim = None

    def brought(self, files_of: Callable[[bytes], Files]) -> bool:
        """Get the artifact into the home if another one has made it; without a claim."""
        if is_away(self.store):
            return False
        try:
            return self._fetch(files_of)
        except StoreAway as error:
            note_away(self.store, error)
            return False

    def _fetch(self, files_of: Callable[[bytes], Files]) -> bool:
        try:
            manifest = self.store.read(f"{self._name}/{MANIFEST}")
        except FileNotFoundError:
            return False
        except DamagedRecord as error:
            self._tell_of_damage(error)
            return False
        try:
            self._fetch_files(files_of(manifest), manifest)
        except (ValueError, FileNotFoundError) as error:
            self._tell_of_damage(error)
            return False
        return True

    def _fetch_files(self, files: Files, manifest: bytes) -> None:
        with atomic_folder(self._folder) as temporary:
            for file, (size, sha256) in files.items():
                path = temporary / file
                if ".." in path.parts or not path.is_relative_to(temporary):
                    raise DamagedRecord(f"{file!a} is no file of an artifact's folder")
                self.store.fetch(
                    f"{self._name}/{sha256}", path, _reporter(f"fetching {file}", size)
                )
                if (got := sha256_of(path)) != sha256:
                    raise ChecksumMismatch(f"{file}: sha256 is {got[:12]}, expected {sha256[:12]}")
            write_bytes(temporary / MANIFEST, manifest)
            mark_sent(self.store, temporary)
            remove(self._folder)  # unfinished work of this home
        total = sum(size for size, _ in files.values())
        self._say(f"another home made it; fetched {len(files)} files, {total / 1e6:.1f} MB")

    def _tell_of_damage(self, error: Exception) -> None:
        if not self._is_damaged:
            self._say(
                f"what the shared store has is damaged and will be made again: {one_line(error)}"
            )
        self._is_damaged = True

    # Its checkpoints, while it is trained ------------------------------------------------------

    def send_checkpoint(self, path: Path, step: int) -> None:
        """Send a checkpoint if the last one is old enough; the training does not wait for it.

        path: of the file, which the next checkpoint may replace.
        """
        is_due = time.monotonic() - self._checkpoint_at >= seconds_between_shared_checkpoints()
        if not is_due or self._sender.is_alive() or is_away(self.store):
            return
        self._checkpoint_at = time.monotonic()
        file = path.open("rb")  # this very one, whatever takes its place
        self._sender = threading.Thread(
            target=self._pass_on, args=(file, step), daemon=True, name="checkpoint"
        )
        self._sender.start()

    def fetch_checkpoint(self, path: Path, step: int) -> bool:
        """Replace a checkpoint by the newest whole one of any home, if that is further on.

        step: of the one that is there; -1 without.
        """
        if is_away(self.store):
            return False
        try:
            for name in reversed(self.store.names(self._checkpoints)):
                at, _, sha256 = name.rpartition("/")[2].partition(".")
                if not at.isdecimal() or int(at) <= step:
                    return False
                try:
                    with atomic_file(path) as temporary:
                        self.store.fetch(name, temporary)
                        if sha256_of(temporary) != sha256:
                            raise ChecksumMismatch(f"{name} is damaged")
                except FileNotFoundError:  # a newer one has taken its place
                    continue
                except ChecksumMismatch as error:
                    self._say(f"a shared checkpoint is left out: {error}")
                    continue
                self._say(f"the shared store's checkpoint is of step {int(at)}; goes on from there")
                return True
        except StoreAway as error:
            note_away(self.store, error)
        return False

    def _pass_on(self, file: BinaryIO, step: int) -> None:
        """Runs in a thread, because training must not wait for a store that is slow or away."""
        try:
            with file, scratch_folder() as scratch:
                copy = scratch / "checkpoint"
                with copy.open("wb") as target:
                    shutil.copyfileobj(file, target)
                self.store.send(copy, f"{self._checkpoints}/{step:010d}.{sha256_of(copy)}")
            for name in self.store.names(self._checkpoints)[:-CHECKPOINTS_KEPT]:
                self.store.remove(name)
        except StoreAway as error:
            note_away(self.store, error)
        except OSError as error:
            self._say(f"its checkpoint is not shared: {one_line(error)}")

    def _forget_checkpoints(self) -> None:
        if self._sender.ident is not None:
            self._sender.join(SECONDS_FOR_THE_LAST_CHECKPOINT)
        _remove_all(self.store, self._checkpoints)


def _reporter(what: str, size: int) -> Callable[[int], None]:
    """Say now and then how much of a file has gone; size: in bytes."""
    told_at = [time.monotonic()]

    def tell(done: int) -> None:
        if time.monotonic() - told_at[0] >= SECONDS_BETWEEN_REPORTS:
            told_at[0] = time.monotonic()
            _log(f"{what}: {done / 1e6:.0f} of {size / 1e6:.0f} MB")

    return tell


def _log(message: str) -> None:
    """As `tasks.runtime.progress.log`, which imports Prefect: the command line reads artifacts."""
    _logger.info(plain(message))
