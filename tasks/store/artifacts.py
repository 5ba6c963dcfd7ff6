"""The artifact store: everything that costs time to make is made once, and found again.

An artifact is a folder `artifacts/<kind>/<name>/<key>` of the home with a manifest, written last
and created once: what it is, the sha256 and size of each file, the digests of what it was made
from, and a record that only its kind understands. A folder without a manifest is unfinished. No
manifest holds a path outside its folder, so a home may be moved, copied and restored.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from tasks.runtime.markup import plain
from tasks.store.files import (
    TEMPORARY_PREFIX,
    ChecksumMismatch,
    digest_of,
    flush,
    home,
    inside,
    remove,
    remove_orphaned_temp_files,
    set_aside,
    sha256_of,
    write_errors_named,
)
from tasks.store.locks import file_lock
from tasks.store.records import DamagedRecord, parsed, shaped
from tasks.store.steps import StepRecord, recorded
from tasks.store.storage import MANIFEST, MARK, has_shared_store, name_of, storage

if TYPE_CHECKING:
    from tasks.store.exchange import Exchange, Files

Kind = Literal[
    "images",
    "corpora",
    "tokens",
    "models",
    "initial-weights",
    "stable-phases",
    "paces",
    "evaluations",
    "samples",
    "comparisons",
    "searches",
    "proposals",
    "trials",
    "findings",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
KEY_DIGITS = 16
"""So many digits of a key name an artifact's folder."""

_STEPS: dict[Kind, str] = {
    **{"images": "-images", "corpora": "-text"},
    **{"initial-weights": "-initial-weights", "stable-phases": "-stable-phase"},
    **{"evaluations": "-evaluation"},
    **{"comparisons": "-comparison", "searches": "-search", "proposals": "-proposal"},
    **{"trials": "-trial", "findings": "-finding", "paces": "-pace"},
}
"""What a kind puts behind an artifact's name to name the step that makes it."""
FOLDERS_OF_BEFORE = (
    *("runs", "evaluations", "comparisons"),
    *("data/images", "data/text", "data/tokens"),
)
"""Where in a home the version before kept its results."""
OF_ONE_HOME: tuple[Kind, ...] = ("samples", "paces", "stable-phases")
"""What does not go to a shared store: a page of what a home's champions made, how fast a machine
is, and the state before a decay, which is large and made again if need be."""
_NOT_RECORDED = ("folder", "digest", "was_stored")
"""Fields of receipts that the store knows better."""

Receipt = TypeVar("Receipt")

_logger = logging.getLogger("atelier")


def log(message: str) -> None:
    """As `tasks.runtime.progress.log`, which imports Prefect: the command line reads artifacts."""
    _logger.info(plain(message))


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """What a manifest says."""

    kind: Kind
    name: str
    key: str
    """The cache key: sha256 of all that the result depends on."""
    digest: str
    """sha256 of the content: what others name as their input."""
    files: dict[str, tuple[int, str]]
    """Size in bytes and sha256, by path below the artifact's folder, with slashes."""
    inputs: tuple[str, ...]
    """The digests of the artifacts that it was made from."""
    record: dict[str, Any]
    """What only its kind understands."""
    was_stored: bool = False
    """Whether an earlier run had made it; no part of the manifest."""

    @property
    def remark(self) -> str:
        """A word for the log line of what was found rather than made."""
        return "; unchanged" if self.was_stored else ""

    @property
    def folder(self) -> Path:
        """Where its files lie now."""
        return artifact_folder(self.kind, self.name, self.key)

    def as_receipt(self, receipt: type[Receipt], **more: Any) -> Receipt:
        """The typed receipt (a dataclass) that was recorded; raises DamagedRecord.

        more: fields that are not in the record.
        """
        facts = {**self.record, "folder": str(self.folder), "digest": self.digest}
        made: Receipt = shaped({**facts, **more}, receipt, str(self.folder / MANIFEST))
        return made


def artifact_folder(kind: Kind, name: str, key: str) -> Path:
    """The folder of an artifact, made or not."""
    return inside(inside(home() / "artifacts" / kind, name), key[:KEY_DIGITS])


def step_of(kind: Kind, name: str) -> str:
    """The name by which the history knows the making of an artifact."""
    return f"{name}{_STEPS.get(kind, '')}"


def facts_of(receipt: Any) -> dict[str, Any]:
    """What is recorded of a receipt (a dataclass or a mapping), as JSON."""
    plain = asdict(receipt) if is_dataclass(receipt) and not isinstance(receipt, type) else receipt
    kept = {name: value for name, value in plain.items() if name not in _NOT_RECORDED}
    made: dict[str, Any] = json.loads(json.dumps(kept))
    return made


# Manifests ------------------------------------------------------------------------------------


def write_manifest(
    folder: Path, artifact: Artifact, files: Collection[str] | None = None
) -> Artifact:
    """Seal a folder: list its files in the manifest, and give the artifact its digest.

    artifact: with the digest of its content, or without one: then it is that of the files; its own
    files are not looked at. files: those that belong to it, by default all below the folder.
    """
    remove(folder / MARK)  # no store has what is written now
    if files is None:
        found = (path for path in folder.rglob("*") if path.is_file())
        names = {path.relative_to(folder).as_posix() for path in found} - {MANIFEST}
        files = {name for name in names if not Path(name).name.startswith(TEMPORARY_PREFIX)}
    for name in files:
        flush(folder / name)
    listed = {n: ((folder / n).stat().st_size, sha256_of(folder / n)) for n in sorted(files)}
    digest = artifact.digest or digest_of({name: sha for name, (_, sha) in listed.items()})
    made = replace(artifact, digest=digest, files=listed, was_stored=False)
    plain = {name: value for name, value in asdict(made).items() if name != "was_stored"}
    text = json.dumps({**plain, "seal": digest_of(plain)}, indent=2, sort_keys=True)
    remove(folder / MANIFEST)  # what was sealed before, of the same key
    storage().create(f"{name_of(folder)}/{MANIFEST}", f"{text}\n".encode("ascii"))
    return made


def read_manifest(folder: Path) -> Artifact:
    """The manifest of a folder, whose files are not looked at.

    Raises FileNotFoundError where there is none, DamagedRecord or ChecksumMismatch for another.
    """
    return manifest_of(storage().read(f"{name_of(folder)}/{MANIFEST}"), folder)


def manifest_of(content: bytes, folder: Path) -> Artifact:
    """The manifest that a content is, if it is that of a folder; raises as `read_manifest`."""
    path = folder / MANIFEST
    plain = parsed(content, dict[str, Any], str(path))
    seal = plain.pop("seal", None)
    found: Artifact = shaped(plain, Artifact, str(path))
    if seal != digest_of(plain):
        raise ChecksumMismatch(f"{path} was changed")
    own = artifact_folder(found.kind, found.name, found.key)
    if folder.parent != own.parent or not folder.name.startswith(own.name):
        raise DamagedRecord(f"{path}: is the manifest of {found.kind}/{found.name}/{own.name}")
    return found


def verify(folder: Path, record: Any = Any) -> Artifact:
    """The artifact in a folder, with every file as it was when it was made.

    record: the kind that its record must be (see `tasks.store.records`). Raises what
    `read_manifest` does.
    """
    found = read_manifest(folder)
    for name, (size, sha256) in found.files.items():
        path = folder / name
        got = path.stat().st_size if path.is_file() else "missing"
        if got != size:
            raise ChecksumMismatch(f"{path}: its size is {got}, expected {size}")
        if (digest := sha256_of(path)) != sha256:
            raise ChecksumMismatch(f"{path}: sha256 is {digest[:12]}, expected {sha256[:12]}")
    _check_record(found, record)
    return found


def _check_record(artifact: Artifact, record: Any) -> None:
    more = {"folder": str(artifact.folder), "digest": artifact.digest}
    shaped({**artifact.record, **more}, record, f"{artifact.folder / MANIFEST}: record")


def is_intact(folder: Path) -> bool:
    """Whether a folder holds an artifact that is unchanged since; nothing is removed."""
    try:
        verify(folder)
    except (OSError, ValueError):
        return False
    return True


# Making ---------------------------------------------------------------------------------------


@dataclass(kw_only=True, slots=True)
class OpenArtifact:
    """An artifact that one process has for itself, to find it or to make it."""

    kind: Kind
    name: str
    key: str
    inputs: tuple[str, ...]
    step: StepRecord
    folder: Path
    can_resume: bool = False
    is_content: bool = False
    """Whether it is keyed by its content, which is at hand when its key is known."""
    exchange: "Exchange | None" = None
    """The artifact in the store that several homes share, if there is one."""

    def say(self, reason: str) -> None:
        """Log why it goes as it does, and keep it for `atelier explain`."""
        log(f"{self.step.step}: {reason}")
        self.step.reasons.append(reason)

    def found(self, record: Any = Any) -> Artifact | None:
        """The artifact that an earlier run made, if it is whole; what is left of another goes.

        record: the kind of its record. Unfinished work that can be resumed stays. Where several
        homes share a store, one that another made is fetched, or waited for while it is made;
        else this process has it claimed.
        """
        found = self._found_here(record)
        if found is not None or self.exchange is None or self.is_content:
            return found
        is_here = self.exchange.fetched(partial(_files_of, self.folder, record))
        return self._found_here(record) if is_here else None

    def share(self) -> None:
        """Send the artifact to the shared store, if there is one and the artifact is finished.

        With the first that goes, others go that waited for the store to answer.
        """
        if self.exchange is None:
            return
        try:
            finished = read_manifest(self.folder)
            has_answered = self.exchange.offer(finished.files, finished.digest)
        except (FileNotFoundError, ValueError):  # unfinished, or damaged meanwhile
            return
        from tasks.store.outbox import after_an_answer

        if has_answered:
            after_an_answer(self.exchange.store)

    def _found_here(self, record: Any) -> Artifact | None:
        if self.folder.is_file():
            set_aside(self.folder, "wanted a folder, got a file")
        if not self.folder.exists():
            return None
        try:
            found = verify(self.folder, record)
        except FileNotFoundError:
            if any(_is_result(path) for path in self.folder.iterdir()):
                self.say("an earlier result has no manifest: it was interrupted, or is damaged")
            if not self.can_resume:
                remove(self.folder)
            return None
        except (OSError, ValueError) as error:
            self.say(f"a stored result is damaged and will be made again: {error}")
            remove(self.folder)
            return None
        self.step.state = "unchanged"
        return replace(found, was_stored=True)

    def commit(
        self, record: Any, *, digest: str = "", files: Collection[str] | None = None
    ) -> Artifact:
        """Write the manifest over all files (or those named); record: a receipt, or JSON by name.

        digest: of the content, where it is not that of the files.
        """
        artifact = Artifact(
            kind=self.kind,
            name=self.name,
            key=self.key,
            digest=digest,
            files={},
            inputs=self.inputs,
            record=facts_of(record),
        )
        return write_manifest(self.folder, artifact, files)


def _files_of(folder: Path, record: Any, content: bytes) -> "Files":
    """The files that a manifest of the shared store lists, if it is that of a folder."""
    artifact = manifest_of(content, folder)
    _check_record(artifact, record)
    return artifact.files


def _is_result(path: Path) -> bool:
    """Whether a file of an unfinished folder is written only when the work is all but done."""
    return path.is_file() and path.name != "checkpoint.safetensors" and path.name[0] != "."


@contextmanager
def opened(
    kind: Kind,
    name: str,
    key_parts: Mapping[str, Any],
    *,
    inputs: Sequence[str] = (),
    key: str = "",
    can_resume: bool = False,
) -> Iterator[OpenArtifact]:
    """Give a process an artifact for itself: another one that wants the same waits.

    key_parts: all that the result depends on, as JSON; inputs: digests of what it is made from;
    key: where its folder is not named by the digest of key_parts. What an error leaves behind is
    removed, unless it can be resumed.
    """
    step, is_content = step_of(kind, name), bool(key)
    key = key or digest_of(dict(key_parts))
    waiting = partial(log, f"{step}: another run holds its lock; waiting for its result")
    with (
        file_lock(f"{kind}-{name}-{key[:KEY_DIGITS]}", waiting),
        recorded(step, key_parts, key) as record,
    ):
        _tell_of_earlier_homes()
        folder = artifact_folder(kind, name, key)
        remove_orphaned_temp_files(folder)
        place = OpenArtifact(
            kind=kind,
            name=name,
            key=key,
            inputs=tuple(digest for digest in inputs if digest),
            step=record,
            folder=folder,
            can_resume=can_resume,
            is_content=is_content,
        )
        place.exchange = _exchange(kind, folder, place.say)
        try:
            with write_errors_named(folder):
                yield place
                place.share()
        except BaseException:
            if not can_resume and not (folder / MANIFEST).exists():
                remove(folder)
            raise
        finally:
            if place.exchange is not None:
                place.exchange.close()


def _exchange(kind: Kind, folder: Path, say: Callable[[str], None]) -> "Exchange | None":
    """An artifact in the shared store; None without one."""
    if kind in OF_ONE_HOME or not has_shared_store():
        return None
    from tasks.store.exchange import Exchange
    from tasks.store.shared import shared

    store = shared()
    return Exchange(store, folder, say) if store else None


def get_or_create(
    kind: Kind,
    name: str,
    key_parts: Mapping[str, Any],
    make: Callable[[Path], Any],
    *,
    inputs: Sequence[str] = (),
    record: Any = Any,
) -> Artifact:
    """The artifact of a key, made now unless it was made before.

    make: fills the empty folder that it is given, and returns the record. The rest as for `opened`
    and `OpenArtifact.found`.
    """
    with opened(kind, name, key_parts, inputs=inputs) as place:
        if (found := place.found(record)) is None:
            place.folder.mkdir(parents=True)
            found = place.commit(make(place.folder))
    return found


def _tell_of_earlier_homes() -> None:
    """Say once that a home was made by the version before, whose results this one does not read."""
    if (home() / "artifacts").exists():
        return
    (home() / "artifacts").mkdir(parents=True, exist_ok=True)
    if any((home() / name).is_dir() for name in FOLDERS_OF_BEFORE):
        log(
            "this home was made by an earlier version: data and models are made again once;"
            " registry, champions and gallery stay, and `atelier gc` tells what can be freed"
        )


# Looking --------------------------------------------------------------------------------------


def folders(kind: Kind) -> list[Path]:
    """The folders of all artifacts of a kind, finished or not."""
    found = sorted((home() / "artifacts" / kind).glob("*/*"))
    return [path for path in found if path.is_dir() and not path.name.startswith(TEMPORARY_PREFIX)]


def artifacts(kind: Kind) -> Iterator[Artifact]:
    """The finished artifacts of a kind; one whose manifest is damaged counts as unfinished."""
    for folder in folders(kind):
        try:
            yield read_manifest(folder)
        except (OSError, ValueError):
            continue


def find(kind: Kind, digest: str) -> Artifact | None:
    """An artifact by the digest of its content."""
    bring(kind, digest)
    return next((each for each in artifacts(kind) if each.digest == digest), None)


def bring(kind: Kind, digest: str) -> None:
    """Have the artifacts of a content in this home, if it lacks them and another home made some."""
    if not has_shared_store() or any(each.digest == digest for each in artifacts(kind)):
        return
    from tasks.store.exchange import is_away, note_away, with_digest
    from tasks.store.shared import StoreAway, shared

    store = shared()
    assert store is not None, "an address is set"
    try:
        names = [] if is_away(store) else with_digest(store, kind, digest)
    except StoreAway as error:
        note_away(store, error)
        return
    for name in names:
        folder = home() / name
        with file_lock(f"{kind}-{folder.parent.name}-{folder.name}"):
            exchange = _exchange(kind, folder, partial(_say_of, folder))
            if exchange is not None and not folder.exists():
                exchange.brought(partial(_files_of, folder, Any))


def _say_of(folder: Path, reason: str) -> None:
    log(f"{folder.parent.name}: {reason}")
