"""A home knows the store that it has used: an unmounted folder, or another bucket, is not it."""

import json
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest

from tasks.registry import audit_log
from tasks.store import shared as module
from tasks.store.announcements import announce
from tasks.store.exchange import is_sent, mark_sent
from tasks.store.known_stores import known_id, place_of
from tasks.store.shared import STORE_MARK, SharedStore, StoreAway
from tasks.store.storage import MARK

Use = Callable[[str], SharedStore]


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Go to a home of a name, in a process of its own; all share a store."""
    (tmp_path / "store").mkdir()

    def go(name: str) -> SharedStore:
        monkeypatch.setenv("ATELIER_HOME", str(tmp_path / name))
        monkeypatch.setenv("ATELIER_STORE", f"file://{tmp_path}/store")
        module._shared.cache_clear()
        found = module.shared()
        assert found is not None
        return found

    return go


def unmount(tmp_path: Path) -> Path:
    """Leave an empty folder in the place of the store."""
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()
    return tmp_path / "elsewhere"


def mount(tmp_path: Path) -> None:
    (tmp_path / "store").rename(tmp_path / "mount point")
    (tmp_path / "elsewhere").rename(tmp_path / "store")


def id_of(folder: Path) -> str:
    line, _, _ = (folder / STORE_MARK).read_bytes().partition(b"\n")
    return str(json.loads(line)["token"])


def test_the_first_home_marks_an_empty_store_when_it_writes_and_says_so(
    use: Use, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = use("a")
    caplog.set_level("INFO", "atelier")
    assert store.names("") == []
    assert not list((tmp_path / "store").iterdir()), "to look changes nothing"

    store.create("b", b"")
    store.create("c", b"")

    assert caplog.text.count("is empty: a new shared store") == 1
    assert known_id(store.address) == id_of(tmp_path / "store")
    assert store.names("") == ["b", "c"]
    before = (tmp_path / "store" / STORE_MARK).read_bytes()
    use("b").create("d", b"")
    assert (tmp_path / "store" / STORE_MARK).read_bytes() == before
    assert known_id(store.address) == id_of(tmp_path / "store")
    assert caplog.text.count("is empty: a new shared store") == 1


@pytest.mark.parametrize("has_only_looked", [False, True])
@pytest.mark.parametrize("is_new_process", [False, True])
def test_a_home_does_not_take_an_unmounted_folder_for_its_store(
    use: Use, tmp_path: Path, *, is_new_process: bool, has_only_looked: bool
) -> None:
    store = use("a")
    store.create("b", b"")
    if has_only_looked:
        store = use("b")
        assert store.names("") == ["b"]
    unmount(tmp_path)
    store = use("b" if has_only_looked else "a") if is_new_process else store

    (tmp_path / "file").touch()
    for ask in (
        lambda: store.names("b"),
        lambda: store.read("b"),
        lambda: store.create("c", b""),
        lambda: store.remove("b"),
        lambda: store.send(tmp_path / "file", "d"),
        lambda: store.fetch("b", tmp_path / "copy"),
    ):
        with pytest.raises(StoreAway, match="not the store that this home has used, no store here"):
            ask()
    assert not list((tmp_path / "store").iterdir())

    mount(tmp_path)
    assert store.names("") == ["b"]


def test_a_home_tells_another_store_from_its_own_and_may_be_told_to_use_it(
    use: Use, tmp_path: Path
) -> None:
    use("a").create("b", b"")
    unmount(tmp_path)
    use("b").create("c", b"")

    with pytest.raises(StoreAway, match="another one here now") as told:
        use("a").names("")
    assert "\n" not in str(told.value)
    assert id_of(tmp_path / "store")[:8] in str(told.value)
    assert str(place_of(use("a").address)) in str(told.value)
    place_of(use("a").address).unlink()
    assert use("a").names("") == ["c"]


def test_no_audit_log_begins_in_an_unmounted_folder(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "SECONDS_TO_WAIT_FOR_THE_STORE", 0.0)
    use("a")
    audit_log.append("m", "refused", why="in the store")
    assert use("b").names("homes") == []  # has read nothing of any log
    unmount(tmp_path)

    with pytest.raises(StoreAway, match="no store here now"):
        audit_log.append("m", "refused", why="nowhere")
    mount(tmp_path)
    audit_log.append("m", "refused", why="in the store, too")

    assert [e.why for e in audit_log.entries_of("m")] == ["in the store", "in the store, too"]


def told_in(home: Path, address: str) -> None:
    """As homes noted it before stores had marks."""
    home.mkdir()
    (home / "shared.json").write_text(json.dumps({"home": "x", "address": address, "at": 1.0}))


def test_a_store_from_before_marks_is_adopted_where_it_has_content(
    use: Use, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told_in(tmp_path / "a", f"file://{tmp_path}/store")
    store = use("a")
    with pytest.raises(StoreAway, match="no store here now"):
        store.create("b", b"")
    with pytest.raises(StoreAway, match="no store here now"):
        store.names("")
    assert not list((tmp_path / "store").iterdir())

    (tmp_path / "store" / "audit").mkdir()
    (tmp_path / "store" / "audit" / "1").touch()
    assert store.names("") == ["audit/1"]
    store.create("b", b"")

    assert known_id(store.address) == id_of(tmp_path / "store")
    assert "a new shared store" not in caplog.text


def test_homes_that_begin_a_store_at_once_agree_on_one_mark(use: Use, tmp_path: Path) -> None:
    """Another one marks it between this one's look and its put."""
    put, rival = obstore.put, SharedStore(f"file://{tmp_path}/store")
    store, made = use("a"), []

    def slow(*arguments: object, **options: object) -> None:
        if not made:
            made.append(None)
            rival.create("theirs", b"")
        put(*arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.obstore, "put", slow)
        store.create("ours", b"")

    assert store.names("") == rival.names("") == ["ours", "theirs"]
    assert known_id(store.address) == id_of(tmp_path / "store")


def test_a_home_whose_other_process_begins_a_store_meanwhile_goes_on(
    use: Use, tmp_path: Path
) -> None:
    """It marks the store when this process has just found no mark."""
    get, rival = obstore.get, SharedStore(f"file://{tmp_path}/store")
    store, asked = use("a"), []

    def slow(*arguments: object) -> object:
        try:
            return get(*arguments)  # type: ignore[arg-type]
        finally:
            if not asked:
                asked.append(None)
                rival.create("theirs", b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.obstore, "get", slow)
        store.create("ours", b"")

    assert store.names("") == ["ours", "theirs"]


def test_a_damaged_mark_is_named(use: Use, tmp_path: Path) -> None:
    use("a").create("b", b"")
    (tmp_path / "store" / STORE_MARK).write_bytes(b"\xff")

    with pytest.raises(StoreAway, match=r"store: no JSON.*put that file back"):
        use("a").names("")


def test_a_store_that_is_lost_can_be_followed_by_a_new_one(use: Use, tmp_path: Path) -> None:
    store = use("a")
    store.create("b", b"")
    announce(store)
    unmount(tmp_path)
    with pytest.raises(StoreAway, match="no store here now") as told:
        store.create("c", b"")
    assert str(place_of(store.address)) in str(told.value)

    place_of(store.address).unlink()  # as the message says
    use("a").create("c", b"")

    assert use("a").names("") == ["c"]
    assert known_id(store.address) == id_of(tmp_path / "store")


def test_what_was_sent_to_another_store_of_the_address_is_not_sent_to_this_one(
    use: Use, tmp_path: Path
) -> None:
    folder, store = tmp_path / "artifact", use("a")
    folder.mkdir()
    store.create("b", b"")
    mark_sent(store, folder)
    assert is_sent(folder, use("a"))

    unmount(tmp_path)
    place_of(store.address).unlink()
    use("a").create("c", b"")

    assert not is_sent(folder, use("a"))
    mark_sent(use("a"), folder)
    assert is_sent(folder, use("a"))
    (folder / MARK).write_text(store.address)  # as earlier versions noted it
    assert is_sent(folder, use("a"))
