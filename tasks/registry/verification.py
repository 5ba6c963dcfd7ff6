"""A version's files, fetched into a folder of our own and compared before anything reads them.

Whoever can write to the artifact store, or to the registry's database, could otherwise run code
wherever a version is loaded. The audit log, which lies in the home or in the store that homes
share, says what the files were.
Names and sizes are compared before anything is fetched, the bytes after, in the copy that is used.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tasks.packaging.files import (
    MLFLOWS_OWN_NOTE,
    Files,
    PackageChanged,
    PackageUnknown,
    brought,
    check_descriptions,
    content_of_files,
    difference,
    digest_of_brought,
    digest_of_files,
    files_of,
)
from tasks.registry import audit_anchor, audit_log
from tasks.registry.version_tags import whole
from tasks.runtime.messages import one_line
from tasks.runtime.suggestions import did_you_mean
from tasks.store.files import BadInput, atomic_folder, check_space, home, scratch_folder
from tasks.tracking import registry_queries
from tasks.tracking.home_database import RegisteredVersion, asked, is_at_hand, tracking_uri
from tasks.tracking.mlflow_client import TrackingUnavailable, client, code_of, outages_named
from tasks.tracking.stored_files import StoredFiles

PACKAGE_TAG = "package_digest"
UNVERIFIED = (PackageChanged, PackageUnknown, audit_log.AuditLogDamaged)
"""Why a version is not loaded."""

_BYTES_TO_BE_FREE = 1 << 20
_SERVED = "mlflow-artifacts:"
_MAX_BYTES_OF_A_NOTE = 1000
_MAX_FILES = 1000
"""More than any package has: a listing that does not end is given up."""


@contextmanager
def verified_copy(name: str, alias_or_version: str) -> Iterator[tuple[Path, RegisteredVersion]]:
    """A copy of a version's files that are those of the audit log, and MLflow's description.

    The copy is gone after the block. Raises BadInput for a version that is not there,
    PackageChanged, PackageUnknown, and AuditLogDamaged.
    """
    with outages_named():
        version = _version(name, alias_or_version)
        entry = audit_anchor.registered_package(name, version.version)
        _check_tags(version, entry)
        with fetched(version, entry.files) as folder:
            yield folder, version


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """A version whose files are those of the audit log."""

    name: str
    version: int
    digest: str
    """Of all its files."""
    num_files: int
    since: str
    """When the log was told, UTC."""


def verified(name: str, alias_or_version: str, copy_to: Path | None = None) -> Verified:
    """Verify a version, as `verified_copy` does, and execute nothing of it.

    copy_to: a folder that is not there yet, for a copy of the very files that were compared.
    """
    if copy_to is not None and copy_to.exists():
        raise BadInput(f"{copy_to} is there already; wanted is a folder that is not")
    with verified_copy(name, alias_or_version) as (folder, version):
        if copy_to is not None:
            with atomic_folder(copy_to) as temporary:
                shutil.copytree(folder, temporary, dirs_exist_ok=True)
    number = version.version
    entry = audit_anchor.registered_package(name, number)
    return Verified(
        name=name,
        version=number,
        digest=entry.digests["package"],
        num_files=len(entry.files),
        since=entry.at,
    )


@contextmanager
def fetched(version: RegisteredVersion, files: Files) -> Iterator[Path]:
    """A copy of a version's files, which are those of a listing; raises PackageChanged."""
    with outages_named(), _named(version), _readable_scratch() as scratch:
        folder = _fetched(version, scratch, files)
        if told := difference(files_of(folder), files):
            raise PackageChanged(told)
        yield folder


def check_stored(version: RegisteredVersion) -> None:
    """Raise PackageChanged where the store has nothing of a version; its files are not compared."""
    with outages_named(), _named(version):
        _check_source(version)
        try:
            if not _store(version).list_artifacts():
                raise PackageChanged("it has no files")
        except Exception as error:
            if not _is_of_files(error):
                raise
            raise _unfetched(version, error) from error


@contextmanager
def _readable_scratch() -> Iterator[Path]:
    """A scratch folder that MLflow can load from: it takes a "%20" in a path for a space."""
    if unquote(str(home())) == str(home()):
        with scratch_folder() as scratch:
            yield scratch
        return
    plain = [each for each in (tempfile.gettempdir(), "/tmp", "/var/tmp") if unquote(each) == each]
    with scratch_folder(Path(next(iter(plain), tempfile.gettempdir()))) as scratch:
        yield scratch


def unlisted_files(version: RegisteredVersion, expected: dict[str, str] | None = None) -> Files:
    """The listing of a version's files, none of which was kept; raises PackageChanged.

    They are compared with expected (sha256 by path) or else with the package digest in the
    version's tag, and with its content digest; of MLflow's own files nothing may say more than it
    says of all of ours.
    """
    with outages_named(), _named(version), scratch_folder() as scratch:
        folder = _fetched(version, scratch, None)
        found = files_of(folder)
        check_descriptions(folder)
        if expected is not None:
            now, wanted = brought(found), expected
            other = [name for name in sorted({*now, *wanted}) if now.get(name) != wanted.get(name)]
            if other:
                raise PackageChanged(f"{', '.join(other[:3])}: not what was trained here")
        elif version.tags.get(PACKAGE_TAG) not in (
            digest_of_brought(found),
            digest_of_files(found),
        ):
            raise PackageChanged(f"its files are not those of its tag {PACKAGE_TAG}")
        if content_of_files(found) != version.tags.get("content_digest"):
            raise PackageChanged("its trained files are not those of its content digest")
        return found


def _version(name: str, which: str) -> RegisteredVersion:
    number = whole(which)
    if number is not None and number <= registry_queries.MAX_VERSION:
        found = registry_queries.version_of_number(name, number)
    else:
        found = registry_queries.version_of_alias(name, which)
    if found is not None:
        return found
    known = [model.name for model in registry_queries.models()]
    if name not in known:
        raise BadInput(f"no model is named {name!r}{did_you_mean(name, known)}")
    raise BadInput(f"{name} has no version {which!r}; see `atelier history`")


def _check_tags(version: RegisteredVersion, entry: audit_log.Entry) -> None:
    """The registry and the log must say the same of a package."""
    registered = {"content_digest": entry.digests["content"], PACKAGE_TAG: entry.digests["package"]}
    for tag, digest in registered.items():
        if (got := version.tags.get(tag, "")) != digest:
            with _named(version):
                raise PackageChanged(
                    f"its tag {tag} is {got[:12] or 'missing'}, and in the audit log {digest[:12]}"
                )


@contextmanager
def _named(version: RegisteredVersion) -> Iterator[None]:
    """Name the version in what is raised, and say what to do."""
    try:
        yield
    except PackageChanged as error:
        name, number = version.name, version.version
        if str(error).startswith(f"{name} version "):
            raise
        raise PackageChanged(
            f"{name} version {number} is not what was registered, and nothing of it is loaded:"
            f" {error}; put its files back from a copy, go back with `atelier rollback {name}`, or"
            f" `atelier doctor --repair {name}=discard` gives it up"
        ) from error


def _fetched(version: RegisteredVersion, scratch: Path, files: Files | None) -> Path:
    """The files of a version below a folder; with a listing nothing else is fetched."""
    _check_source(version)
    into = scratch / "package"
    into.mkdir()
    try:
        store = _store(version)
        stored = _listed(store, files)
        if files is not None and (told := difference(stored, _known_sizes(stored, files))):
            raise PackageChanged(told)
        if not stored:
            raise PackageChanged("it has no files")
        store.download_artifacts("", str(into))
    except Exception as error:
        if not _is_of_files(error):
            raise
        check_space(scratch, _BYTES_TO_BE_FREE)  # raises DiskFull: that is no change of a package
        raise _unfetched(version, error) from error
    (into / MLFLOWS_OWN_NOTE).unlink(missing_ok=True)
    return into


def _check_source(version: RegisteredVersion) -> None:
    if not re.fullmatch(r"models:/m-[0-9a-f]{32}", str(version.source)):
        raise PackageChanged(f"its source in the registry is {str(version.source)[:100]!r}")


def _is_of_files(error: Exception) -> bool:
    """Whether an error tells of the files that were asked for."""
    return isinstance(error, OSError) or bool(code_of(error))


def _store(version: RegisteredVersion) -> Any:
    """Where a version's files lie, without MLflow's note, which it writes beside them."""
    address = str(version.source)
    if is_at_hand() and (found := _stored_here(address.rpartition("/")[2])) is not None:
        return found
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store = get_artifact_repository(address, tracking_uri=tracking_uri())
    return getattr(store, "repo", store)


def _stored_here(model_id: str) -> StoredFiles | None:
    """A package's files while its database is at hand; None where they are not on this machine.

    Those that MLflow's server gives out lie in the home. Raises TrackingUnavailable where they do
    not, and no server runs.
    """
    location = asked(lambda tables: tables.place_of(model_id), lambda: None)
    if location is None:  # the client says why
        location = str(client().get_logged_model(model_id).artifact_location)
    if not location.startswith(_SERVED):
        return StoredFiles.at(location)
    folder = home() / "mlartifacts"
    if folder.is_dir():
        return StoredFiles(folder / location.removeprefix(_SERVED).lstrip("/"))
    if tracking_uri().startswith("http"):
        return None
    raise TrackingUnavailable(
        "the files of versions lie behind MLflow's server, which is not running: start it with"
        " `atelier up`"
    )


def _unfetched(version: RegisteredVersion, error: Exception) -> PackageChanged:
    """Why files cannot be had, unless that is an outage, which is raised."""
    if isinstance(error, TrackingUnavailable):
        raise error
    client().get_model_version(version.name, str(version.version))
    if code_of(error) == "RESOURCE_DOES_NOT_EXIST":
        return PackageChanged(
            "it has no files any more: MLflow deleted its package, as `mlflow gc` does after the"
            " experiment was deleted"
        )
    return PackageChanged(f"its files cannot be fetched: {one_line(error)}")


def _listed(store: Any, files: Files | None) -> dict[str, tuple[Any, str]]:
    """The size of every file of a store by its path; what the listing lacks ends the search."""
    folders = None if files is None else {p for name in files for p in _parents(name)}
    found: dict[str, tuple[Any, str]] = {}
    waiting = [""]
    while waiting:
        for info in store.list_artifacts(waiting.pop() or None):
            if info.path == MLFLOWS_OWN_NOTE and 0 < (info.file_size or 0) < _MAX_BYTES_OF_A_NOTE:
                continue  # a pipe or a device that took its name has no size
            if info.is_dir and (folders is None or info.path in folders):
                waiting.append(info.path)
            else:
                found[info.path] = (info.file_size, "")
            if len(found) + len(waiting) > _MAX_FILES:
                raise PackageChanged(f"it has more than {_MAX_FILES} files, such as {info.path}")
    return found


def _parents(name: str) -> list[str]:
    return [parent.as_posix() for parent in Path(name).parents]


def _known_sizes(stored: Files, files: Files) -> dict[str, tuple[Any, str]]:
    """A listing without digests, and without sizes where the store tells none."""
    return {
        name: (None if name in stored and stored[name][0] is None else size, "")
        for name, (size, _) in files.items()
    }
