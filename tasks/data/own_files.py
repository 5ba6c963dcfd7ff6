"""What a person's folder holds: one rule, for images and text, for what of it may be data.

Everything that is found is either a file to look into or a row with the reason why not; nothing is
opened here, so that a pipe or a device cannot hold anybody up. Symbolic links are followed, but no
folder is entered twice, nor one that holds the folder itself.
"""

import contextlib
import errno
import functools
import hashlib
import heapq
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from tasks.store.files import BadInput

NOT_DATA = frozenset(
    {
        *{"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r"},
        *{"$recycle.bin", "recycler", "recycled", "#recycle", "@recycle", "lost.dir"},
        *{"system volume information", "lost+found", "network trash folder", "temporary items"},
        *{"__macosx", "@eadir", "@tmp", "#snapshot", "~snapshot", "@recently-snapshot"},
        *{"__pycache__", "node_modules", "zbthumbnail.info", "thumbs.db:encryptable"},
        *{"$winreagent", "$av_asw", "$sysreset", "desktop db", "desktop df", "_gsdata_"},
        *{"aquota.user", "aquota.group"},
    }
)
"""What systems, editors and storage devices leave in folders; compared without regard to case.

Names that begin with a dot are left out besides. "trash" is not among them: it is a class.
"""
_OF_THE_SYSTEM = re.compile(r"(?i)^found\.\d{3}$|^@(eadir|syno)|\.lrdata$")
_LEFTOVER = re.compile(r"(?i)^~\$|^#.+#$|~$|\.(bak|orig|swp|tmp|part|partial|crdownload)$")
_UNREADABLE_MARKS = "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED = re.compile(r"\\(?:\\|x([89a-f][0-9a-f]))")

HIDDEN = "hidden: its name begins with a dot"
OF_THE_SYSTEM = "left by a system or a program"
LEFTOVER = "a backup or an unfinished copy"
READ_ALREADY = "a link to a folder that is read already"
HOLDS_THIS_ONE = "a link to a folder that holds this one"
BROKEN_LINK = "a link that leads nowhere"
SAME_FILE = "another name of a file"
NO_FILE = "neither a file nor a folder"
EMPTY_FOLDER = "an empty folder"
CANNOT_OPEN = "cannot be opened"


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnFile:
    """A regular file of a person's folder."""

    location: str
    """Where it is, as the file system calls it."""
    id: str
    """Its path within the folder, with slashes, made readable."""
    parts: tuple[str, ...]
    """The names on that path, as the file system gives them."""
    size: int
    """Bytes."""
    changed_at: tuple[int, int]
    """When its content and its entry changed, in nanoseconds since 1970."""
    identity: tuple[int, int]
    """Device and number of the file that all its names share."""
    is_link: bool

    @property
    def path(self) -> Path:
        """The same, to be opened."""
        return Path(self.location)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """A file or a folder that is no part of the data."""

    id: str
    reason: str
    """What kind of thing it is and, after a colon, more about this one."""

    @property
    def kind(self) -> str:
        """The part of the reason by which such things are counted."""
        return self.reason.partition(": ")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """All that a folder holds, in the order of names."""

    files: list[OwnFile]
    set_aside: list[SetAside]

    def digest(self) -> str:
        """Changes when a file comes, goes, or is written."""
        found = hashlib.sha256()
        for file in self.files:
            name = os.fsencode("/".join(file.parts))
            found.update(b"%d %d %d %d " % (len(name), file.size, *file.changed_at) + name)
        for each in self.set_aside:
            found.update(f"\n{each.id}\n{each.reason}".encode())
        return found.hexdigest()


def readable(name: str | Path) -> str:
    r"""A name that can be written and shown anywhere: bytes that are not UTF-8 become \xNN.

    Control characters, and marks that turn the direction of writing, are escaped as well, and so
    is the backslash itself: no two names become one.
    """
    text = str(name)
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escaped, text.replace("\\", "\\\\")))


def one_line(text: str) -> str:
    """A text for a message: readable as a name is, but with backslashes as they are."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(letter) in ("Cc", "Cs") or letter in _UNREADABLE_MARKS:
        return letter.encode("unicode_escape").decode("ascii")
    return letter


def path_of(location: str) -> Path:
    r"""The path that a person named; one that is not UTF-8 may be written with \xNN for its bytes.

    So it can travel through forms, files and databases, which take UTF-8 only.
    """
    path = Path(location).expanduser()
    if "\\" not in location or os.path.lexists(path):
        return path
    raw = _ESCAPED.sub(lambda m: chr(0xDC00 + int(m[1], 16)) if m[1] else "\\", location)
    return Path(raw).expanduser()


def writable(source: str) -> str:
    """A source as a person typed it, in UTF-8: only a path that is not gets escapes.

    `path_of` gives the path back.
    """
    if not _SURROGATE.search(source):
        return source
    doubled = source.replace("\\", "\\\\")
    return _SURROGATE.sub(lambda match: _escaped(match[0]), doubled)


def listed(path: Path) -> Listing:
    """Look through a folder and all below it; a file that a person named lists itself."""
    try:
        return _listed(path)
    except OSError as error:
        raise BadInput(
            f"{readable(path)} cannot be opened: {error.strerror}; give a path that you may read"
        ) from error


def _listed(path: Path) -> Listing:
    if not path.is_dir():
        file = _own_file(str(path), (path.name,), path.stat(), is_link=path.is_symlink())
        return Listing(files=[file], set_aside=[])
    walk = _Walk(path)
    return Listing(files=walk.files, set_aside=walk.set_aside)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file to be read; OSError where a pipe or a device has taken its place meanwhile.

    Opening one of those could take for ever, and so could reading it.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if special := _special(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.ENXIO, f"it has become {special}", str(path))
        yield file


def content_digest(path: Path) -> str:
    """The sha256 of a file's content, or that it cannot be read."""
    try:
        with opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error.errno}"


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def once(listing: Listing) -> Listing:
    """A listing in which no file stands twice: a second name of one, link or not, is set aside."""
    first: dict[tuple[int, int], OwnFile] = {}
    for file in sorted(listing.files, key=lambda file: (file.is_link, file.parts)):
        first.setdefault(file.identity, file)
    kept, again = [], []
    for file in listing.files:
        original = first[file.identity]
        if file is original or file.identity[1] == 0:  # some file systems do not number files
            kept.append(file)
        else:
            again.append(SetAside(id=file.id, reason=f"{SAME_FILE}: {original.id}"))
    return Listing(files=kept, set_aside=[*listing.set_aside, *again])


def counted(set_aside: Iterable[SetAside]) -> str:
    """How many were set aside, by kind, the most frequent first; empty for none."""
    kinds = Counter(each.kind for each in set_aside)
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number} {kind}" for kind, number in ordered)


class _Walk:
    """One look through a folder."""

    def __init__(self, root: Path) -> None:
        self.files: list[OwnFile] = []
        self.set_aside: list[SetAside] = []
        self._entered: set[tuple[int, int | str]] = set()
        self._links: list[tuple[tuple[str, ...], Path]] = []
        self._look_into(root, ())
        above = {_identity(parent) for parent in root.resolve().parents}
        # Links come last: what also stands there itself keeps its own name.
        while self._links:
            parts, path = heapq.heappop(self._links)
            target = readable(path.readlink())
            if _identity(path) in above:
                self._leave(parts, f"{HOLDS_THIS_ONE}: {target}")
            elif _identity(path) in self._entered:
                self._leave(parts, f"{READ_ALREADY}: {target}")
            else:
                self._look_into(path, parts)
        self.files.sort(key=lambda file: file.parts)
        self.set_aside.sort(key=lambda each: each.id)

    def _look_into(self, folder: Path, above: tuple[str, ...]) -> None:
        """Go through a folder and the real ones below it; links to folders wait."""
        waiting = [(folder, above)]
        while waiting:
            path, parts = waiting.pop()
            try:
                identity = _identity(path)
                with os.scandir(path) as entries:
                    found = list(entries)
            except OSError as error:
                if not parts:
                    raise
                self._leave(parts, f"{CANNOT_OPEN}: {error.strerror}")
                continue
            if identity in self._entered:  # a folder that is mounted in two places
                self._leave(parts, READ_ALREADY)
                continue
            self._entered.add(identity)
            if parts and not found:
                self._leave(parts, EMPTY_FOLDER)
            for entry in found:
                names = (*parts, entry.name)
                if self._take(entry, names):
                    waiting.append((Path(entry.path), names))

    def _take(self, entry: "os.DirEntry[str]", parts: tuple[str, ...]) -> bool:
        """Keep a file, or say why not; returns whether it is a folder to look into."""
        if (reason := _no_data(entry.name)) is not None:
            self._leave(parts, reason)
            return False
        try:
            found = entry.stat()
        except OSError as error:
            kind = BROKEN_LINK if entry.is_symlink() else CANNOT_OPEN
            self._leave(parts, f"{kind}: {error.strerror}")
            return False
        if found.st_dev in _windows_on_the_system():
            self._leave(parts, f"{NO_FILE}: a view of the running system")
        elif stat.S_ISDIR(found.st_mode):
            if not entry.is_symlink():
                return True
            heapq.heappush(self._links, (parts, Path(entry.path)))
        elif (special := _special(found.st_mode)) is not None:
            self._leave(parts, f"{NO_FILE}: {special}")
        else:
            file = _own_file(entry.path, parts, found, is_link=entry.is_symlink())
            self.files.append(file)
        return False

    def _leave(self, parts: tuple[str, ...], reason: str) -> None:
        self.set_aside.append(SetAside(id=readable("/".join(parts)), reason=reason))


def _own_file(
    location: str, parts: tuple[str, ...], found: os.stat_result, *, is_link: bool
) -> OwnFile:
    return OwnFile(
        location=location,
        id=readable("/".join(parts)),
        parts=parts,
        size=found.st_size,
        changed_at=_times(found),
        identity=(found.st_dev, found.st_ino),
        is_link=is_link,
    )


def _times(found: os.stat_result) -> tuple[int, int]:
    return found.st_mtime_ns, found.st_ctime_ns


def _no_data(name: str) -> str | None:
    """Why a name alone tells that this is no data; None where it does not."""
    if name.startswith("."):
        return HIDDEN
    if name.lower() in NOT_DATA or _OF_THE_SYSTEM.search(name):
        return f"{OF_THE_SYSTEM}: {readable(name)}"
    return LEFTOVER if _LEFTOVER.search(name) else None


def _special(mode: int) -> str | None:
    """What a thing is that is neither a file nor a folder: opening it may take for ever."""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


@functools.cache
def _windows_on_the_system() -> frozenset[int]:
    """Devices whose files are made up while they are read, some of them without an end."""
    found = set()
    for path in ("/proc", "/sys"):
        with contextlib.suppress(OSError):
            found.add(Path(path).stat().st_dev)
    return frozenset(found - {Path("/").stat().st_dev})


def _identity(path: Path) -> tuple[int, int | str]:
    """What two ways to one folder share; some file systems do not number what they hold."""
    found = path.stat()
    return found.st_dev, found.st_ino or str(path.resolve())
