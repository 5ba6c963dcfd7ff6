"""The home belongs to one person: nobody else on the machine may look into it.

Its databases hold everything that was ever trained, the secret of both servers among them.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

OWNER_ONLY = 0o077
"""The umask of everything that we start: what it makes, its owner alone may read."""
_FOLDERS = ("prefect", "logs", "mlartifacts")


def make_private(home: Path) -> None:
    """Take from everybody else the right to enter the home, and to read its databases.

    Also where it was made by an older version, or by hand. What cannot be changed stays as it is,
    and `atelier doctor` tells of it.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    home.mkdir(mode=0o700, exist_ok=True)
    if is_shared_place(home):
        return
    for path in open_to_others(home):
        with suppress(OSError):  # another owner's, or gone
            path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~OWNER_ONLY)


def is_shared_place(home: Path) -> bool:
    """Whether a folder is there for more than us, so that its mode is not ours to set."""
    with suppress(OSError, RuntimeError):
        if home.stat().st_mode & stat.S_ISVTX:
            return True
        return home.resolve() in (Path("/"), Path.home().resolve(), Path(tempfile.gettempdir()))
    return False


def open_to_others(home: Path) -> list[Path]:
    """The home, and what of it holds the most, as far as others may read or enter it."""
    return [path for path in _private_paths(home) if _mode(path) & OWNER_ONLY]


def _private_paths(home: Path) -> Iterator[Path]:
    yield home
    yield from (home / name for name in _FOLDERS)
    for folder in (home, home / "prefect"):
        yield from sorted(folder.glob("*.db*"))
    yield from sorted((home / "logs").glob("*.log"))


def _mode(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        return 0
    return 0 if stat.S_ISLNK(found.st_mode) else stat.S_IMODE(found.st_mode)


def not_ours(home: Path) -> bool:
    """Whether the home is another person's, who may then read what we write."""
    with suppress(OSError):
        return home.stat().st_uid != os.getuid()
    return False
