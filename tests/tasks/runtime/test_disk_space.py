"""Disks that are really full, read-only, or out of inodes, and what is said of them."""

import errno
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from tasks.runtime import disk_space
from tasks.runtime.disk_space import cause_of, lack_of_room
from tasks.store.files import (
    CannotWrite,
    DiskFull,
    append_lines,
    atomic_folder,
    check_space,
    write_text,
)
from tasks.store.locks import file_lock
from tasks.tracking import runs
from tasks.tracking.mlflow_client import TrackingUnavailable, outages_named
from tasks.tracking.runs import open_run

Disk = Callable[..., Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mounts a small disk of one's own; what needs it is skipped without the right to mount."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("no right to mount")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    with pytest.raises(OSError, match="No space"), (folder / "filler").open("wb") as file:
        while True:
            file.write(b"\0" * 65_536)
            file.flush()


def test_a_disk_with_space_lacks_nothing(tmp_path: Path) -> None:
    assert lack_of_room(tmp_path, try_it=True) == ""
    assert lack_of_room(tmp_path / "not" / "yet", try_it=True) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_with_its_place_and_what_to_do(disk: Disk) -> None:
    folder = disk("size=2m")
    assert lack_of_room(folder) == ""
    fill(folder)

    said = lack_of_room(folder)

    assert said == f"no space is left at {folder} (0.0 MB free): free some space there"
    for write in (
        lambda: write_text(folder / "a" / "x.json", "{}" * 9000),
        lambda: append_lines(folder / "a" / "x.jsonl", ["{}" * 9000]),
    ):
        with pytest.raises(DiskFull, match="run the same command again") as met:
            write()
        assert f"no space is left at {folder}" in str(met.value)


def test_a_disk_without_inodes_is_not_called_full(disk: Disk) -> None:
    folder = disk("size=8m,nr_inodes=3")
    (folder / "one").touch()
    with pytest.raises(OSError, match="No space"):
        (folder / "two").touch()
        (folder / "three").touch()

    assert "no more files can be made, though there is space" in lack_of_room(folder)
    with pytest.raises(DiskFull, match="remove files that nobody needs"):
        write_text(folder / "four", "x")
    with pytest.raises(DiskFull, match="no more files can be made"):
        check_space(folder, 1000)
    with pytest.raises(DiskFull, match="no more files"), atomic_folder(folder / "five"):
        pass


def test_a_disk_that_can_only_be_read_is_named(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = disk("size=2m")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    monkeypatch.setenv("ATELIER_HOME", str(folder / "home"))

    assert lack_of_room(folder, try_it=True).startswith("the disk can only be read")
    for write in (lambda: write_text(folder / "x", "x"), lambda: file_lock("x").__enter__()):
        with pytest.raises(CannotWrite, match="mount it so that it can be written") as met:
            write()
        assert not isinstance(met.value, DiskFull)


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (errno.EDQUOT, "quota is used up", DiskFull),
        (errno.EMFILE, "ulimit -n", CannotWrite),
        (errno.ENFILE, "too many files open", CannotWrite),
        (errno.EIO, "dmesg", CannotWrite),
    ],
)
def test_other_causes_are_told_apart(
    code: int, said: str, kind: type[OSError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("tasks.store.files.flush", refuse)

    with pytest.raises(kind, match=said):
        write_text(tmp_path / "x", "x")
    assert cause_of(OSError(errno.ENOENT, "no"), tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_an_error_without_a_cause_of_the_disks_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((NotADirectoryError, FileExistsError)):
        append_lines(tmp_path / "file" / "log", ["x"])


def test_a_quota_shows_when_something_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(disk_space, "_write_a_little", refuse)

    assert lack_of_room(tmp_path) == ""
    assert lack_of_room(tmp_path, try_it=True).startswith("your disk quota is used up")


def test_that_a_disk_fills_up_is_said_once_and_that_it_has_space_again_too(disk: Disk) -> None:
    folder, lacking, said = disk("size=2m"), {}, []
    for step in (lambda: None, lambda: fill(folder), lambda: None, (folder / "filler").unlink):
        step()
        disk_space._report_change(folder, lacking, said.append)

    assert len(said) == 2
    assert said[0].startswith(f"no space is left at {folder}")
    assert "the work waits" in said[0]
    assert said[1] == f"there is space again at {folder}"


@pytest.mark.parametrize(
    "message",
    [
        "API request to http://127.0.0.1:1/api failed with exception",
        "(sqlite3.OperationalError) database or disk is full",
        "(sqlite3.OperationalError) attempt to write a readonly database",
    ],
)
def test_where_a_server_fails_on_a_full_disk_the_disk_is_blamed(
    message: str, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = disk("size=2m")
    monkeypatch.setenv("ATELIER_HOME", str(home))
    with pytest.raises(TrackingUnavailable, match="does not answer"), outages_named():
        raise MlflowException(message)
    fill(home)

    with pytest.raises(TrackingUnavailable) as met, outages_named():
        raise MlflowException(message)

    assert str(met.value).startswith(f"MLflow cannot write: no space is left at {home}")


def test_a_run_on_a_full_disk_waits_says_so_and_goes_on_when_there_is_space(
    tracking_database: str,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A database that really cannot grow: the first try fails, then somebody frees space."""
    home = disk("size=6m")
    database = home / "mlflow.db"
    database.write_bytes(Path(tracking_database.removeprefix("sqlite:///")).read_bytes())
    monkeypatch.setenv("ATELIER_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    (home / "locks").mkdir()
    for name in ("runs", "journals"):
        (home / "locks" / f"{name}.lock").touch()
    fill(home)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        (home / "filler").unlink()

    monkeypatch.setattr(runs.time, "sleep", wait)

    with caplog.at_level("INFO", logger="atelier"), open_run("patient"):
        pass

    assert waits == [5.0]
    assert f"MLflow cannot write; retrying: no space is left at {home}" in caplog.text


def test_a_run_that_has_waited_too_long_ends_with_the_disk_and_not_with_mlflow(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = disk("size=2m")
    fill(home)
    monkeypatch.setenv("ATELIER_HOME", str(home))
    monkeypatch.setattr(runs, "TRACKING_TIMEOUT_SECONDS", -1.0)

    def ask() -> None:
        raise TrackingUnavailable("MLflow at nowhere does not answer")

    with pytest.raises(DiskFull, match=f"no space is left at {home}"):
        runs._retry_until_available(ask)


def test_sqlite_says_of_a_full_disk_what_we_look_for(disk: Disk) -> None:
    home = disk("size=2m")
    with sqlite3.connect(home / "x.db") as database:
        database.execute("CREATE TABLE t (b BLOB)")
    fill(home)

    with pytest.raises(sqlite3.OperationalError, match=r"database or disk is full|disk I/O error"):
        database.execute("INSERT INTO t VALUES (zeroblob(900000))")
    database.close()
