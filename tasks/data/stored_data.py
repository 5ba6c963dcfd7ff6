"""Data sets on disk: found again where a person's files have not changed, and kept up to date.

A data set's folder is named by the digest of its content. What else was seen beside that content,
such as files that were set aside, stands in its manifest and its receipt, which follow the files.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pandas as pd

from tasks.data.folder_fingerprint import Fingerprint
from tasks.store.files import (
    atomic_file,
    digest_of,
    file_lock,
    folder_digests,
    is_intact,
    read_json,
    write_receipt,
)
from tasks.store.steps import StepRecord, recorded

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


def fingerprint_of(path: Path | None, kind: str, options: Mapping[str, Any]) -> Fingerprint | None:
    """Of a person's own files as they are now; None for data that are not a person's own."""
    return None if path is None else Fingerprint(path, kind, options)


def made_before(fingerprint: Fingerprint | None, kind: type[Receipt]) -> Receipt | None:
    """What was made of files that have not changed since, if it is there and whole."""
    fields = fingerprint.receipt() if fingerprint is not None else None
    if fields is None:
        return None
    receipt = kind(**{name: _tuples(value) for name, value in fields.items()})
    return receipt if is_intact(Path(receipt.folder)) else None


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def unchanged(step: str, parts: Mapping[str, Any]) -> StepRecord:
    """Record that a step had nothing to do, not even to read."""
    with recorded(step, parts) as record:
        record.state = "unchanged"
    return record


def digest_of_rows(manifest: pd.DataFrame) -> str:
    """The sha256 of all that a manifest says."""
    return digest_of(manifest.astype(object).where(manifest.notna(), None).to_dict("list"))


def write_manifest(folder: Path, manifest: pd.DataFrame | None) -> None:
    """Write a manifest, if there is one, atomically."""
    if manifest is not None:
        with atomic_file(folder / MANIFEST) as temporary:
            manifest.to_parquet(temporary, index=False)


def seal(folder: Path, receipt: Stored) -> None:
    """Write the receipt, the last file of a data set, over all other files."""
    files = folder_digests(folder)
    files.pop("receipt.json", None)
    write_receipt(folder, receipt, files)


def bring_up_to_date(receipt: Any, manifest: pd.DataFrame | None) -> None:
    """Where equal data were stored before, let manifest and receipt tell of the files as of now.

    A kill between the two leaves a set that counts as damaged, and is made again.
    """
    folder = Path(receipt.folder)
    with file_lock(folder.name):
        if read_json(folder / "receipt.json")["receipt"] == json.loads(json.dumps(asdict(receipt))):
            return
        write_manifest(folder, manifest)
        seal(folder, receipt)
