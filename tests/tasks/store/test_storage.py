"""The seam below the artifact store."""

import errno
import os
from pathlib import Path

import pytest

from tasks.store.records import DamagedRecord
from tasks.store.storage import LocalFolder


def test_a_name_is_given_once(tmp_path: Path) -> None:
    storage = LocalFolder(tmp_path)

    assert storage.create("a/b.json", b"first")
    assert not storage.create("a/b.json", b"second")

    assert storage.read("a/b.json") == b"first"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]
    with pytest.raises(FileNotFoundError):
        storage.read("a/c.json")


def test_names_are_those_of_all_below_a_folder_in_order(tmp_path: Path) -> None:
    storage = LocalFolder(tmp_path)
    for name in ("a/2", "a/b/1", "a/10", "c"):
        storage.create(name, b"")
    (tmp_path / "a" / ".partial-1-x").touch()

    assert storage.names("a") == ["a/10", "a/2", "a/b/1"]
    assert storage.names("d") == []


def test_a_folder_in_the_place_of_a_content_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    with pytest.raises(DamagedRecord, match="a: Is a directory"):
        LocalFolder(tmp_path).read("a")


def test_where_files_have_no_links_they_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("os.link", refuse)

    assert LocalFolder(tmp_path).create("a", b"content")
    assert LocalFolder(tmp_path).read("a") == b"content"
