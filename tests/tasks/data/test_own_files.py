"""Folders as people have them: what of them is data, and what is said of the rest."""

import os
import shutil
import socket
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.data import picture_processes
from tasks.data.ingestion import ingest_images, ingest_text
from tasks.data.own_files import SetAside, counted, listed, once, path_of, readable, writable
from tasks.data.text_files import read_text_file
from tasks.store.files import BadInput

pytestmark = pytest.mark.usefixtures("atelier_home")

NOT_DATA = [
    *(".ipynb_checkpoints", ".git", ".thumbnails", ".Trash-1000", ".hidden", "__MACOSX"),
    *("$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found", "__pycache__"),
    *("RECYCLER", "#recycle", "Temporary Items", "found.000", "LOST.DIR"),
]
NOT_FILES = ["Thumbs.db", "desktop.ini", ".DS_Store", "._a.png", "THUMBS.DB", "a.png~", "a.txt.bak"]


def reasons(folder: Path) -> dict[str, str]:
    return {each.id: each.reason for each in listed(folder).set_aside}


def manifest_of(folder: str) -> pd.DataFrame:
    return pd.read_parquet(Path(folder) / "manifest.parquet").set_index("id")


def told(folder: str) -> dict[str, str]:
    """The reason of each thing that was set aside, by the manifest."""
    return dict(manifest_of(folder)["quarantine_reason"].dropna())


@pytest.mark.parametrize("name", NOT_DATA)
def test_a_folder_that_is_not_data_is_one_row_for_images_and_for_text(
    image_folder: Path, tmp_path: Path, name: str
) -> None:
    junk = image_folder / "left" / name
    junk.mkdir()
    for original in sorted((image_folder / "left").glob("*.png"))[:20]:
        (junk / original.name).write_bytes(original.read_bytes())
    texts = tmp_path / "texts"
    (texts / name).mkdir(parents=True)
    (texts / "a.txt").write_text("told once. " * 1000)
    (texts / name / "a.txt").write_text("held-out text inside the training part " * 1000)

    images = ingest_images.fn(f"folder:{image_folder}")
    corpus = ingest_text.fn(f"folder:{texts}")

    assert images.class_names == ("left", "right")
    assert images.num_duplicates == 0
    assert images.num_quarantined == 1
    assert manifest_of(images.folder).loc[f"left/{name}", "row"] == -1
    assert corpus.num_characters == 11_001
    assert set(manifest_of(corpus.folder).index) == {"a.txt", name}


@pytest.mark.parametrize("name", NOT_FILES)
def test_a_file_that_is_not_data_spoils_neither_images_nor_text(
    image_folder: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("told once. " * 1000)
    for place in (image_folder / "right", tmp_path / "texts"):
        (place / name).write_bytes(b"\x00\x05\x16\x07\xff")

    images = ingest_images.fn(f"folder:{image_folder}")
    corpus = ingest_text.fn(f"folder:{tmp_path / 'texts'}")

    assert images.num_train + images.num_validation + images.num_test == 120
    assert manifest_of(images.folder).loc[f"right/{name}", "quarantine_reason"]
    assert manifest_of(corpus.folder).loc[name, "quarantine_reason"]


def test_the_summary_counts_by_reason(image_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (image_folder / "left" / ".DS_Store").write_bytes(b"x")
    (image_folder / "left" / ".hidden").mkdir()
    (image_folder / "Thumbs.db").write_bytes(b"x")
    (image_folder / "left" / "notes.txt").write_text("notes")

    images = ingest_images.fn(f"folder:{image_folder}")

    told = "2 hidden, 1 left by a system or a program, 1 no picture of a known format"
    assert images.set_aside == told
    assert f"set aside: {told}" in caplog.text


def test_where_nothing_was_set_aside_the_summary_is_silent_about_it(
    image_folder: Path, text_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not ingest_images.fn(f"folder:{image_folder}").set_aside
    assert not ingest_text.fn(f"file:{text_file}").set_aside

    assert "exact duplicates" in caplog.text
    assert "long lines" in caplog.text
    assert "set aside" not in caplog.text


def test_what_is_set_aside_changes_the_manifest_and_not_the_data(image_folder: Path) -> None:
    before = ingest_images.fn(f"folder:{image_folder}")
    (image_folder / "left" / ".DS_Store").write_bytes(b"x")

    after = ingest_images.fn(f"folder:{image_folder}")

    assert (after.digest, after.folder) == (before.digest, before.folder)
    assert ".DS_Store" not in before.set_aside
    assert "left/.DS_Store" in manifest_of(after.folder).index
    assert ingest_images.fn(f"folder:{image_folder}") == after


def test_trash_and_a_hidden_root_can_be_data(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "left").rename(image_folder / "trash")
    image_folder.rename(tmp_path / ".kept")

    assert ingest_images.fn(f"folder:{tmp_path / '.kept'}").class_names == ("right", "trash")


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    for name in ("root", "elsewhere", "elsewhere/deep"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "again").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "root" / "self").symlink_to(".")
    (tmp_path / "root" / "above").symlink_to("..")
    (tmp_path / "root" / "top").symlink_to("/")
    (tmp_path / "root" / "nowhere").symlink_to("gone")
    (tmp_path / "root" / "loop").symlink_to("loop")

    listing = listed(tmp_path / "root")

    assert [file.id for file in listing.files] == ["a.txt", "again/a.txt", "linked/a.txt"]
    told = {each.id: each.kind for each in listing.set_aside}
    assert told == {
        "above": "a link to a folder that holds this one",
        "top": "a link to a folder that holds this one",
        "self": "a link to a folder that is read already",
        "linked/back": "a link to a folder that is read already",
        "linked/deep": "a link to a folder that is read already",
        "nowhere": "a link that leads nowhere",
        "loop": "a link that leads nowhere",
    }


def test_a_linked_class_is_a_class(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "right").rename(tmp_path / "away")
    (image_folder / "right").symlink_to(tmp_path / "away")

    images = ingest_images.fn(f"folder:{image_folder}")

    assert images.class_names == ("left", "right")
    assert images.num_quarantined == 0


def test_of_several_names_of_a_text_one_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "b.txt").write_text("words and more words, " * 600)
    (folder / "a-link.txt").symlink_to("b.txt")
    os.link(folder / "b.txt", folder / "c.txt")

    corpus = ingest_text.fn(f"folder:{folder}")

    assert corpus.num_characters == 22 * 600 + 1
    told = {each.id: each.reason for each in once(listed(folder)).set_aside}
    assert told == {
        "a-link.txt": "another name of a file: b.txt",
        "c.txt": "another name of a file: b.txt",
    }


@pytest.mark.timeout(60)
def test_pipes_sockets_and_devices_are_told_and_not_opened(image_folder: Path) -> None:
    os.mkfifo(image_folder / "left" / "pipe.png")
    os.mkfifo(image_folder / "left" / "pipe.txt")
    (image_folder / "left" / "null.png").symlink_to("/dev/zero")
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{short}/s")
        (image_folder / "left" / "socket.png").symlink_to(f"{short}/s")

        images = ingest_images.fn(f"folder:{image_folder}")

        with pytest.raises(BadInput, match="holds no text file"):
            ingest_text.fn(f"folder:{image_folder / 'left'}")
    for pipe in (image_folder / "left" / "pipe.txt", Path("/dev/zero")):
        with pytest.raises(BadInput, match="is not a file"):
            ingest_text.fn(f"file:{pipe}")
    told = manifest_of(images.folder)["quarantine_reason"].dropna().to_dict()
    assert told == {
        "left/pipe.png": "neither a file nor a folder: a named pipe",
        "left/pipe.txt": "neither a file nor a folder: a named pipe",
        "left/null.png": "neither a file nor a folder: a device",
        "left/socket.png": "neither a file nor a folder: a socket",
    }


def test_names_that_are_not_utf8_are_escaped_without_confusion(image_folder: Path) -> None:
    left = os.fsencode(image_folder / "left")
    picture = (image_folder / "left" / "00.png").read_bytes()
    for name in (b"caf\xe9.png", b"caf\\xe9.png", "línea\n\x1b[31m.png".encode(), b"\xff.txt"):
        Path(os.fsdecode(left + b"/" + name)).write_bytes(picture)
    (image_folder / "right").rename(os.fsdecode(left[:-4] + b"ri\xe9ght"))

    images = ingest_images.fn(f"folder:{image_folder}")

    names = manifest_of(images.folder).index
    assert {name for name in names if name.startswith("left/") and not name[5].isdigit()} == {
        "left/caf\\xe9.png",
        "left/caf\\\\xe9.png",
        "left/línea\\n\\x1b[31m.png",
        "left/\\xff.txt",
    }
    assert images.class_names == ("left", "ri\\xe9ght")
    assert names.is_unique


def test_a_path_that_is_not_utf8_can_be_written_in_utf8(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    odd.mkdir()
    (odd / "a.txt").write_text("words and more words, " * 600)
    written = readable(odd)
    written.encode("utf-8")

    assert path_of(written) == odd
    assert path_of(str(odd)) == odd
    corpus = ingest_text.fn(f"folder:{written}")
    assert corpus.title == "caf\\xe9"
    assert corpus.num_characters == 13_201


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=30).filter(lambda raw: not {0, 47} & set(raw)))
@example(b"\\")
@example(b"\\\\")
@example(b"\\\\x80")
@example(b"\\x80")
@example(b"\\\x80")
@example(b"\n\xff\\x1b")
def test_every_path_can_be_written_in_utf8_and_found_again(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.fsdecode(folder.encode() + b"/." + raw + b".")
        Path(path).touch()

        written = writable(f"folder:{path}")
        found = path_of(written.removeprefix("folder:"))

    shown = readable(path)
    assert written.encode("utf-8").decode("utf-8") == written
    assert str(found) == path
    assert not {unicodedata.category(each) for each in shown} & {"Cc", "Cs"}


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_no_two_names_are_shown_alike(first: bytes, second: bytes) -> None:
    shown = [readable(os.fsdecode(raw)) for raw in (first, second)]

    assert (shown[0] == shown[1]) == (first == second)


def test_a_path_with_a_backslash_of_its_own_stays_as_it_is(tmp_path: Path) -> None:
    odd = tmp_path / "a\\xe9"
    odd.mkdir()

    assert path_of(str(odd)) == odd
    assert path_of(readable(odd)) == odd


def test_counting_puts_the_most_frequent_kind_first() -> None:
    found = [SetAside(id=str(i), reason=r) for i, r in enumerate(["b: 1", "a", "b: 2"])]

    assert counted(found) == "2 b, 1 a"
    assert counted([]) == ""


def test_the_order_is_that_of_names_whatever_the_disk_says(tmp_path: Path) -> None:
    for name in ("b/1", "a/2", "a-b/1", "a/10", "B/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")

    assert [file.id for file in listed(tmp_path).files] == ["B/1", "a/10", "a/2", "a-b/1", "b/1"]


def test_messages_of_odd_sources_stay_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "two\nlines \x1b[31m"
    folder.mkdir()
    (folder / "a.txt").write_text("short")

    for refused in (
        lambda: ingest_text.fn(f"folder:{folder}"),
        lambda: ingest_text.fn(f"file:{folder / 'a.txt'}"),
        lambda: ingest_text.fn(f"file:{folder / 'b.txt'}"),
        lambda: ingest_images.fn(f"folder:{folder}"),
        lambda: ingest_images.fn(f"folder:{folder}/gone"),
    ):
        with pytest.raises(BadInput, match=r"two\\nlines \\x1b") as error:
            refused()
        assert "\n" not in str(error.value)
        assert "\x1b" not in str(error.value)


@pytest.mark.timeout(120)
def test_a_path_longer_than_the_system_takes_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words and more words, " * 600)
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(40):  # beyond PATH_MAX
        os.mkdir("d" * 200, dir_fd=place)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)

    listing = listed(tmp_path)

    assert [file.id for file in listing.files] == ["a.txt"]
    (aside,) = listing.set_aside
    assert aside.reason == "cannot be opened: File name too long"
    shutil.rmtree(tmp_path / ("d" * 200))


def test_a_folder_that_vanishes_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be opened: No such file or directory; give a path"):
        listed(tmp_path / "gone")


def test_pictures_are_pictures_in_folders_with_the_suffix_of_one(image_folder: Path) -> None:
    (image_folder / "left").rename(image_folder / "left.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(image_folder / "right" / "z.png")

    assert ingest_images.fn(f"folder:{image_folder}").class_names == ("left.png", "right")


@pytest.mark.parametrize(
    "name",
    [
        *["node_modules", "Desktop DB", "$WinREAgent", "@SynoResource", "@eaDir@SynoEAStream"],
        *["Catalog Previews.lrdata", "_gsdata_"],
    ],
)
def test_more_of_what_systems_leave_is_no_class(image_folder: Path, name: str) -> None:
    (image_folder / name).mkdir()
    (image_folder / "left" / "00.png").rename(image_folder / name / "00.png")

    images = ingest_images.fn(f"folder:{image_folder}")

    assert images.class_names == ("left", "right")
    assert images.set_aside == "1 left by a system or a program"


def test_an_empty_folder_is_told(image_folder: Path) -> None:
    (image_folder / "middle" / "of").mkdir(parents=True)

    images = ingest_images.fn(f"folder:{image_folder}")

    assert images.class_names == ("left", "right")
    assert images.set_aside == "1 an empty folder"
    assert told(images.folder) == {"middle/of": "an empty folder"}


def test_a_pipe_that_takes_a_files_place_while_a_folder_is_read_is_not_opened(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = picture_processes.decoded
    waiting = [image_folder / "right" / "59.png"]

    def replaced(path: Path, size: int | None) -> object:
        if waiting:
            pipe = waiting.pop()
            pipe.unlink()
            os.mkfifo(pipe)
        return original(path, size)

    monkeypatch.setattr(picture_processes, "decoded", replaced)

    images = ingest_images.fn(f"folder:{image_folder}")

    assert told(images.folder) == {"right/59.png": "cannot be opened: it has become a named pipe"}


def test_a_text_that_has_become_a_pipe_or_a_device_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")

    for path in (tmp_path / "pipe.txt", Path("/dev/zero")):
        with pytest.raises(BadInput, match="cannot be read: it has become a"):
            read_text_file(path)


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="needs Linux's /proc")
def test_a_link_to_the_running_system_is_not_followed(image_folder: Path) -> None:
    (image_folder / "process").symlink_to("/proc/self")
    (image_folder / "left" / "memory.png").symlink_to("/proc/self/pagemap")

    images = ingest_images.fn(f"folder:{image_folder}")

    assert set(told(images.folder).values()) == {
        "neither a file nor a folder: a view of the running system"
    }
    assert images.num_quarantined == 2
