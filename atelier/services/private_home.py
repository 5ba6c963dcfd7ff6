"""The home belongs to one person: nobody else on the machine may look into it.

Its databases hold everything that was ever trained, the secret of both servers among them.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tasks.store.files import BadInput
from tasks.store.files import home as chosen_home

OWNER_ONLY = 0o077
"""The umask of everything that we start: what it makes, its owner alone may read."""
_FOLDERS = ("prefect", "logs", "mlartifacts")


def check_place() -> None:
    """Raise BadInput where ATELIER_HOME names what no folder can ever be, whoever made it."""
    told = os.environ.get("ATELIER_HOME", "")
    to_do = "set ATELIER_HOME to a folder that you may write to"
    try:
        place = str(chosen_home())
        place.encode()
        os.lstat(place)
    except UnicodeEncodeError:
        why = "its name is not UTF-8, in which the addresses of databases are written"
    except RuntimeError as error:  # links in a circle, a person of an unknown name
        why = str(error).rstrip(".")
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            return  # not made yet, or not ours to enter: whoever makes it says so
        why = error.strerror or str(error)
    else:
        return
    raise BadInput(f"ATELIER_HOME is {_cut(told)!r}, and cannot be: {why}; {to_do}")


def _cut(text: str, max_characters: int = 100) -> str:
    return text if len(text) <= max_characters else f"{text[:max_characters]}..."


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
