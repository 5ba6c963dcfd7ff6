"""What a person's files looked like when they were read, so that unchanged ones are not read again.

A fingerprint is made of names, sizes and times. It decides only whether to read; the digest of a
data set is always that of its content. A file that was written a moment before it was read could be
written again without a change of its times, so the content of such files is compared besides.
"""

import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.data.own_files import OwnFile, content_digest, listed
from tasks.store.artifacts import facts_of
from tasks.store.files import digest_of, home, read_json, sha256_of, write_json

SECONDS_TO_SETTLE = 10.0
"""How old a file's times must be to vouch for its content: clocks are coarse, and differ a bit."""

_READERS = (
    *("own_files", "image_folder", "image_layout", "image_pixels", "text_files"),
    *("text_spool", "source_address"),
    *("sources", "ingestion", "image_splits", "kinds", "manifests"),
    *("image_shards", "picture_processes"),
)
"""The modules beside this one that decide what is read from a file."""


class Fingerprint:
    """How some files look now.

    path: a folder or a file; kind: "images" or "corpora"; options: all else that decides what is
    made of them.
    """

    def __init__(self, path: Path, kind: str, options: Mapping[str, Any]) -> None:
        self._root = path
        key = digest_of([str(path.resolve()), dict(options)])[:16]
        self._path = home() / "data" / "fingerprints" / f"{kind}-{key}.json"
        self._readers = readers_digest()
        listing = listed(path)
        self._listing = listing.digest()
        self._files = {file.id: file for file in listing.files}
        self._fresh = [file.id for file in listing.files if is_fresh(file)]
        self._contents = self._contents_of(self._fresh)

    def receipt(self) -> dict[str, Any] | None:
        """What was made of these files when they looked like this, or None."""
        try:
            sealed = read_json(self._path)
            kept = sealed["kept"]
            if sealed["seal"] != digest_of(kept):
                return None
            if kept["readers"] != self._readers or kept["listing"] != self._listing:
                return None
            if kept["contents"] != self._contents_of(kept["contents"]):
                return None
            receipt: dict[str, Any] = kept["receipt"]
            if kept["contents"] != self._contents:  # older now: their times vouch for them
                self._write(receipt)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or damaged
            return None
        return receipt

    def keep(self, receipt: Any) -> None:
        """Remember what was made of the files; not if they have changed meanwhile.

        receipt: a dataclass; the folder that it names is not kept, for homes move.
        """
        is_same = listed(self._root).digest() == self._listing
        if is_same and self._contents_of(self._fresh) == self._contents:
            self._write({**facts_of(receipt), "digest": receipt.digest})

    def _write(self, receipt: dict[str, Any]) -> None:
        kept = {
            "receipt": receipt,
            "readers": self._readers,
            "listing": self._listing,
            "contents": self._contents,
        }
        write_json(self._path, {"kept": kept, "seal": digest_of(kept)})

    def _contents_of(self, names: Iterable[str]) -> dict[str, str]:
        return {name: content_digest(self._files[name].path) for name in names}


def is_fresh(file: OwnFile) -> bool:
    """Whether a file is so young that another write need not show in its times."""
    modified_at, entered_at = file.changed_at
    now, settling = time.time_ns(), int(SECONDS_TO_SETTLE * 1e9)
    return abs(now - modified_at) < settling or now - entered_at < settling


def readers_digest() -> str:
    """Changes when files might be read in another way."""
    folder = Path(__file__).parent
    code = [sha256_of(folder / f"{name}.py") for name in _READERS]
    return digest_of([*code, version("pillow"), version("numpy")])
