"""Where records are put: the one seam between the artifact store and what lies below it.

A storage has one way to write, to create once, for a local folder and an object store have no more
in common. There are two: the home folder, and, behind it, a store that several homes share
(`tasks.store.shared`).
"""

import os
from pathlib import Path
from typing import Protocol

from tasks.store.files import TEMPORARY_PREFIX, create_file, home
from tasks.store.records import DamagedRecord, told

MANIFEST = "manifest.json"
"""The record of an artifact's folder, written last."""
MARK = ".shared"
"""A file in an artifact's folder, but not of the artifact: the address of the store that has it."""
STORE_VARIABLE = "ATELIER_STORE"
"""The address of a store that several homes share; see `tasks.store.shared`."""


class Storage(Protocol):
    """Named contents that are never changed; names have slashes and are no paths of a machine."""

    def create(self, name: str, content: bytes) -> bool:
        """Put a content under a name, whole or not at all; False where the name is taken."""

    def read(self, name: str) -> bytes:
        """The content of a name; raises FileNotFoundError, or DamagedRecord if it is unreadable."""

    def names(self, folder: str) -> list[str]:
        """The names of all contents below a folder, at any depth, in order; none if it is not."""


class LocalFolder:
    """The storage of one machine: names are paths below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, name: str, content: bytes) -> bool:
        """See `Storage`; raises DiskFull."""
        return create_file(self._root / name, content)

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DamagedRecord(f"{self._root / name}: {told(error)}") from error

    def names(self, folder: str) -> list[str]:
        """See `Storage`; what is being written has no name yet."""
        found = (path for path in (self._root / folder).rglob("*") if path.is_file())
        whole = (path for path in found if not path.name.startswith(TEMPORARY_PREFIX))
        return sorted(path.relative_to(self._root).as_posix() for path in whole)


def storage() -> Storage:
    """The storage of this home."""
    return LocalFolder(home())


def has_shared_store() -> bool:
    """Whether a shared store is set, without importing what speaks with one."""
    return bool(os.environ.get(STORE_VARIABLE, "").strip())


def name_of(folder: Path) -> str:
    """What storages call a folder of the home."""
    return folder.relative_to(home()).as_posix()
