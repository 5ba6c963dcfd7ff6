"""Files of MLflow's that lie in a folder of this machine, read without MLflow.

The same questions as MLflow's own stores of artifacts answer, and the same answers.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

_BEING_WRITTEN = ".artifact.uploading."
"""What the name of a file begins with that MLflow has not written to its end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file or a folder, by its path below the store's own folder."""

    path: str
    is_dir: bool
    file_size: int | None
    """In bytes; None for a folder."""


class StoredFiles:
    """A folder of files; links are followed as far as they stay in it, as MLflow does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def at(address: str) -> "StoredFiles | None":
        """The files at a `file:` address or a path; None for what lies elsewhere."""
        parts = urlsplit(address)
        if parts.scheme not in ("", "file") or parts.netloc:
            return None
        return StoredFiles(Path(unquote(parts.path)))

    def list_artifacts(self, path: str | None = None) -> list[StoredFile]:
        """What lies in the folder, or in one below it; nothing where there is none."""
        folder = self._within(path or "")
        if not folder.is_dir():
            return []
        return sorted(
            (
                self._told(each)
                for each in folder.iterdir()
                if not each.name.startswith(_BEING_WRITTEN)
            ),
            key=lambda each: each.path,
        )

    def download_artifacts(self, path: str, into: str) -> None:
        """Copy all files of the folder, or of one below it, into a folder; raises OSError."""
        for each in self.list_artifacts(path):
            target = Path(into) / each.path
            if each.is_dir:
                target.mkdir(parents=True, exist_ok=True)
                self.download_artifacts(each.path, into)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._within(each.path), target)

    def _within(self, path: str) -> Path:
        """Where a path leads; raises OSError for a link that leads out of the folder."""
        found = self._folder / path
        if not found.resolve().is_relative_to(self._folder.resolve()):
            raise OSError("Invalid path: resolved path is outside the artifact directory")
        return found

    def _told(self, path: Path) -> StoredFile:
        is_dir = path.is_dir()
        return StoredFile(
            path=path.relative_to(self._folder).as_posix(),
            is_dir=is_dir,
            file_size=None if is_dir else path.stat().st_size,
        )
