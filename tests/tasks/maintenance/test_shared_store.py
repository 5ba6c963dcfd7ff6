"""What may leave the store that several homes share, and what is sent there."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.maintenance.shared_store import find_shared_garbage, send_what_waits, sweep
from tasks.store import announcements, exchange
from tasks.store.artifacts import get_or_create
from tasks.store.files import home, remove, write_text
from tasks.store.outbox import unsent
from tasks.store.records import DamagedRecord
from tasks.store.shared import SharedStore, shared
from tasks.store.storage import STORE_VARIABLE

DAY = 86_400.0


class Sharing:
    """A store and the homes that share it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._monkeypatch = root, monkeypatch
        (root / "store").mkdir()
        monkeypatch.setenv(STORE_VARIABLE, f"file://{root}/store")
        monkeypatch.setattr(exchange, "_away_since", {})
        self.enter("a")

    def enter(self, name: str) -> None:
        self._monkeypatch.setenv("ATELIER_HOME", str(self.root / name))
        self._monkeypatch.setattr(exchange, "_emptied", set())

    @property
    def store(self) -> SharedStore:
        found = shared()
        assert found is not None
        return found

    def made(self, kind: Any, name: str, **more: Any) -> str:
        """An artifact of this home; returns its digest."""

        def make(folder: Path) -> dict[str, int]:
            write_text(folder / "content", f"{kind} {name}")
            return {}

        return get_or_create(kind, name, {}, make, **more).digest

    def aged(self, days: float, below: str = "") -> None:
        """Make all that lies below a folder of the store so much older."""
        for path in (self.root / "store" / below).rglob("*"):
            if path.is_file():
                then = time.time() - days * DAY
                os.utime(path, (then, then))

    def garbage(self, *kept: str) -> list[str]:
        return sorted(each.folder for each in find_shared_garbage(self.store, kept))


@pytest.fixture
def sharing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sharing:
    return Sharing(tmp_path, monkeypatch)


def forget(sharing: Sharing) -> None:
    """A home loses all its artifacts, as by its own `atelier gc`, and says so."""
    remove(home() / "artifacts")
    announcements.announce(sharing.store)


def test_what_a_home_holds_stays_whoever_sweeps(sharing: Sharing) -> None:
    sharing.made("models", "digits-vae")
    announcements.announce(sharing.store)
    sharing.aged(91, "artifacts")
    sharing.enter("b")

    assert sharing.garbage() == []


def test_what_no_home_holds_goes_when_it_is_old(sharing: Sharing) -> None:
    digest = sharing.made("models", "digits-vae")
    forget(sharing)
    sharing.aged(89, "artifacts")
    assert sharing.garbage() == [], "too young"
    sharing.aged(91, "artifacts")

    (found,) = find_shared_garbage(sharing.store, [])
    assert found.folder.startswith("artifacts/models/digits-vae/")
    assert found.names[0].endswith("manifest.json"), "it goes first"
    assert "no home and no version refers to it, for 90 days" in found.reason
    assert sharing.garbage(digest) == [], "a version of the registry does"
    assert sweep(sharing.store, [found]) == found.num_bytes > 0
    assert sharing.store.names("artifacts") == []
    assert sharing.garbage() == []


def test_what_something_was_made_from_stays_with_it(sharing: Sharing) -> None:
    tokens = sharing.made("tokens", "book")
    model = sharing.made("models", "book-gpt", inputs=[tokens])
    sharing.made("evaluations", "book-gpt", inputs=[model])
    sharing.made("evaluations", "other-gpt", inputs=["e" * 64])
    forget(sharing)
    sharing.aged(91, "artifacts")

    assert [each.split("/")[1:3] for each in sharing.garbage(model)] == [
        ["evaluations", "other-gpt"]
    ]
    assert len(sharing.garbage()) == 4


def test_records_of_searches_stay(sharing: Sharing) -> None:
    sharing.made("trials", "digits-vae")
    forget(sharing)
    sharing.aged(1000, "artifacts")

    assert sharing.garbage() == []


def test_a_home_that_is_silent_for_long_is_forgotten(sharing: Sharing) -> None:
    sharing.made("models", "digits-vae")
    announcements.announce(sharing.store)
    sharing.aged(91)
    sharing.enter("b")

    assert len(sharing.garbage()) == 1


def test_half_a_file_of_a_killed_sender_goes_after_a_day(sharing: Sharing) -> None:
    announcements.announce(sharing.store)
    folder = sharing.root / "store" / "artifacts" / "models" / "digits-vae" / "0123"
    folder.mkdir(parents=True)
    for name, days in (("old#1", 1.1), ("young#1", 0.9)):
        (folder / name).write_bytes(b"half")
        then = time.time() - days * DAY
        os.utime(folder / name, (then, then))

    (found,) = find_shared_garbage(sharing.store, [])

    assert found.names == ("artifacts/models/digits-vae/0123/old#1",)
    assert sweep(sharing.store, [found]) == 4
    assert [path.name for path in folder.iterdir()] == ["young#1"]


def test_nothing_goes_while_it_cannot_be_read_what_a_home_refers_to(sharing: Sharing) -> None:
    sharing.made("models", "digits-vae")
    (name,) = sharing.store.names("homes")
    (sharing.root / "store" / name).write_bytes(b"{}\n")
    sharing.enter("b")

    with pytest.raises(DamagedRecord, match="homes/"):
        find_shared_garbage(sharing.store, [])


def test_what_was_never_finished_goes_after_a_month(sharing: Sharing) -> None:
    store = sharing.store
    store.create("artifacts/models/m/k/0123", b"")
    store.create("claims/models/m/k/00000001.claim", b"")
    store.create("checkpoints/models/m/k/0000000001.ab", b"")
    store.create("audit/m/00000001.json", b"")
    sharing.aged(29)
    assert sharing.garbage() == []
    sharing.aged(31)

    assert sharing.garbage() == [
        "artifacts/models/m/k",
        "checkpoints/models/m/k",
        "claims/models/m/k",
    ]


def test_a_home_tells_once_a_day_and_keeps_one_record(
    sharing: Sharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing.made("models", "x-vae")
    (first,) = sharing.store.names("homes")
    sharing.enter("a")
    sharing.made("models", "y-vae")
    assert sharing.store.names("homes") == [first]
    now = announcements.steady_now()
    monkeypatch.setattr(announcements, "steady_now", lambda: now + DAY)
    sharing.enter("a")
    sharing.made("models", "z-vae")

    (second,) = sharing.store.names("homes")
    assert (first.rpartition("/")[2], second.rpartition("/")[2]) == (
        "00000001.json",
        "00000002.json",
    )
    assert first.rpartition("/")[0] == second.rpartition("/")[0]


def test_housekeeping_sends_what_waits(sharing: Sharing, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delenv(STORE_VARIABLE)
        sharing.made("models", "digits-vae")
        assert send_what_waits.fn() == 0
    assert len(unsent(sharing.store)) == 1

    assert send_what_waits.fn() == 1
    assert unsent(sharing.store) == []
    assert len(sharing.store.names("homes")) == 1
    (sharing.root / "store").rename(sharing.root / "away")
    sharing.made("models", "digits-gan")
    assert send_what_waits.fn() == 0


def test_a_store_with_nothing_in_it_has_no_garbage(sharing: Sharing) -> None:
    ask: Callable[[], list[str]] = sharing.garbage

    assert ask() == ask() == []
