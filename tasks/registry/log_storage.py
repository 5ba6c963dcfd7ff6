"""Where the lines of an audit log lie: a file of the home, or numbered objects of a shared store.

Both only ever grow, line by line. A file is one home's, and its lock lets one process at a time
write. Homes that share a store (`ATELIER_STORE`) have one log for each model in it: line N is the
object `audit/<model>/<N>.json`, and whoever creates it first has written it. What a line says, and
how lines follow from each other, is `tasks.registry.audit_log`'s, for both alike.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from tasks.runtime.progress import log
from tasks.store.exchange import note_away, note_here
from tasks.store.files import digest_of, home, inside, keep_aside, portable, remove, write_bytes
from tasks.store.known_stores import known_id
from tasks.store.locks import file_lock
from tasks.store.names import is_name
from tasks.store.records import DamagedRecord
from tasks.store.records import told as told_by
from tasks.store.shared import SharedStore, StoreAway, shared

FOLDER = "ledger"  # the name in homes and backups of every version
_OBJECTS = "audit"
_COPIES = "shared"
_DIGITS_OF_A_STORE = 6
NUM_READ_AT_ONCE = 8


class Lines(Protocol):
    """The lines of one model's log; each ends in a newline and holds no other."""

    is_current: bool
    """Whether what was read last is all there is: else it is this home's copy, the store away."""

    @property
    def place(self) -> str:
        """Where they lie, for messages."""

    def read(self, *, anew: bool = False) -> bytes:
        """All lines in their order, but for one that a kill cut off; raises DamagedRecord.

        anew: believe no copy of this home.
        """

    def add(self, number: int, line: bytes, previous: str) -> bool:
        """Put a line on its disk, as the one of that number; False where another has it.

        previous: the sha256 of the line before, without its newline.
        """

    def is_begun(self) -> bool:
        """Whether there are any lines in that place itself; raises StoreAway."""

    def join(self) -> None:
        """Put this home's own log into a shared store that has none; raises StoreAway."""

    def readable(self) -> bytes:
        """Whatever can be read of damaged lines."""

    def set_aside(self) -> str:
        """Keep a copy of lines that cannot be relied on; returns its name, or nothing without any.

        They stay in their place until `begin` puts a new log there.
        """

    def begin(self, line: bytes) -> bool:
        """Let a new log begin with a line, at one stroke; False where another home was faster."""


def lines_of(model: str) -> Lines:
    """Where the log of a model lies: in the shared store where there is one."""
    store = shared()
    return LocalFile(model) if store is None else SharedObjects(model, store)


def is_shared() -> bool:
    """Whether other homes may write to the same logs."""
    return shared() is not None


def store_id() -> str:
    """The id of the shared store that this home uses; empty without one, or before it is used."""
    store = shared()
    return "" if store is None else known_id(store.address) or ""


def known_models(*, is_sure: bool = False) -> list[str]:
    """The models that have a log; a file that no model can be named after is a person's copy.

    is_sure: raise StoreAway where the shared store does not answer; else the copies here tell.
    """
    names = {path.stem for path in (home() / FOLDER).glob("*.jsonl")}
    store = shared()
    if store is not None:
        names |= {path.name.partition(".")[0] for path in _copies(store).glob("*.jsonl")}
        try:
            names |= {name.split("/")[1] for name in store.names(_OBJECTS)}
        except StoreAway as error:
            if is_sure:
                raise
            note_away(store, error)
    return sorted(name for name in names if is_name(name))


def registry_lock(model: str) -> AbstractContextManager[None]:
    """Only one process of this home at a time decides about a model; who waits says so."""
    return file_lock(
        f"registry-{model}",
        lambda: log(f"{model}: another process of this home is deciding about it; waiting"),
    )


class LocalFile:
    """A file of JSON lines below `ledger/`; whoever writes holds the model's lock."""

    def __init__(self, model: str) -> None:
        self.path = inside(home() / FOLDER, f"{model}.jsonl")
        self.is_current = True

    @property
    def place(self) -> str:
        """See `Lines`."""
        return str(self.path)

    def read(self, *, anew: bool = False) -> bytes:
        """See `Lines`.

        A last line without its end was being written when its process was killed. Nothing had
        followed from it, so it does not count.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise DamagedRecord(f"it cannot be read ({told_by(error)})") from error
        return content[: content.rfind(b"\n") + 1]

    def add(self, number: int, line: bytes, previous: str) -> bool:
        """See `Lines`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._cut_off_torn_line()
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        _flush_folder(self.path.parent)
        return True

    def is_begun(self) -> bool:
        """See `Lines`."""
        return self.path.exists()

    def join(self) -> None:
        """See `Lines`: there is no store."""

    def readable(self) -> bytes:
        """See `Lines`."""
        try:
            return self.path.read_bytes()
        except OSError:  # none, a folder, or a bad disk
            return b""

    def set_aside(self) -> str:
        """See `Lines`; what cannot be read gives way now."""
        if not self.path.exists():
            return ""
        try:
            content = self.path.read_bytes()
        except OSError:  # such as a folder
            return keep_aside(self.path).name
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        aside = self.path.with_name(f"{self.path.name}.aside-{moment}")
        write_bytes(aside, content)
        return aside.name

    def begin(self, line: bytes) -> bool:
        """See `Lines`. A kill leaves the log before or the new one."""
        write_bytes(self.path, line)
        return True

    def _cut_off_torn_line(self) -> None:
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            log(f"{self.path.name}: the last line was cut off by a kill, and is dropped")
            os.truncate(self.path, whole)


class SharedObjects:
    """An object for each line. A log in the place of a damaged one lies in a folder of its own.

    Lines that were read once are kept in a copy in the home, so that a command asks for the new
    ones only, and so that what was registered can be verified while the store is away. A home that
    had a log before puts its lines into the store, where there are none.
    """

    def __init__(self, model: str, store: SharedStore) -> None:
        self._model, self._store = model, store
        self._own = LocalFile(model)
        self._generation = 1
        self.is_current = True

    @property
    def place(self) -> str:
        """See `Lines`."""
        return f"{self._store.address}/{self._folder}"

    def read(self, *, anew: bool = False) -> bytes:
        """See `Lines`."""
        try:
            self._find_generation()
            copy = self._copy()
            lines = self._lines_from(b"" if anew else copy)
        except StoreAway as error:
            if anew:
                raise
            note_away(self._store, error)
            self.is_current = False
            while self._copy_path(self._generation + 1).exists():
                self._generation += 1
            return self._or_own(self._copy())
        note_here(self._store)
        if lines.count(b"\n") < copy.count(b"\n"):  # a folder that is not mounted is an empty one
            raise DamagedRecord(
                f"the store has {_num_lines(lines)}, and this home has read {_num_lines(copy)} of"
                f" it, which are kept in {portable(self._copy_path(self._generation))}: is it the"
                " store that it was"
            )
        if lines != copy:
            self._keep_copy(lines)
        return self._or_own(lines)

    def add(self, number: int, line: bytes, previous: str) -> bool:
        """See `Lines`; raises StoreAway, and DamagedRecord."""
        self._find_generation()
        if number > 1:
            before = self._object(number - 1)
            if before is not None and sha256(before[:-1]).hexdigest() != previous:
                return False  # another log took the place of the one that was read
            if before is None and not self._import_own(number - 1):
                return False
        if not self._store.create(self._name(number), line):
            return False
        if (copy := self._copy()).count(b"\n") == number - 1:
            self._keep_copy(copy + line)
        return True

    def is_begun(self) -> bool:
        """See `Lines`."""
        self._find_generation()
        return self._is_begun()

    def join(self) -> None:
        """See `Lines`."""
        own = self._own.read()
        if own and self.read() == own and self.is_current:
            self._import_own(own.count(b"\n"))

    def readable(self) -> bytes:
        """See `Lines`."""
        self._find_generation()
        found = []
        for name in self._names():
            with suppress(DamagedRecord, FileNotFoundError):
                found.append(self._store.read(name))
        if len(found) < (copy := self._copy()).count(b"\n"):
            return copy
        return b"\n".join(found) or self._own.readable()

    def set_aside(self) -> str:
        """See `Lines`: objects are never written over, so they stay where they are."""
        self._find_generation()
        return self._folder if self._is_begun() else self._own.set_aside()

    def begin(self, line: bytes) -> bool:
        """See `Lines`."""
        self._find_generation()
        if is_begun := self._is_begun():
            self._generation += 1
        if not self._store.create(self._name(1), line):
            return False
        if not is_begun:
            remove(self._own.path)  # it was set aside
        self._keep_copy(line)
        return True

    def _is_begun(self) -> bool:
        return self._generation > 1 or bool(self._names())

    def _or_own(self, lines: bytes) -> bytes:
        """The home's own log, where the store has nothing of it yet or its beginning only."""
        own = self._own.read() if self._generation == 1 else b""
        return own if own.startswith(lines) else lines

    def _lines_from(self, known: bytes) -> bytes:
        """The lines that are known, and those that were added since.

        The last one that is known is read again: a store that has another is not the one that was
        copied.
        """
        number = known.count(b"\n")
        if number and self._object(number) != known[known.rfind(b"\n", 0, -1) + 1 :]:
            known, number = b"", 0
        if self._object(number + 1) is None:
            return known
        last = max(_number_of(name) for name in self._names())
        found = [known]
        with ThreadPoolExecutor(NUM_READ_AT_ONCE) as pool:
            for line in pool.map(self._object, range(number + 1, last + 1)):
                number += 1
                if line is None:  # what is behind it cannot be relied on
                    break
                if line.find(b"\n") != len(line) - 1:
                    raise DamagedRecord(f"line {number} cannot be read")
                found.append(line)
        return b"".join(found)

    def _names(self) -> list[str]:
        """The objects of this log, in order, and of none that began anew."""
        names = self._store.names(self._folder)
        return [name for name in names if name.rpartition("/")[0] == self._folder]

    def _object(self, number: int) -> bytes | None:
        try:
            return self._store.read(self._name(number))
        except FileNotFoundError:
            return None
        except DamagedRecord as error:
            raise DamagedRecord(f"line {number} cannot be read") from error

    def _import_own(self, wanted: int) -> bool:
        """Put this home's own log into a store without one; False where that has another."""
        lines = self._own.read().splitlines(keepends=True)
        if self._generation > 1 or len(lines) != wanted:
            return False
        for number, line in enumerate(lines, 1):
            if not self._store.create(self._name(number), line) and self._object(number) != line:
                return False
        aside = keep_aside(self._own.path)
        log(
            f"{self._model}: the {wanted} lines of this home's audit log are in the shared store"
            f" now; the file is kept as {aside.name}"
        )
        self._keep_copy(b"".join(lines))
        return True

    def _find_generation(self) -> None:
        """The logs that began anew are numbered; the last one counts."""
        while True:
            try:
                self._store.read(self._name(1, self._generation + 1))
            except FileNotFoundError:
                return
            except DamagedRecord:
                pass
            self._generation += 1

    @property
    def _folder(self) -> str:
        return self._name(1).rpartition("/")[0]

    def _name(self, number: int, generation: int | None = None) -> str:
        which = generation or self._generation
        begun = f"begun-{which:04d}/" if which > 1 else ""
        return f"{_OBJECTS}/{self._model}/{begun}{number:08d}.json"

    def _copy(self) -> bytes:
        """What this home has read before; nothing where it cannot be read."""
        try:
            content = self._copy_path(self._generation).read_bytes()
        except OSError:
            return b""
        return content[: content.rfind(b"\n") + 1]

    def _keep_copy(self, lines: bytes) -> None:
        path, before = self._copy_path(self._generation), self._copy()
        if before.startswith(lines):  # another process has read more
            return
        with suppress(OSError):  # the next command reads them from the store again
            if before and not lines.startswith(before):  # it may be all that is left of a store
                keep_aside(path)
            write_bytes(path, lines)

    def _copy_path(self, generation: int) -> Path:
        return inside(_copies(self._store), f"{self._model}.{generation}.jsonl")


def _num_lines(content: bytes) -> str:
    number = content.count(b"\n")
    return f"{number} line{'' if number == 1 else 's'}"


def _number_of(name: str) -> int:
    number = name.rpartition("/")[2].partition(".")[0]
    return int(number) if number.isdecimal() else 0


def _copies(store: SharedStore) -> Path:
    """This home's copies of the logs of a store."""
    return home() / FOLDER / _COPIES / digest_of(store.address)[:_DIGITS_OF_A_STORE]


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
