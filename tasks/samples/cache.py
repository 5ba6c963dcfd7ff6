"""The gallery on disk: one page of all champions, put together of what each made once.

`gallery/index.html` is the page, `gallery/works.json` says what it shows and where in the home its
files lie: in the artifact of the page. What a champion made for an earlier page is copied to the
next one, so that only new champions draw; and where one cannot, its last works stay.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from tasks.runtime.progress import log
from tasks.samples.html_page import ChampionSamples, page, template_digests, with_references
from tasks.samples.shown import gallery_root, located, shown_folder, shown_records
from tasks.store.artifacts import (
    KEY_DIGITS,
    Artifact,
    artifact_folder,
    opened,
    verify,
    write_manifest,
)
from tasks.store.files import (
    check_digests,
    folder_digests,
    portable,
    remove,
    write_bytes,
    write_text,
)
from tasks.store.fingerprint import cache_key_inputs
from tasks.store.locks import file_lock
from tasks.store.steps import StepRecord

_NAME = "gallery"


class GalleryIncomplete(RuntimeError):
    """Some champions could not draw; the page is published, and the message names them."""

    def __init__(self, message: str, page: str = "") -> None:
        super().__init__(message)
        self.page = page


@contextmanager
def one_gallery_at_a_time() -> Iterator[None]:
    """Wait for other runs that make the page: each begins from what the one before it showed."""
    waiting = partial(log, "gallery: another run is making it; waiting for its page")
    with file_lock("gallery", waiting):
        yield


@contextmanager
def gallery_work(shown: Iterable[Any], seed: int) -> Iterator[StepRecord]:
    """Record that a page is made of some pieces (dataclasses, or names with a `seed` for all)."""
    pieces = [each if isinstance(each, str) else asdict(each) for each in shown]
    settings = {"seed": seed, "champions": pieces, "templates": template_digests()}
    parts = cache_key_inputs(settings, [], ["tasks.samples.html_page"], "cpu")
    with opened("samples", _NAME, parts, can_resume=True) as place:
        yield place.step


def stored_gallery(record: StepRecord) -> str | None:
    """The page of this very gallery, made before and whole; it becomes the latest."""
    for folder in _folders(record):
        try:
            verify(folder)
        except FileNotFoundError:  # it lacked a work
            continue
        except (OSError, ValueError) as error:
            log(f"gallery: a stored page is damaged and will be made again: {error}")
            remove(folder)
            continue
        record.state = "unchanged"
        log("gallery: unchanged")
        return _made_latest(folder)
    return None


def fresh_folder(record: StepRecord) -> str:
    """An empty folder for a gallery; the one that the latest page shows stays as it is."""
    latest = shown_folder()
    for folder in _folders(record):
        if folder != latest:
            remove(folder)
    folder, number = artifact_folder("samples", _NAME, record.key), 1
    while folder.exists():
        number += 1
        folder = folder.with_name(f"{record.key[:KEY_DIGITS]}-{number}")
    folder.mkdir(parents=True)
    return str(folder)


def keep_gallery(folder: str, *, is_complete: bool = True) -> str:
    """Make a finished gallery the latest, and return the path of the latest page.

    A complete one gets its manifest, and is found again; of one that lacks a work the next run
    makes another.
    """
    if is_complete:
        key = Path(folder).name.partition("-")[0]
        page = Artifact(
            kind="samples", name=_NAME, key=key, digest="", files={}, inputs=(), record={}
        )
        write_manifest(Path(folder), page)
    return _made_latest(Path(folder))


def empty_gallery() -> str:
    """What to show while nobody is champion: the last page, or else one that says so."""
    latest = gallery_root() / "index.html"
    if latest.exists():
        log("WARNING: no model has a champion; the gallery stays as it was drawn last")
    else:
        write_text(latest, page([]))
        log("gallery: no model has a champion yet")
    return str(latest)


# What the latest page shows -------------------------------------------------------------------


def works_record(works: Iterable[ChampionSamples]) -> list[dict[str, Any]]:
    """What `works.json` says of the works in a gallery's folder; their files get digests."""
    return [
        {
            **asdict(work),
            "folder": portable(Path(work.folder)),
            "files": folder_digests(Path(work.folder)) if Path(work.folder).is_dir() else {},
        }
        for work in works
    ]


def shown_works() -> dict[str, ChampionSamples]:
    """The works on the latest page, by model; those with damaged or lost files left out."""
    found = {}
    for record in shown_records():
        try:
            fields = with_references(record, "works.json")
            folder = located(fields.pop("folder"))
            check_digests(folder, fields.pop("files"))
            for name in ("pictures", "texts", "differences"):
                fields[name] = tuple((str(file), str(caption)) for file, caption in fields[name])
            found[str(record["name"])] = ChampionSamples(folder=str(folder), **fields)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log(f"gallery: a work of the last page cannot be shown again: {error}")
    return found


def taken_over(work: ChampionSamples, folder: str, **changed: Any) -> ChampionSamples:
    """A work of an earlier page, copied into the folder of the next one; changed: fields of it."""
    source, target = Path(work.folder), Path(folder) / work.name
    for path in sorted(source.rglob("*")):
        if path.is_file():
            write_bytes(target / path.relative_to(source), path.read_bytes())
    return replace(work, folder=str(target), **changed)


def _folders(record: StepRecord) -> list[Path]:
    own = artifact_folder("samples", _NAME, record.key)
    return sorted(own.parent.glob(f"{own.name}*"))


def _made_latest(folder: Path) -> str:
    latest = gallery_root() / "index.html"
    listed = folder / "works.json"
    write_bytes(gallery_root() / "works.json", listed.read_bytes() if listed.exists() else b"[]\n")
    write_bytes(latest, (folder / "index.html").read_bytes())
    return str(latest)
