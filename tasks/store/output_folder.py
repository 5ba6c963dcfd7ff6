"""A folder for a person, anywhere: whole or not at all, and never in place of what lies there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.runtime.processes import is_alive
from tasks.store.files import TEMPORARY_PREFIX, BadInput, atomic_folder, remove, write_errors_named


def check_free(folder: Path) -> None:
    """Raise BadInput unless a folder is not there yet, or is empty."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BadInput(f"{folder} is no folder; wanted one that is empty or not there yet")
    if folder.is_dir() and (found := next(folder.iterdir(), None)):
        raise BadInput(
            f"{folder} holds files already, such as {found.name}; wanted a folder that is empty or"
            " not there yet"
        )


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; when the block ends well, it becomes `folder`.

    It may be read by everybody, like what a person makes elsewhere. What a killed process left
    beside it is removed. Raises BadInput where there are files, also those that came meanwhile.
    """
    check_free(folder)
    with write_errors_named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f"{TEMPORARY_PREFIX}*"):
            if not _is_at_work(left):
                remove(left)
    with atomic_folder(folder) as temporary:
        made = temporary.stat().st_ino
        yield temporary
        for path in temporary.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
    if folder.stat().st_ino != made:
        check_free(folder)
        raise BadInput(f"another process made {folder} meanwhile; run the same command again")


def _is_at_work(temporary: Path) -> bool:
    """Whether the process that a temporary name tells of lives, or might."""
    owner = temporary.name.removeprefix(TEMPORARY_PREFIX).rpartition("-")[0]
    try:
        return is_alive(owner)
    except (ValueError, OverflowError):  # not a name that we give
        return True
