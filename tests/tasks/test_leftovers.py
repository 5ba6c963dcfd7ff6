"""What is removed from the disk, and what never is."""

import os
import time
from pathlib import Path

from tasks.leftovers import Leftovers, remove_leftovers
from tasks.storage import atomic_folder, write_text


def test_only_old_temporary_files_are_removed(atelier_home: Path) -> None:
    write_text(atelier_home / "gallery" / "index.html", "kept")
    with atomic_folder(atelier_home / "runs" / "abc") as unfinished:
        (unfinished / "weights").write_bytes(b"12345")
        old = unfinished.with_name(unfinished.name + "-of-a-killed-run")
        old.mkdir()
        (old / "weights").write_bytes(b"123")
        (old / ".partial-inside").write_bytes(b"4567")
        two_days_ago = time.time() - 2 * 86_400
        os.utime(old, (two_days_ago, two_days_ago))

        removed = remove_leftovers.fn(keep_days=1.0)

        assert unfinished.is_dir()
    assert removed == Leftovers(files=1, num_bytes=7)
    assert not old.exists()
    assert (atelier_home / "runs" / "abc" / "weights").read_bytes() == b"12345"
    assert (atelier_home / "gallery" / "index.html").read_text() == "kept"
    assert remove_leftovers.fn(keep_days=1.0) == Leftovers(files=0, num_bytes=0)


def test_a_home_that_is_not_there_yet_has_no_leftovers(atelier_home: Path) -> None:
    assert remove_leftovers.fn(keep_days=1.0).files == 0
