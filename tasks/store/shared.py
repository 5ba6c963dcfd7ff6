"""The store that several homes share: a bucket of an object store, or a folder that all can reach.

$ATELIER_STORE names it: `s3://BUCKET/PREFIX`, whose endpoint and credentials are in the usual
variables (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...), or `file:///FOLDER`.

To create once is the only way to write a record, and its answer can be lost: a put that succeeded
may be answered by an error, or be sent again by the client, which then meets its own content. So
each record begins with a line of its own, a token that nobody else has and the sha256 of the rest:
whose record lies under a name is read back where the answer does not tell.

The token of the record `store` is the id of the store. The first home that writes there creates it,
and every home keeps the id that it found: a store without it, or with another one, is a folder that
is not mounted, or another store, and counts as away.
"""

import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError
from obstore.store import LocalStore, S3Store

from tasks.runtime.markup import plain
from tasks.runtime.messages import one_line
from tasks.store.files import BadInput, atomic_file, flush, home
from tasks.store.known_stores import has_told, known_id, place_of, remember
from tasks.store.records import DamagedRecord, parsed, told
from tasks.store.storage import STORE_VARIABLE

SECONDS_TO_CONNECT = 2
SECONDS_FOR_A_RECORD = 10
"""For one request; an object store may make those wait that create the same name at once."""
SECONDS_FOR_A_PART = 60
"""For one part of a large file: a line of 0.3 MB/s is enough for two parts at a time."""
NUM_RETRIES = 3
SECONDS_OF_SILENCE = 5.0
"""How long a store that did not answer is not asked again: many requests would each wait anew."""
BYTES_OF_A_PART = 8 << 20
NUM_PARTS_AT_ONCE = 2
MAX_LOOKED_AT = 20_000
"""How many entries of a folder, where each is looked at: a folder of a network answers slowly."""
STORE_MARK = "store"
"""The name of the record whose token is the id of the store; no listing has it."""
_CONTENT_OF_MARK = b"The token above is the id of this store. Keep this file with the others.\n"

_logger = logging.getLogger("atelier")

OnProgress = Callable[[int], None]
"""Told how many bytes have gone so far."""


class StoreAway(ConnectionError):
    """The shared store cannot be reached, or takes and gives nothing; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record or a file, without its content."""

    num_bytes: int
    written_at: datetime
    """By the store's own clock."""


class SharedStore:
    """A storage (`tasks.store.storage`) that other homes write to, too; it also holds large files.

    Every method raises StoreAway. Records are created once. A file's name is given by its content
    and who writes it, so it is never another's; it may be written again.
    """

    def __init__(self, address: str) -> None:
        """Open the store of an address without asking it anything; raises BadInput."""
        self.address = address
        self._root, self._store = _opened(address)
        self._marks: dict[Path, bytes] = {}
        """The mark of the store that a home has used, by the home's folder."""
        self._away: tuple[float, str] | None = None
        """When, on the monotonic clock, the store did not answer last, and what was said then."""

    @property
    def folder(self) -> Path | None:
        """The folder that the store is, unless it is a bucket."""
        return self._root

    @property
    def identity(self) -> str:
        """The address, and the id of the store that this home has used there."""
        return f"{self.address} {known_id(self.address) or ''}".strip()

    def is_new(self) -> bool:
        """Whether no home has written there; raises StoreAway."""
        with self._asked():
            return self._mark() is None and self._is_empty()

    def create(self, name: str, content: bytes, *, marks: bool = True, waits: bool = True) -> bool:
        """Put a record under a name; False where the name is taken by somebody else's.

        marks: a store without a mark gets one; a mere trial leaves an empty one as it is. waits:
        a store that did not answer a moment ago is not asked.
        After StoreAway it may lie there all the same, or appear a little later: read it before
        another is put under the next name.
        """
        token, body = _record_of(content)
        try:
            with self._asked(is_put=True, marks=marks, waits=waits):
                store = self._store(SECONDS_FOR_A_RECORD)
                obstore.put(store, name, body, mode="create", use_multipart=False)
                self._flush(name)
            return True
        except _Taken:
            return self._token_of(name) == token
        except _NotAsked:
            raise
        except StoreAway:
            if (found := self._token_of(name)) is None:
                raise
            return found == token

    def read(self, name: str) -> bytes:
        """The content of a record; raises FileNotFoundError and DamagedRecord."""
        return self._read(name)[1]

    def names(self, folder: str, *, waits: bool = True) -> list[str]:
        """The names of all that lies below a folder, in order; waits: see `create`."""
        return sorted(self.entries(folder, waits=waits))

    def entries(self, folder: str, *, waits: bool = True) -> dict[str, Entry]:
        """All that lies below a folder, by name; waits: see `create`."""
        with self._asked(waits=waits):
            pages = obstore.list(self._store(SECONDS_FOR_A_RECORD), prefix=folder)
            found = [each for page in pages for each in page]
        return {
            each["path"]: Entry(each["size"], each["last_modified"])
            for each in found
            if each["path"] != STORE_MARK
        }

    def unfinished(self) -> dict[str, Entry]:
        """What puts left in a folder that were killed, by name; a bucket shows nothing of those."""
        if self._root is None:
            return {}
        found = {}
        with self._asked():
            for path in self._root.rglob("*#*"):
                with suppress(FileNotFoundError):  # whole by now
                    if _is_staged(path.name):
                        stat = path.stat()
                        moment = datetime.fromtimestamp(stat.st_mtime, UTC)
                        name = path.relative_to(self._root).as_posix()
                        found[name] = Entry(stat.st_size, moment)
        return found

    def denied(self) -> tuple[list[Path], bool]:
        """What this account has no right to use in a folder: files to read, folders to write into.

        In order, so a folder before what is in it; and whether all was looked at: of many entries
        it is MAX_LOOKED_AT.
        """
        if self._root is None:
            return [], True
        entries = _with_needs(self._root)
        looked_at = islice(entries, MAX_LOOKED_AT)
        refused = (path for path, needs in looked_at if not os.access(path, needs))
        paths = sorted(path for path in refused if os.path.lexists(path))  # some are gone by now
        return paths, next(entries, None) is None

    def remove(self, name: str) -> None:
        """Remove a record or a file, if it is there."""
        try:
            with self._asked():
                if self._root is not None and _is_staged(name):  # no name for the library
                    (self._root / name).unlink()
                    return
                obstore.delete(self._store(SECONDS_FOR_A_RECORD), name)
        except FileNotFoundError:
            return

    def send(self, path: Path, name: str, on_progress: OnProgress = lambda _: None) -> None:
        """Put a file under a name, a large one in parts; it appears when it is whole."""
        is_large = path.stat().st_size > BYTES_OF_A_PART
        with path.open("rb") as file:
            content = _chunks(file.read, on_progress) if is_large else file.read()
            with self._asked(is_put=True):
                obstore.put(
                    self._store(SECONDS_FOR_A_PART),
                    name,
                    content,
                    use_multipart=is_large,
                    chunk_size=BYTES_OF_A_PART,
                    max_concurrency=NUM_PARTS_AT_ONCE,
                )
                self._flush(name)

    def fetch(self, name: str, path: Path, on_progress: OnProgress = lambda _: None) -> None:
        """Write what lies under a name to a file, atomically; raises FileNotFoundError."""
        with self._asked():
            size = obstore.head(self._store(SECONDS_FOR_A_RECORD), name)["size"]
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            for start in range(0, size, BYTES_OF_A_PART):
                end = min(start + BYTES_OF_A_PART, size)
                with self._asked():
                    part = obstore.get_range(
                        self._store(SECONDS_FOR_A_PART), name, start=start, end=end
                    )
                file.write(part)
                on_progress(end)

    def _token_of(self, name: str) -> str | None:
        """Whose record lies under a name; None where there is none, empty for a damaged one.

        It is asked at once after a put that failed: the put may have succeeded all the same.
        """
        try:
            return self._read(name, waits=False)[0]
        except FileNotFoundError:
            return None
        except DamagedRecord:
            return ""

    def _read(self, name: str, *, waits: bool = True) -> tuple[str, bytes]:
        with self._asked(waits=waits):
            body = bytes(obstore.get(self._store(SECONDS_FOR_A_RECORD), name).bytes())
        return self._parsed(name, body)

    def _parsed(self, name: str, body: bytes) -> tuple[str, bytes]:
        """The token and the content of a record; raises DamagedRecord."""
        line, _, content = body.partition(b"\n")
        where = f"{self.address}: {name}"
        told_of = parsed(line, dict[str, str], where)
        if told_of.get("sha256") != sha256(content).hexdigest():
            raise DamagedRecord(f"{where}: its sha256 is not the one it was written with")
        return told_of.get("token", ""), content

    def _flush(self, name: str) -> None:
        """Have on the disk what was put into a folder, as an object store does by itself."""
        if self._root is not None:
            flush(self._root / name)

    @contextmanager
    def _asked(
        self, *, is_put: bool = False, marks: bool = True, waits: bool = True
    ) -> Iterator[None]:
        """Turn what the store says into FileNotFoundError, _Taken or StoreAway.

        is_put: then what is not found is the bucket; marks: see `create`; waits: fail at once for
        some seconds after a request that found no answer.
        """
        if self._root is not None and not self._root.is_dir():
            raise StoreAway(f"{self.address}: there is no such folder; mount or make it")
        away = self._away
        if waits and away is not None and time.monotonic() - away[0] < SECONDS_OF_SILENCE:
            raise _NotAsked(away[1])
        try:
            self._check_mark(marks=is_put and marks)
            yield
            self._away = None
        except StoreAway:
            raise
        except (AlreadyExistsError, PreconditionError) as error:
            self._away = None
            raise _Taken from error
        except FileNotFoundError as error:
            self._away = None
            if not is_put:
                raise
            raise StoreAway(f"{self.address}: {one_line(error)}") from error
        except (BaseError, OSError) as error:
            said = (
                f"{self.address}: {told(error) if isinstance(error, OSError) else one_line(error)}"
            )
            if isinstance(error, GenericError):  # others are about one object, and come at once
                self._away = time.monotonic(), said
            raise StoreAway(said) from error

    def _check_mark(self, *, marks: bool) -> None:
        """Raise StoreAway where this is not the store that the home has used under this address.

        marks: mark a store that has no mark. A bucket is looked at once; a folder, which may be
        unmounted at any time, before each request.
        """
        seen = self._marks.get(home())
        if seen is not None and self._root is None:
            return
        mark = self._mark()
        if mark is not None and mark == seen:
            return
        known = known_id(self.address)
        if mark is None and known is not None:
            mark = self._mark()  # another process of this home may have put it just now
        if mark is None and known is None:
            is_empty = (marks or has_told(self.address)) and self._is_empty()
            if is_empty and has_told(self.address):
                raise self._is_another("no store here now")
            if not marks:
                return
            mark = self._marked(is_new=is_empty)
        if mark is None:
            raise self._is_another("no store here now")
        try:
            found, _ = self._parsed(STORE_MARK, mark)
        except DamagedRecord as error:
            raise StoreAway(f"{error}; put that file back, as it is beside its copies") from error
        if known is None:
            remember(self.address, found)
        elif found != known:
            raise self._is_another(f"another one here now, {found:.8}")
        self._marks[home()] = mark

    def _marked(self, *, is_new: bool) -> bytes | None:
        """The mark of a store that had none, by whichever home was the first to put one."""
        token, mark = _record_of(_CONTENT_OF_MARK)
        try:
            store = self._store(SECONDS_FOR_A_RECORD)
            obstore.put(store, STORE_MARK, mark, mode="create", use_multipart=False)
            self._flush(STORE_MARK)
        except (AlreadyExistsError, PreconditionError):
            return self._mark()
        if is_new:
            _logger.info(
                plain(
                    f"{self.address} is empty: a new shared store, {token:.8}, begins there; where"
                    f" other homes use one already, mount it, or correct {STORE_VARIABLE}"
                )
            )
        return mark

    def _mark(self) -> bytes | None:
        try:
            return bytes(obstore.get(self._store(SECONDS_FOR_A_RECORD), STORE_MARK).bytes())
        except FileNotFoundError:
            return None

    def _is_empty(self) -> bool:
        return not any(map(len, obstore.list(self._store(SECONDS_FOR_A_RECORD))))

    def _is_another(self, what: str) -> StoreAway:
        return StoreAway(
            f"{self.address}: not the store that this home has used, {what}; mount it, or correct"
            f" {STORE_VARIABLE} (a store that is restored needs its file {STORE_MARK!r}; to use"
            f" another one from now on, remove {place_of(self.address)})"
        )


class _NotAsked(StoreAway):
    """The store did not answer a moment ago, so it was not asked."""


class _Taken(Exception):
    """Something lies under a name already; whose it is, its token tells."""


def shared() -> SharedStore | None:
    """The store that $ATELIER_STORE names, None where it is not set; raises BadInput.

    It is not asked anything, so this costs nothing and works while the store is away.
    """
    address = os.environ.get(STORE_VARIABLE, "").strip()
    if not address:
        return None
    told_by = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
    return _shared(address.rstrip("/"), told_by)


@lru_cache(maxsize=8)  # connections are kept
def _shared(address: str, _settings: tuple[tuple[str, str], ...]) -> SharedStore:
    return SharedStore(address)


def _opened(address: str) -> tuple[Path | None, Callable[[int], Any]]:
    """The folder of an address, if it is one, and what gives the store for requests so long."""
    url = urlsplit(address)
    is_plain = not (url.query or url.fragment or "@" in url.netloc or ".." in url.path.split("/"))
    if is_plain and url.scheme == "file" and not url.netloc and url.path.strip("/"):
        root = Path(unquote(url.path))
        return root, lambda _: LocalStore(root)  # it looks for the folder at once
    if is_plain and url.scheme == "s3" and url.netloc:
        return None, lru_cache(lambda seconds: _bucket(url.netloc, url.path, seconds))
    raise BadInput(
        f"{STORE_VARIABLE}={address!a:.200}: wanted s3://BUCKET, s3://BUCKET/PREFIX or"
        " file:///FOLDER, and nothing besides: an endpoint and keys are read from AWS_ENDPOINT_URL,"
        " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


def _bucket(name: str, prefix: str, seconds: int) -> S3Store:
    """seconds: how long one request may take."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    return S3Store(
        name,
        prefix=unquote(prefix).strip("/") or None,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=SECONDS_TO_CONNECT),
            "timeout": timedelta(seconds=seconds),
        },
        retry_config={
            "max_retries": NUM_RETRIES,
            "retry_timeout": timedelta(seconds=seconds),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=1),
                "base": 2,
            },
        },
    )


def _with_needs(root: Path) -> Iterator[tuple[Path, int]]:
    """A folder and all that lies below it, with the rights that a home must have there.

    Each folder is named by the one that holds it: one that cannot be listed tells nothing itself.
    """
    of_folder = os.R_OK | os.W_OK | os.X_OK
    yield root, of_folder
    for folder, folders, files in os.walk(root):
        yield from ((Path(folder, each), of_folder) for each in folders)
        yield from ((Path(folder, each), os.R_OK) for each in files)


def _is_staged(name: str) -> bool:
    """Whether the library has given a file this name until its put is whole: `NAME#1`."""
    return name.rpartition("#")[2].isdecimal() and "#" in name


def _record_of(content: bytes) -> tuple[str, bytes]:
    """A token that nobody else has, and a record with it and a content."""
    token = uuid.uuid4().hex
    line = json.dumps({"sha256": sha256(content).hexdigest(), "token": token})
    return token, b"%s\n%s" % (line.encode("ascii"), content)


def _chunks(read: Callable[[int], bytes], on_progress: OnProgress) -> Iterator[bytes]:
    """What a file holds, a part at a time."""
    done = 0
    while chunk := read(BYTES_OF_A_PART):
        yield chunk
        done += len(chunk)
        on_progress(done)
