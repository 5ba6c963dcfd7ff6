"""What `atelier doctor` tells of the store that several homes share."""

import os
from pathlib import Path
from typing import Any

import pytest

from atelier.diagnostics.shared_store import shared_store
from tasks.store.shared import STORE_MARK, SharedStore
from tasks.store.storage import STORE_VARIABLE


@pytest.fixture
def root(atelier_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a store that is set."""
    monkeypatch.setenv(STORE_VARIABLE, f"file://{tmp_path}/store")
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def test_without_one_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORE_VARIABLE, raising=False)

    assert shared_store().state == "ok"


def test_a_store_that_works_is_left_as_it_was(root: Path) -> None:
    """An empty one, too: it may be a folder that is not mounted, and this home must not take it."""
    found = shared_store()

    assert found.state == "ok"
    assert "gives each name once" in found.what
    assert found.what.endswith("no home has written there yet: is it the right one, and mounted?")
    assert [path for path in root.rglob("*") if path.is_file()] == []

    SharedStore(f"file://{root}").create("claims/a", b"content")

    found = shared_store()
    assert (found.state, "no home" in found.what) == ("ok", False)
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == {STORE_MARK, "claims/a"}


def test_one_that_is_away_says_what_that_means(root: Path) -> None:
    root.rmdir()

    found = shared_store()
    assert found.state == "attention"
    assert "there is no such folder" in found.what
    assert "runs work on alone, and 0 results wait here" in found.to_do


def test_one_that_gives_a_name_twice_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedStore, "create", lambda *_, **__: True)
    monkeypatch.setattr(SharedStore, "read", lambda *_: b"second")

    found = shared_store()
    assert found.state == "failed"
    assert "gives one name twice" in found.what
    assert "If-None-Match" in found.to_do


def test_a_bad_address_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE_VARIABLE, "gs://bucket")

    assert shared_store().state == "failed"


def written(root: Path) -> Path:
    """A store as another account would leave it: two records, one of which is returned."""
    store = SharedStore(f"file://{root}")
    for name in ("claims/a b/1.claim", "homes/one"):
        store.create(name, b"content")
    return root / "claims" / "a b" / "1.claim"


def told_of(root: Path, path: Path, what: str, more: str = "") -> None:
    found = shared_store()

    assert found.state == "attention"
    assert f"this account may not {what} {path}{more}, which others made" in found.what
    assert f"setfacl -R -m g:GROUP:rwX,d:g:GROUP:rwX {root} " in found.to_do


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write anywhere")
def test_a_file_or_folder_of_another_account_that_is_closed_is_named(root: Path) -> None:
    record = written(root)
    record.chmod(0)
    told_of(root, record, "read")

    record.chmod(0o600)
    record.parent.chmod(0o500)  # as is a folder that others may look into only
    try:
        told_of(root, record.parent, "enter and write into the folder")
    finally:
        record.parent.chmod(0o700)
    assert shared_store().state == "ok"


def test_what_is_closed_to_this_account_is_named_and_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, for whoever runs the tests: the system's answers are those of closed entries."""
    record = written(root)
    closed = {str(record): os.R_OK}

    def access(path: Any, needs: int) -> bool:
        return not closed.get(str(path), 0) & needs

    monkeypatch.setattr(os, "access", access)
    told_of(root, record, "read")

    closed.update({str(record.parent): os.W_OK, str(root / "homes" / "one"): os.R_OK})
    found = shared_store()
    assert f"enter and write into the folder {record.parent} and 2 more" in found.what

    closed.clear()
    closed[str(record)] = os.W_OK  # nobody writes into a file
    assert shared_store().state == "ok"


def test_a_folder_that_cannot_be_listed_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another account makes them, with umask 077."""
    folder = written(root).parent
    listed, has_right = os.scandir, os.access

    def scandir(path: Any) -> Any:
        if str(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(
        os, "access", lambda path, needs: str(path) != str(folder) and has_right(path, needs)
    )

    told_of(root, folder, "enter and write into the folder")


def test_a_store_that_gives_a_name_twice_is_told_before_its_rights(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(root)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(SharedStore, "create", lambda *_, **__: True)
    monkeypatch.setattr(SharedStore, "read", lambda *_: b"second")
    monkeypatch.setattr(SharedStore, "remove", lambda *_: None)

    found = shared_store()

    assert found.state == "failed"
    assert "gives one name twice" in found.what


def test_what_is_gone_meanwhile_is_not_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = written(root)

    def access(path: Any, needs: int) -> bool:
        if str(path) == str(record):
            record.unlink()
            return False
        return True

    monkeypatch.setattr(os, "access", access)

    assert shared_store().state == "ok"


def test_of_a_large_store_the_first_entries_are_looked_at(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(root)
    looked_at = []
    monkeypatch.setattr(os, "access", lambda path, _: looked_at.append(path) or True)
    monkeypatch.setattr("tasks.store.shared.MAX_LOOKED_AT", 3)

    found = shared_store()

    assert found.state == "ok"
    assert len(looked_at) == 3
    assert "the rights of its first 3 entries were looked at" in found.what
