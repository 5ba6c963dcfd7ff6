"""The one door to disk: the home folder, atomic writes, digests and manifests.

Whatever a task leaves behind is either complete or absent: files are written under a temporary name
in the same folder, flushed to the disk, and renamed.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.runtime.disk_space import cause_of, lack_of_room
from tasks.runtime.processes import is_alive, this_process
from tasks.store.records import read_record

TEMPORARY_PREFIX = ".partial-"
MAX_BYTES_OF_A_FULL_DISK = 1 << 14
_CHUNK_BYTES = 1 << 20
_logger = logging.getLogger(
    "atelier"
)  # `tasks.runtime.progress` imports Prefect, which needs seconds


class BadInput(ValueError):
    """What a person named or gave cannot be used; the message says what, got, wanted, what next."""


class CannotWrite(OSError):
    """Nothing can be written to a place; the message says why, and what to do."""


class DiskFull(CannotWrite):
    """No space is left where a result was to be written; what was there before is untouched."""


class ChecksumMismatch(ValueError):
    """A file is not the one that was expected: truncated, corrupt or replaced."""


def home() -> Path:
    """Where everything the program writes lies: $ATELIER_HOME, or a folder `.atelier`.

    That folder lies in the clone, or, where Atelier was installed from a wheel, in the working
    directory.
    """
    configured = os.environ.get("ATELIER_HOME")
    if configured:
        return Path(configured).expanduser().resolve()
    return (project_root() if is_a_clone() else Path.cwd()) / ".atelier"


def project_root() -> Path:
    """The folder that holds atelier/, flows/, tasks/ and models/."""
    return Path(__file__).resolve().parents[2]


def is_a_clone() -> bool:
    """Whether this runs from a clone of the repository, not from an installed wheel."""
    return (project_root() / "pyproject.toml").exists()


def project_file(name: str) -> Path:
    """A file of the repository's top folder that a wheel brings, too: `setup.py` lists them."""
    return project_root() / name if is_a_clone() else project_root() / "atelier" / "project" / name


def data_root() -> Path | None:
    """Where a person keeps data sets: $ATELIER_DATA, or None when it is not set."""
    configured = os.environ.get("ATELIER_DATA")
    return Path(configured).expanduser().resolve() if configured else None


def sqlite_address(path: Path, driver: str = "sqlite") -> str:
    """The address of a SQLite file for SQLAlchemy, which takes `%` and `?` for its own.

    With what is escaped goes the driver's name: of an address that begins with `sqlite:///` MLflow
    makes the folder as it is spelled, escapes and all.
    """
    escaped = quote(str(path))
    named = "sqlite+pysqlite" if driver == "sqlite" and escaped != str(path) else driver
    return f"{named}:///{escaped}"


def check_space(folder: Path, wanted_bytes: int) -> None:
    """Raise DiskFull unless so much space is free where a folder is, or will be."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free >= wanted_bytes and (lack := lack_of_room(folder)):  # there may be bytes, but no inodes
        raise DiskFull(errno.ENOSPC, lack, str(folder))
    if free < wanted_bytes:
        raise DiskFull(
            errno.ENOSPC,
            f"{free / 1e6:.0f} MB are free, a run needs {wanted_bytes / 1e6:.0f} MB; free some"
            " space, or set ATELIER_HOME to a folder on another disk",
            str(folder),
        )


@contextmanager
def atomic_file(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Give a temporary path to write to; when the block ends well, it becomes `path`.

    mode: its rights, within a home that only its owner may enter.
    Raises DiskFull when the disk is full; on any error the temporary file is removed and an older
    `path` stays as it was.
    """
    with write_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_prefix(), suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            flush(temporary)
            temporary.chmod(mode)  # mkstemp makes files that only their owner may read
            make_way(path)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def create_file(path: Path, content: bytes) -> bool:
    """Write a file unless there is one, whole or not at all; returns whether it was written.

    Raises DiskFull when the disk is full.
    """
    with write_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_prefix(), dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            flush(temporary)
            temporary.chmod(0o644)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:  # a file system without links: the caller's lock must do
                if error.errno not in (errno.EPERM, errno.ENOTSUP):
                    raise
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def portable(path: Path) -> str:
    """A path as records keep it: below the home from there on, so that the home can be moved."""
    return path.relative_to(home()).as_posix() if path.is_relative_to(home()) else str(path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; when the block ends well, it becomes `path`.

    If another process finished the same folder first, its result stays and ours is dropped: folders
    are named by the digest of what they hold, so the two are the same.
    """
    with write_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
    try:
        with write_errors_named(path):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    flush(file)
            temporary.chmod(0o755)
            try:
                temporary.rename(path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def scratch_folder(within: Path | None = None) -> Iterator[Path]:
    """A folder for the time of a block that nobody else may enter.

    within: where it is made: the home, unless told.
    """
    scratch = make_scratch(within or home())
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def make_scratch(within: Path) -> Path:
    """A new folder that nobody else may enter, named so that it is found if its maker is killed."""
    with write_errors_named(within):
        within.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=_prefix(), dir=within))


def outside_the_home() -> Path:
    """The system's folder for temporary files, for what must not lie in the home."""
    return Path(tempfile.gettempdir())


def set_aside(path: Path, why: str) -> Path:
    """Give what cannot be used another name beside its own, and say so; returns where it lies."""
    numbers = (f"{number:03d}" for number in range(1000))
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in numbers)
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    _logger.warning("%s: %s; it is kept as %s", path, why.removeprefix(f"{path}: "), aside.name)
    return aside


def make_way(path: Path) -> None:
    """Set a folder aside that stands where a file belongs."""
    if path.is_dir():
        set_aside(path, "wanted a file, got a folder")


def _prefix() -> str:
    """Temporary names tell whose they are, so that a killed process's can be told and removed."""
    return f"{TEMPORARY_PREFIX}{this_process()}-"


def orphaned_temp_files(folder: Path) -> list[Path]:
    """The temporary files and folders, at any depth, of processes that have died."""
    found = []
    for parent, folders, files in os.walk(folder):  # others may remove folders under our feet
        names = [name for name in [*folders, *files] if name.startswith(TEMPORARY_PREFIX)]
        found += [path for path in (Path(parent, name) for name in names) if _is_abandoned(path)]
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY_PREFIX)]
    return found


def orphaned_scratch() -> list[Path]:
    """The scratch folders that killed processes of this account left outside the home."""
    with os.scandir(outside_the_home()) as entries:
        ours = [
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(TEMPORARY_PREFIX) and _is_of_this_account(entry)
        ]
    return [path for path in ours if _is_abandoned(path)]


def _is_of_this_account(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_uid == os.getuid()
    except OSError:  # its maker has just removed it
        return False


def left_by_the_killed() -> list[Path]:
    """All that processes which have died left half-written, in the home and outside it."""
    return [*orphaned_temp_files(home()), *orphaned_scratch()]


def remove_orphaned_temp_files(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder."""
    for path in orphaned_temp_files(folder):
        remove(path)


def _is_abandoned(path: Path) -> bool:
    owner = path.name.removeprefix(TEMPORARY_PREFIX).rpartition("-")[0]
    try:
        return not is_alive(owner)
    except (ValueError, OverflowError):  # not a name that we give
        return False


def inside(folder: Path, name: str) -> Path:
    """The path of a name directly in a folder; BadInput for one that would lead out of it."""
    if name in ("", ".", "..") or Path(name).name != name or "\0" in name:
        raise BadInput(
            f"{name!a} cannot be the name of a file in {folder.name}/: wanted a name, not a path"
        )
    return folder / name


@contextmanager
def write_errors_named(path: Path) -> Iterator[None]:
    """Turn what the system says of writes in a block into DiskFull or CannotWrite, with a way out.

    path: what is being written.
    """
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        is_full = _tells_of_a_full_disk(error, path)
        named = error if error.errno else OSError(errno.ENOSPC, "")
        cause = cause_of(named, path.parent) if is_full or error.errno else ""
        if not cause:
            raise
        raise (DiskFull if is_full else CannotWrite)(
            named.errno,
            f"cannot write {path.name}: {cause}, then run the same command again: finished steps"
            " are kept",
            str(path.parent),
        ) from error


def _tells_of_a_full_disk(error: OSError, path: Path) -> bool:
    if error.errno is None:  # NumPy says how many bytes it could not write, and not why
        existing = next(parent for parent in path.parents if parent.exists())
        return shutil.disk_usage(existing).free < MAX_BYTES_OF_A_FULL_DISK
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def flush(path: Path) -> None:
    """Have a file's content on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file's content with UTF-8 text, atomically; newlines are written as they are."""
    with atomic_file(path, mode) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="", errors="surrogatepass")


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a file in one write, so that processes do not mix theirs, and flush them.

    Raises DiskFull when the disk is full; then nothing is added.
    """
    with write_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        make_way(path)
        with path.open("ab", buffering=0) as file:
            content = "".join(f"{line}\n" for line in lines).encode()
            written = file.write(content)
            if written != len(content):  # take back the half: the next line needs a fresh start
                file.truncate(file.tell() - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value or a receipt (a dataclass), atomically, for people and programs."""
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    write_text(path, json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file; raises what `read_record` does."""
    return read_record(path, Any)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """The sha256 of a JSON value or dataclass, independent of the order of keys."""
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder, by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def check_digests(folder: Path, expected: dict[str, str]) -> None:
    """Raise ChecksumMismatch unless each named file is there with its sha256."""
    for name, wanted in expected.items():
        path = folder / name
        got = sha256_of(path) if path.is_file() else "missing"
        if got != wanted:
            raise ChecksumMismatch(f"{path}: sha256 is {got[:12]}, expected {wanted[:12]}")


def keep_aside(path: Path) -> Path:
    """Give a file another name in the same folder, by the moment; returns where it is now."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    aside = path.with_name(f"{path.name}.aside-{moment}")
    path.rename(aside)
    return aside


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; another process may be doing the same."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_unless_gone)
    else:
        path.unlink(missing_ok=True)


def _unless_gone(_: Any, __: str, problem: Any) -> None:
    if not isinstance(problem[1], FileNotFoundError):
        raise problem[1]
