"""What interrupted work leaves on the disk: temporary files and folders that nothing refers to."""

import time
from dataclasses import dataclass
from pathlib import Path

from prefect import task

from tasks.storage import TEMPORARY_PREFIX, home, remove


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftovers:
    """What was removed."""

    files: int
    num_bytes: int


@task(name="remove-leftovers")
def remove_leftovers(keep_days: float) -> Leftovers:
    """Remove temporary files and folders of the home that are older than some days.

    Finished results never bear the temporary prefix, so that nothing that a run, a version or a
    gallery refers to can be lost.
    """
    newest = time.time() - keep_days * 86_400
    found = [path for path in _temporaries(home()) if path.lstat().st_mtime < newest]
    num_bytes = sum(_size(path) for path in found)
    for path in found:
        remove(path)
    return Leftovers(files=len(found), num_bytes=num_bytes)


def _temporaries(root: Path) -> list[Path]:
    found = list(root.rglob(f"{TEMPORARY_PREFIX}*")) if root.is_dir() else []
    return [path for path in found if not any(_is_temporary(parent) for parent in path.parents)]


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(TEMPORARY_PREFIX)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())
