"""Pictures that several processes read: the same bytes, whoever reads, dies or is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from tasks.data import image_shards, picture_processes
from tasks.data.image_shards import SHARDS, _parts
from tasks.data.ingestion import ImageSet, ingest_images
from tasks.data.own_files import OwnFile
from tasks.data.picture_processes import (
    ReaderDied,
    Readers,
    pictures_of,
    shard_record,
    write_shard,
)
from tasks.store.files import BadInput, project_root, sha256_of

pytestmark = pytest.mark.usefixtures("atelier_home")

PREPARED = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's tests ignore it
from tasks.data import image_shards, picture_processes
image_shards.MANY_FILES, image_shards.SHARD_FILES = 0, 8
picture_processes.num_processes = lambda: 2
from tasks.data.ingestion import ingest_images
"""


@pytest.fixture
def in_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards so small that even a few pictures need many."""
    monkeypatch.setattr(image_shards, "MANY_FILES", 0)
    monkeypatch.setattr(image_shards, "SHARD_FILES", 8)


@pytest.fixture
def mixed_pictures(tmp_path: Path) -> Path:
    """Many formats in three classes, some in colour, duplicates, and what is no picture."""
    folder, random = tmp_path / "mixed", np.random.default_rng(0)
    for label in ("birds", "cats", "naïve ☃"):
        (folder / label).mkdir(parents=True)
    suffixes = ("png", "jpg", "bmp", "gif", "webp", "tiff")
    for index in range(126):
        label = ("birds", "cats", "naïve ☃")[index % 3]
        shape = (16, 12, 3) if index % 4 == 0 else (16, 12)
        picture = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
        path = folder / label / f"{index:03d}.{suffixes[index % 6]}"
        options: dict[str, Any] = {}
        if path.suffix == ".jpg" and index % 5 == 0:
            exif = Image.Exif()
            exif[0x0112] = 3  # upside down: the size stays
            options["exif"] = exif
        picture.save(path, **options)
    deep = random.integers(0, 2**16, (16, 12), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "cats" / "deep.png")
    clear = np.dstack([random.integers(0, 256, (16, 12, 4), dtype=np.uint8)])
    Image.fromarray(clear).save(folder / "cats" / "clear.png")
    frames = [Image.fromarray(deep.astype(np.uint8)), Image.new("L", (12, 16), 7)]
    frames[0].save(folder / "birds" / "frames.gif", save_all=True, append_images=frames[1:])
    shutil.copy(folder / "cats" / "001.jpg", folder / "cats" / "again.jpg")
    whole = (folder / "birds" / "000.png").read_bytes()
    (folder / "birds" / "broken.png").write_bytes(whole[:60])
    (folder / "birds" / "text.png").write_text("no picture")
    (folder / "birds" / ".DS_Store").touch()
    return folder


def ingested(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[ImageSet, dict[str, str]]:
    """The receipt and the digest of each file of a set that is ingested into a home of its own."""
    monkeypatch.setenv("ATELIER_HOME", str(home))
    images = ingest_images.fn(f"folder:{folder}", **options)
    found = Path(images.folder)
    return images, {p.name: sha256_of(p) for p in found.iterdir() if p.suffix != ".json"}


@pytest.mark.parametrize("image_size", [None, 10])
def test_any_number_of_processes_gives_the_same_bytes(
    mixed_pictures: Path, tmp_path: Path, image_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, files = ingested(mixed_pictures, tmp_path / "h0", monkeypatch, image_size=image_size)
    assert here.channels == 3
    assert here.num_quarantined == 3
    monkeypatch.setattr(image_shards, "MANY_FILES", 0)
    monkeypatch.setattr(image_shards, "SHARD_FILES", 11)

    for number in (1, 2, 3):
        monkeypatch.setattr(picture_processes, "num_processes", lambda number=number: number)
        home = tmp_path / f"h{number}"
        others, others_files = ingested(mixed_pictures, home, monkeypatch, image_size=image_size)

        assert others_files == files
        assert {**vars_of(others), "folder": ""} == {**vars_of(here), "folder": ""}
        assert list((home / "data" / SHARDS).iterdir()) == []


def vars_of(images: ImageSet) -> dict[str, Any]:
    return {name: getattr(images, name) for name in ImageSet.__slots__}


def test_stored_pixels_are_the_file_that_numpy_writes(image_folder: Path, tmp_path: Path) -> None:
    images = ingest_images.fn(f"folder:{image_folder}")
    path = Path(images.folder) / "pixels.npy"

    np.save(tmp_path / "pixels.npy", np.load(path))

    assert path.read_bytes() == (tmp_path / "pixels.npy").read_bytes()


def child(script: str, *, slow: Path | None = None) -> subprocess.Popen[str]:
    """A process that runs a script; slow: a folder in PYTHONPATH, see `customized`."""
    paths = [str(project_root()), *([str(slow)] if slow else [])]
    return subprocess.Popen(
        [sys.executable, "-c", PREPARED + script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def customized(folder: Path, code: str) -> Path:
    """Code that runs whenever a picture is opened in a process that starts from now on."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, signal, time\nimport PIL.Image\nreally = PIL.Image.open\n"
        f"def opened(file, *args, **more):\n    {code}\n    return really(file, *args, **more)\n"
        "PIL.Image.open = opened\n"
    )
    return folder


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    mixed_pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, wanted = ingested(mixed_pictures, tmp_path / "whole", monkeypatch)
    home = tmp_path / "killed"
    monkeypatch.setenv("ATELIER_HOME", str(home))
    killed = child(
        f"""
really = image_shards._answers
def answers(requests, what):
    for number, each in enumerate(really(requests, what)):
        if what == "read pictures" and number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        yield each
image_shards._answers = answers
ingest_images.fn({f"folder:{mixed_pictures}"!r})
"""
    )
    output, _ = killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL, output
    shards = {p: p.stat().st_mtime_ns for p in (home / "data" / SHARDS).rglob("*.shard")}
    assert len(shards) >= 5
    damaged = max(shards)
    damaged.write_bytes(damaged.read_bytes()[:-1])

    monkeypatch.setattr(image_shards, "MANY_FILES", 0)
    monkeypatch.setattr(image_shards, "SHARD_FILES", 8)
    written: list[str] = []
    really = image_shards._answers

    def answers(requests: Any, what: str) -> Any:
        written.extend(str(each["shard"]) for each in requests if "shard" in each)
        return really(requests, what)

    monkeypatch.setattr(image_shards, "_answers", answers)
    _, found = ingested(mixed_pictures, home, monkeypatch)

    assert found == wanted
    assert not {str(path) for path in shards} - {str(damaged)} & set(written)
    assert str(damaged) in written
    assert "parts of the pictures were read by an earlier run" in caplog.text
    assert list((home / "data" / SHARDS).iterdir()) == []


def processes_below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The readers of a child, when they are there."""
    for _ in range(200):
        found = psutil.Process(process.pid).children(recursive=True)
        if len(found) == 2:
            return found
        time.sleep(0.05)
    raise AssertionError("no readers were started")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process(
    mixed_pictures: Path, tmp_path: Path, number: signal.Signals
) -> None:
    slow = customized(tmp_path / "slow", "time.sleep(0.3)")
    stopped = child(f"ingest_images.fn({f'folder:{mixed_pictures}'!r})", slow=slow)
    readers = processes_below(stopped)

    stopped.send_signal(number)
    output, _ = stopped.communicate(timeout=20)

    assert stopped.returncode != 0
    assert number == signal.SIGKILL or "KeyboardInterrupt" in output
    assert psutil.wait_procs(readers, timeout=5)[1] == []


@pytest.mark.usefixtures("in_shards")
def test_a_reader_that_dies_twice_names_the_file(
    mixed_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = customized(
        tmp_path / "deadly",
        "if file.name.endswith('010.webp'): os.kill(os.getpid(), signal.SIGKILL)",
    )
    monkeypatch.setenv("PYTHONPATH", str(deadly))
    before = psutil.Process().children(recursive=True)  # another test's, perhaps

    with pytest.raises(ReaderDied, match=r"cats/010\.webp: .*died twice \(killed by signal 9\)"):
        ingest_images.fn(f"folder:{mixed_pictures}")

    assert set(psutil.Process().children(recursive=True)) <= set(before)


@pytest.mark.usefixtures("in_shards")
def test_a_reader_that_dies_once_is_replaced(
    mixed_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, wanted = ingested(mixed_pictures, tmp_path / "whole", monkeypatch)
    once = tmp_path / "once"
    deadly = customized(
        tmp_path / "deadly",
        f"if file.name.endswith('010.webp') and not os.path.exists({str(once)!r}):"
        f" open({str(once)!r}, 'w').close(); os.kill(os.getpid(), signal.SIGKILL)",
    )
    monkeypatch.setenv("PYTHONPATH", str(deadly))

    _, found = ingested(mixed_pictures, tmp_path / "again", monkeypatch)

    assert once.exists()
    assert found == wanted


@pytest.mark.usefixtures("in_shards")
def test_a_refusal_leaves_no_shards(mixed_pictures: Path, atelier_home: Path) -> None:
    for folder in ("cats", "naïve ☃"):
        for path in (mixed_pictures / folder).iterdir():
            path.write_bytes(path.read_bytes()[:70])

    with pytest.raises(BadInput, match="has one class"):
        ingest_images.fn(f"folder:{mixed_pictures}")

    assert not any((atelier_home / "data" / SHARDS).rglob("*.shard"))


def test_what_a_reader_cannot_write_is_told(tmp_path: Path, image_folder: Path) -> None:
    (tmp_path / "file").touch()
    request = {
        **{"shard": str(tmp_path / "file" / "0.shard"), "key": "k", "fresh": []},
        **{"locations": [str(image_folder / "left" / "00.png")], "sizes": [[8, 8]]},
        "image_size": None,
    }

    with (
        Readers(1) as readers,
        closing(readers.answers([request])) as answers,
        pytest.raises(OSError, match=r"Not a directory|File exists"),
    ):
        list(answers)


def test_a_shard_counts_for_its_files_as_they_were(image_folder: Path, tmp_path: Path) -> None:
    paths = [str(path) for path in sorted((image_folder / "left").iterdir())[:3]]
    request = {"key": "k", "locations": paths, "sizes": [[8, 8]] * 3, "image_size": None}
    shard = tmp_path / "0.shard"
    marked: list[int] = []

    write_shard(shard, {**request, "fresh": [1]}, marked.append)  # type: ignore[arg-type]

    assert marked == [0, 1, 2]
    told = shard_record(shard, "k", paths)
    assert told == [[8, 8, 1, []]] * 3
    pictures = list(pictures_of(shard))
    assert all(
        (np.asarray(Image.open(p)) == a[:, :, 0]).all()
        for p, a in zip(paths, pictures, strict=True)
    )
    assert shard_record(shard, "another", paths) is None
    assert shard_record(shard, "k", paths[:2]) is None
    assert shard_record(tmp_path / "none", "k", paths) is None
    Path(paths[0]).write_bytes(b"")  # its state in the key would tell
    assert shard_record(shard, "k", paths) == told
    Path(paths[1]).write_bytes(b"")  # its state need not
    assert shard_record(shard, "k", paths) is None


def test_shards_are_bounded_by_files_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_shards, "SHARD_FILES", 3)
    monkeypatch.setattr(image_shards, "SHARD_BYTES", 100)

    def files(*sizes: int) -> list[OwnFile]:
        return [
            OwnFile(
                location=str(i),
                id=str(i),
                parts=(str(i),),
                size=size,
                changed_at=(0, 0),
                identity=(0, i),
                is_link=False,
            )
            for i, size in enumerate(sizes)
        ]

    assert _parts([]) == []
    assert _parts(files(1, 1, 1, 1)) == [range(3), range(3, 4)]
    assert _parts(files(60, 40, 1, 500, 1)) == [range(2), range(2, 3), range(3, 4), range(4, 5)]
    assert _parts(files(500)) == [range(1)]
