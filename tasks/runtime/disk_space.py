"""Why nothing can be written: full disks, quotas, no free inodes, read-only disks, open files.

An error of the system's names a cause in three words. Servers and their databases hide even that:
what reaches us is a code 500, or a wait without end. So whoever meets such a failure asks here
first what is the matter with the disk.
"""

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

BYTES_OF_A_FULL_DISK = 1_000_000
"""With less than this a database cannot grow."""
SECONDS_BETWEEN_LOOKS = 5.0

_CAUSES = {
    errno.ENOSPC: ("no space is left", "free some space there"),
    errno.EDQUOT: ("your disk quota is used up", "free some space of yours there"),
    errno.EROFS: ("the disk can only be read", "mount it so that it can be written to"),
    errno.EMFILE: ("this process has too many files open", "raise the limit: `ulimit -n 4096`"),
    errno.ENFILE: ("the system has too many files open", "end what holds many of them"),
    errno.EIO: ("the disk reports an error of its own", "see `dmesg`, and copy what you need"),
}
_NO_INODES = ("no more files can be made, though there is space", "remove files that nobody needs")


def cause_of(error: OSError, folder: Path) -> str:
    """What keeps a file from being written to a folder, and what to do; empty for other errors."""
    if error.errno == errno.ENOSPC and _free(folder)[1] == 0:
        return _sentence(_NO_INODES, folder)
    known = _CAUSES.get(error.errno or 0)
    return _sentence(known, folder) if known else ""


def lack_of_room(folder: Path, try_it: bool = False) -> str:
    """Why nothing can be written below a folder, and what to do; empty where something can.

    try_it: write a file without a name, for quotas show in no other way.
    """
    free_bytes, free_files = _free(folder)
    if free_files == 0:
        return _sentence(_NO_INODES, folder)
    if free_bytes < BYTES_OF_A_FULL_DISK:
        return _sentence(_CAUSES[errno.ENOSPC], folder)
    if try_it:
        try:
            _write_a_little(_existing(folder))
        except OSError as error:
            return cause_of(error, folder)
    return ""


def watch(folders: Iterable[Path], report: Callable[[str], None]) -> None:
    """Say from now on, in a thread, when one of the folders' disks fills up, and when no more.

    What waits for a server whose database cannot grow waits in silence, for minutes.
    """
    with _starting:
        if all(thread.name != _WATCH for thread in threading.enumerate()):
            disks = {_existing(folder).stat().st_dev: folder for folder in folders}
            arguments = (list(disks.values()), report)
            threading.Thread(target=_look, args=arguments, daemon=True, name=_WATCH).start()


_WATCH = "watch for room"
_starting = threading.Lock()


def _look(folders: list[Path], report: Callable[[str], None]) -> None:
    lacking: dict[Path, str] = {}
    pause = threading.Event()
    while True:
        for folder in folders:
            with suppress(OSError):
                _report_change(folder, lacking, report)
        pause.wait(SECONDS_BETWEEN_LOOKS)


def _report_change(folder: Path, lacking: dict[Path, str], report: Callable[[str], None]) -> None:
    """Say what has changed; lacking: what was said of each folder."""
    lack = lack_of_room(folder)
    if lack and folder not in lacking:
        report(f"{lack}; the work waits as long as servers and disk let it, and goes on then")
        lacking[folder] = lack
    elif not lack and folder in lacking:
        del lacking[folder]
        report(f"there is space again at {folder}")


def _sentence(cause: tuple[str, str], folder: Path) -> str:
    what, to_do = cause
    free_bytes, _ = _free(folder)
    return f"{what} at {folder} ({free_bytes / 1e6:.1f} MB free): {to_do}"


def _free(folder: Path) -> tuple[int, int | None]:
    """Bytes and files that we may still write where a folder is, or will be."""
    found = os.statvfs(_existing(folder))
    counts_files = found.f_files > 0  # some file systems make inodes as they need them
    return found.f_bavail * found.f_frsize, found.f_favail if counts_files else None


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _write_a_little(folder: Path) -> None:
    """A file that has no name, and is gone when it is closed."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * 65_536)
        file.flush()
        os.fsync(file.fileno())
