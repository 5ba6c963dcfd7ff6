"""Unchanged files are not read again, and changed ones always are."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.data import folder_fingerprint, ingestion, picture_processes, text_files
from tasks.data.ingestion import ImageSet, ingest_images, ingest_text
from tasks.store.steps import history

pytestmark = pytest.mark.usefixtures("atelier_home")

Count = Callable[[], int]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Count:
    """How many pictures and texts were read since it was asked last."""
    calls = []

    def counting(module: object, name: str) -> None:
        original = getattr(module, name)

        def called(*arguments: object) -> object:
            calls.append(arguments)
            return original(*arguments)

        monkeypatch.setattr(module, name, called)

    counting(picture_processes, "decoded")
    counting(text_files, "_pieces_of")

    def asked() -> int:
        number = len(calls)
        calls.clear()
        return number

    return asked


def age(folder: Path, seconds: float = 3600) -> None:
    """Let all times of a folder's files be some time ago, as they mostly are."""
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def ingested(folder: Path, rehash: bool = False) -> ImageSet:
    return ingest_images.fn(f"folder:{folder}", None, rehash)


@pytest.mark.parametrize("settled", [True, False], ids=["old", "just-written"])
def test_unchanged_pictures_are_read_once(
    image_folder: Path, reads: Count, monkeypatch: pytest.MonkeyPatch, settled: bool
) -> None:
    if settled:
        monkeypatch.setattr("tasks.data.folder_fingerprint.SECONDS_TO_SETTLE", 0.0)
    first = ingested(image_folder)
    assert reads() == 120

    assert ingested(image_folder) == first
    assert reads() == 0
    assert [record.state for record in history("pictures-images")] == ["made", "unchanged"]

    assert ingested(image_folder, rehash=True) == first
    assert reads() == 120


def test_unchanged_texts_are_read_once(tmp_path: Path, text_file: Path, reads: Count) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.md").write_bytes(text_file.read_bytes())
    for source in (f"folder:{tmp_path / 'texts'}", f"file:{text_file}"):
        first = ingest_text.fn(source)
        assert reads() == 1

        assert ingest_text.fn(source) == first
        assert reads() == 0
        assert ingest_text.fn(source, None, True) == first
        assert reads() == 1


def grow(folder: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 255, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "left" / "new.png")


def shrink(folder: Path) -> None:
    (folder / "left" / "00.png").unlink()


def rename(folder: Path) -> None:
    (folder / "left" / "00.png").rename(folder / "left" / "zz.png")


def swap(folder: Path) -> None:
    (folder / "left" / "00.png").rename(folder / "x")
    (folder / "right" / "00.png").rename(folder / "left" / "00.png")
    (folder / "x").rename(folder / "right" / "00.png")


def write_in_place(folder: Path) -> None:
    """Other pixels, as many bytes, and the time of before."""
    path = folder / "left" / "00.png"
    before = path.stat()
    pixels = np.asarray(Image.open(path)).copy()
    while path.stat().st_mtime_ns == before.st_mtime_ns or path.stat().st_size != before.st_size:
        pixels[0, 0] += 1
        Image.fromarray(pixels).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def point_elsewhere(folder: Path) -> None:
    (folder / "left" / "00.png").unlink()
    (folder / "left" / "00.png").symlink_to(folder / "right" / "00.png")


@pytest.mark.parametrize(
    "change",
    [grow, shrink, rename, swap, write_in_place, point_elsewhere],
    ids=lambda f: f.__name__,
)
def test_a_change_is_seen(image_folder: Path, reads: Count, change: Callable[[Path], None]) -> None:
    age(image_folder)
    before = ingested(image_folder)
    reads()

    change(image_folder)

    after = ingested(image_folder)
    assert reads() > 0
    assert after.manifest != before.manifest
    assert after == ingested(image_folder, rehash=True)


def test_a_file_that_is_written_twice_within_a_tick_of_the_clock_is_read_again(
    tmp_path: Path, reads: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "book.txt"
    path.write_text("one word. " * 1100)
    times = path.stat()
    first = ingest_text.fn(f"file:{path}")
    path.write_text("two word. " * 1100)
    monkeypatch.setattr(
        "tasks.data.own_files._times", lambda found: (times.st_mtime_ns, times.st_ctime_ns)
    )

    second = ingest_text.fn(f"file:{path}")

    assert second.digest != first.digest


def test_files_that_change_while_they_are_read_are_not_remembered(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, reads: Count
) -> None:
    original = ingestion.check_images

    def changing(*arguments: object) -> None:
        grow(image_folder)
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ingestion, "check_images", changing)
    before = ingested(image_folder)
    monkeypatch.setattr(ingestion, "check_images", original)
    reads()

    after = ingested(image_folder)

    assert reads() == 121
    assert after.digest != before.digest


def test_another_size_another_folder_and_another_home_are_read(
    image_folder: Path, tmp_path: Path, reads: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingested(image_folder)
    reads()
    ingest_images.fn(f"folder:{image_folder}", 16)
    assert reads() == 120
    monkeypatch.chdir(image_folder.parent)
    ingest_images.fn("folder:pictures")
    assert reads() == 0  # the same folder
    (tmp_path / "b").mkdir()
    image_folder.rename(tmp_path / "b" / "pictures")
    monkeypatch.chdir(tmp_path / "b")
    ingest_images.fn("folder:pictures")
    assert reads() == 120


@pytest.mark.parametrize("damage", [b"", b"null", b"[]", b'{"kept": 1, "seal": 2}', b"\xff"])
def test_a_damaged_fingerprint_is_none(
    image_folder: Path, atelier_home: Path, reads: Count, damage: bytes
) -> None:
    first = ingested(image_folder)
    (path,) = (atelier_home / "data" / "fingerprints").iterdir()
    path.write_bytes(damage)
    reads()

    assert ingested(image_folder) == first
    assert reads() == 120


def test_a_damaged_store_is_made_again_though_the_files_are_unchanged(
    image_folder: Path, reads: Count
) -> None:
    first = ingested(image_folder)
    pixels = Path(first.folder) / "pixels.npy"
    whole = pixels.read_bytes()
    pixels.write_bytes(whole[:-1])

    assert ingested(image_folder) == first
    assert pixels.read_bytes() == whole
    assert "pixels.npy" in history("pictures-images")[-1].reasons[0]


def test_every_module_that_reads_files_counts() -> None:
    """All of them that the readers import from beside them, but for what keeps the result."""
    folder = Path(folder_fingerprint.__file__).parent
    keepers = {"folder_fingerprint", "stored_data", "splits", "identity"}
    open_, reached = set(folder_fingerprint._READERS), set[str]()
    while open_:
        reached.add(name := open_.pop())
        code = (folder / f"{name}.py").read_text()
        open_ |= set(re.findall(r"from tasks\.data\.(\w+) import", code)) - reached - keepers
    reached.discard("__init__")

    assert reached == set(folder_fingerprint._READERS)
    assert {"text_spool", "image_pixels"} <= reached


def test_an_edit_of_what_reads_files_reads_them_again(
    image_folder: Path, reads: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingested(image_folder)
    reads()
    monkeypatch.setattr("tasks.data.folder_fingerprint.readers_digest", lambda: "other code")

    ingested(image_folder)

    assert reads() == 120


def test_garbage_of_fingerprints_goes_with_the_data(image_folder: Path, atelier_home: Path) -> None:
    from tasks.maintenance.garbage_collection import find_garbage
    from tasks.store.files import remove

    images = ingested(image_folder)
    assert not [each for each in find_garbage([]) if "fingerprints" in each.path.parts]
    remove(Path(images.folder))

    (found,) = [each for each in find_garbage([]) if "fingerprints" in each.path.parts]

    assert found.reason == "the fingerprint of data that are gone"
