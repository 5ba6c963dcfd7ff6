import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.store.files import (
    ChecksumMismatch,
    DiskFull,
    atomic_file,
    atomic_folder,
    check_digests,
    check_space,
    digest_of,
    folder_digests,
    read_json,
    sha256_of,
    write_json,
    write_text,
)


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_text("old")

    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError

    assert path.read_text() == "old"
    assert files_below(tmp_path) == ["model.bin"]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_text("old")

    with pytest.raises(DiskFull, match="free some space"), atomic_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert path.read_text() == "old"
    assert files_below(tmp_path) == ["model.bin"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_a_write_to_a_full_device_is_a_full_disk(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFull),
        atomic_file(tmp_path / "x"),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"1")


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "set") as temporary:
        (temporary / "a").write_text("1")
        raise RuntimeError

    assert files_below(tmp_path) == []


def test_a_folder_that_another_process_finished_first_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "set") as temporary:
        (temporary / "a").write_text("second")
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "a").write_text("first")

    assert (tmp_path / "set" / "a").read_text() == "first"
    assert files_below(tmp_path) == ["set", "set/a"]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_text(tmp_path / "page.html", "x")

    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o644


def test_sha256_is_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")

    digest = sha256_of(tmp_path / "abc")

    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_flipped_byte_and_a_missing_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    digests = folder_digests(tmp_path)
    check_digests(tmp_path, digests)

    (tmp_path / "a").write_bytes(b"onf")
    with pytest.raises(ChecksumMismatch, match="a: sha256 is"):
        check_digests(tmp_path, digests)

    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").unlink()
    with pytest.raises(ChecksumMismatch, match="missing"):
        check_digests(tmp_path, digests)


def test_too_little_space_is_told_before_work_begins(tmp_path: Path) -> None:
    check_space(tmp_path / "not" / "yet", 1)

    with pytest.raises(DiskFull, match=r"MB are free, a run needs \d+ MB"):
        check_space(tmp_path / "not" / "yet", 10**18)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON))
def test_a_digest_depends_on_content_and_not_on_the_order_of_keys(value: dict[str, object]) -> None:
    shuffled = dict(reversed(value.items()))

    assert digest_of(value) == digest_of(shuffled)
    assert digest_of(value) != digest_of([value])


def test_json_survives_a_round_trip(tmp_path: Path) -> None:
    value = {"text": "é\r\n\u2028", "numbers": [1, 2.5, None]}

    write_json(tmp_path / "x.json", value)

    assert read_json(tmp_path / "x.json") == value
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == value
