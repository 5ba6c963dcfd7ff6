"""Data sets on disk: found again where a person's files have not changed, and kept up to date.

A data set is stored under the digest of its content. What else was seen beside that content, such
as files that were set aside, stands in its table of files and its receipt, which follow the files.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pandas as pd

from tasks.data.folder_fingerprint import Fingerprint
from tasks.store.artifacts import (
    Artifact,
    Kind,
    artifact_folder,
    facts_of,
    is_intact,
    opened,
    step_of,
)
from tasks.store.files import atomic_file, digest_of
from tasks.store.records import DamagedRecord, shaped
from tasks.store.steps import recorded

MANIFEST = "manifest.parquet"


class Stored(Protocol):
    """The receipt of a data set."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def folder(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102


Receipt = TypeVar("Receipt", bound=Stored)


def fingerprint_of(path: Path | None, kind: Kind, options: Mapping[str, Any]) -> Fingerprint | None:
    """Of a person's own files as they are now; None for data that are not a person's own."""
    return None if path is None else Fingerprint(path, kind, options)


def made_before(
    fingerprint: Fingerprint | None, kind: Kind, settings: Mapping[str, Any], receipt: type[Receipt]
) -> Receipt | None:
    """What was made of files that have not changed since, if it is there and whole.

    That there was nothing to do, not even to read, is recorded; settings: for that record.
    """
    facts = fingerprint.receipt() if fingerprint is not None else None
    if facts is None:
        return None
    try:
        where = shaped(facts, dict[str, Any], "a fingerprint")
        folder = artifact_folder(kind, where["name"], where["digest"])
        kept: Receipt = shaped({**where, "folder": str(folder)}, receipt, "a fingerprint")
    except (DamagedRecord, KeyError, TypeError):
        return None
    if not is_intact(folder):
        return None
    with recorded(
        step_of(kind, kept.name), key_parts(kept.digest, settings), kept.digest
    ) as record:
        record.state = "unchanged"
    return kept


def key_parts(digest: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a data set depends on, for the history: settings, and the digest of its content."""
    return {"settings": dict(settings), "inputs": [digest]}


def store(
    kind: Kind,
    receipt: Stored,
    settings: Mapping[str, Any],
    fill: Callable[[Path], None],
    manifest: pd.DataFrame | None,
) -> Artifact:
    """Store a data set, or find it; its table of files and its receipt tell of them as of now.

    fill: writes the content into a folder; manifest: the table of files, if there is one. A kill
    between the two leaves a set that counts as damaged, and is made again.
    """
    parts = key_parts(receipt.digest, settings)
    with opened(kind, receipt.name, parts, key=receipt.digest) as place:
        found = place.found()
        if found is None:
            place.folder.mkdir(parents=True)
            fill(place.folder)
        elif found.record == facts_of(receipt):
            return found
        if manifest is not None:
            with atomic_file(place.folder / MANIFEST) as temporary:
                manifest.to_parquet(temporary, index=False)
        made = place.commit(receipt, digest=receipt.digest)
    return made if found is None else replace(made, was_stored=True)


def digest_of_rows(manifest: pd.DataFrame) -> str:
    """The sha256 of all that a manifest says."""
    return digest_of(manifest.astype(object).where(manifest.notna(), None).to_dict("list"))
