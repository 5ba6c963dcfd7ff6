"""What `atelier doctor` tells of the store that several homes share."""

from pathlib import Path

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
