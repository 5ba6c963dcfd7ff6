"""Galleries on disk: the same champions and the same seed are drawn once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.provenance import key_parts
from tasks.registration import champion_of
from tasks.reporting import log
from tasks.step_records import StepRecord, recorded
from tasks.storage import (
    digest_of,
    exclusive,
    folder_digests,
    home,
    is_whole,
    remove,
    write_bytes,
    write_json,
)
from tasks.tracking import outages_named
from tasks.version_tags import text_tag


@contextmanager
def gallery_work(names: list[str], seed: int) -> Iterator[StepRecord]:
    """Record that a gallery of some models' champions is made; others of the same one wait."""
    with outages_named():
        found = {name: champion_of(name) for name in names}
    contents = {
        name: text_tag(version, "content_digest") for name, version in found.items() if version
    }
    settings = {"seed": seed, "champions": contents}
    parts = key_parts(settings, [], ["tasks.sampling"], "cpu")
    with exclusive(f"gallery-{digest_of(parts)[:16]}"), recorded("gallery", parts) as record:
        yield record


def stored_gallery(record: StepRecord) -> str | None:
    """The page of this very gallery, made before and whole; it becomes the latest."""
    folder = _folder(record)
    if not (folder / "receipt.json").exists() or not is_whole(folder, log):
        return None
    record.state = "unchanged"
    log("gallery: unchanged")
    return _made_latest(folder)


def fresh_folder(record: StepRecord) -> str:
    """An empty folder for a gallery."""
    folder = _folder(record)
    remove(folder)
    folder.mkdir(parents=True)
    return str(folder)


def keep_gallery(folder: str) -> str:
    """Seal a finished gallery, make it the latest, and return the path of the latest page."""
    write_json(Path(folder) / "receipt.json", {"files": folder_digests(Path(folder))})
    return _made_latest(Path(folder))


def _folder(record: StepRecord) -> Path:
    return home() / "gallery" / record.key[:16]


def _made_latest(folder: Path) -> str:
    latest = home() / "gallery" / "index.html"
    write_bytes(latest, (folder / "index.html").read_bytes())
    return str(latest)
