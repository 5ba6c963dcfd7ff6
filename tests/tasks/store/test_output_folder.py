"""A folder for a person: whole or not there, and nothing of theirs is touched."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from tasks.store.files import TEMPORARY_PREFIX, BadInput
from tasks.store.output_folder import new_folder


def test_it_is_there_when_the_block_has_ended_well(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with new_folder(folder) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("content")
        assert not folder.exists()

    assert (folder / "inner" / "file").read_text() == "content"
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    assert (folder / "inner" / "file").stat().st_mode & 0o777 == 0o644
    assert (folder / "inner").stat().st_mode & 0o777 == folder.stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as temporary:
        (temporary / "file").write_text("content")

    assert (tmp_path / "out" / "file").exists()


def test_what_is_there_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    for name, said in (("out", "such as mine"), ("file", "is no folder"), ("link", "is no folder")):
        with pytest.raises(BadInput, match=said), new_folder(tmp_path / name):
            raise AssertionError("entered")
    assert (tmp_path / "out" / "mine").read_text() == (tmp_path / "file").read_text() == "mine"


def test_nothing_is_left_of_a_block_that_failed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "out") as temporary:
        (temporary / "half").write_text("half")
        raise KeyError

    assert list(tmp_path.iterdir()) == []


def test_files_that_came_meanwhile_are_kept_and_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="such as theirs"), new_folder(tmp_path / "out") as temporary:
        (temporary / "ours").write_text("ours")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("theirs")

    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]


def _fill(folder: Path) -> None:
    with new_folder(folder) as temporary:
        (temporary / "half").write_text("half")
        (folder.parent / "begun").touch()
        time.sleep(60)


def test_a_killed_process_leaves_no_folder_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_fill, args=(tmp_path / "out",))
    process.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with new_folder(tmp_path / "beside"):
        assert len(list(tmp_path.glob(f"{TEMPORARY_PREFIX}*"))) == 2  # of one that is at work
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    assert not (tmp_path / "out").exists()
    with new_folder(tmp_path / "out") as temporary:
        (temporary / "whole").write_text("whole")

    assert {path.name for path in tmp_path.iterdir()} == {"begun", "beside", "out"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]
