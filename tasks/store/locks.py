"""Locks of a home: one process at a time, and none left when its process dies."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from tasks.store.files import home, inside, make_way, write_errors_named


@contextmanager
def file_lock(
    name: str,
    on_wait: Callable[[], None] = lambda: None,
    while_waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[None]:
    """Let only one process of this home at a time into the blocks of a name.

    on_wait: called once if another is in there; then its end is waited for, inside `while_waiting`.
    """
    path = inside(home() / "locks", f"{name}.lock")
    with write_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        make_way(path)
    while True:
        with write_errors_named(path):
            file = path.open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                with while_waiting():
                    fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_still(path, file.fileno()):  # it was removed while we waited
                continue
            os.utime(file.fileno())
            yield
            return


def remove_unused_lock(path: Path) -> bool:
    """Remove a lock's file if nobody holds it; returns whether it did."""
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, file.fileno()):
                path.unlink()
                return True
    except OSError:  # held, or gone
        return False
    return False


def _is_still(path: Path, handle: int) -> bool:
    """Whether a path is still the file that was opened under it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
