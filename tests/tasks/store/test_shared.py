"""The store that several homes share: what it is called, and what its answers mean."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError

from tasks.store import shared as module
from tasks.store.files import BadInput
from tasks.store.records import DamagedRecord
from tasks.store.shared import BYTES_OF_A_PART, SharedStore, StoreAway, shared
from tasks.store.storage import STORE_VARIABLE


@pytest.fixture
def store(tmp_path: Path, atelier_home: Path) -> SharedStore:
    """An empty one, which has its mark."""
    (tmp_path / "store").mkdir()
    made = SharedStore(f"file://{tmp_path}/store")
    made.create("first", b"")
    made.remove("first")
    return made


def answered_by(
    error: Exception, monkeypatch: pytest.MonkeyPatch, *, is_put: bool, before: Callable[[], Any]
) -> None:
    """Have the next put answered by an error, after it happened or not, and something before."""
    put = obstore.put

    def answer(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(module.obstore, "put", put)
        before()
        if is_put:
            put(*arguments, **options)
        raise error

    monkeypatch.setattr(module.obstore, "put", answer)


def test_no_address_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORE_VARIABLE, raising=False)
    assert shared() is None
    monkeypatch.setenv(STORE_VARIABLE, "  ")
    assert shared() is None


@pytest.mark.parametrize(
    "address",
    [
        *("bucket", "s3://", "s3:///prefix", "file://folder/a", "file:///", "/shared"),
        *("s3://key:secret@bucket/a", "s3://bucket/a?b", "https://bucket/a", "file:///a/../b"),
    ],
)
def test_another_address_is_refused_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE_VARIABLE, address)

    with pytest.raises(BadInput, match=r"ATELIER_STORE=.*wanted s3://BUCKET.*AWS_ENDPOINT_URL"):
        shared()


@pytest.mark.parametrize("address", ["s3://bucket", "s3://bucket/a/b/", "file:///shared folder"])
def test_an_address_opens_a_store_that_is_not_asked_anything(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORE_VARIABLE, address)

    assert (found := shared()) is not None and found is shared()


def test_a_name_is_given_once_and_read_by_all(store: SharedStore, tmp_path: Path) -> None:
    other = SharedStore(f"file://{tmp_path}/store")

    assert store.create("a/ж-1.json", b"first\nline")
    assert not other.create("a/ж-1.json", b"first\nline"), "equal, and somebody else's"
    assert other.create("a/b/2", b"")

    assert other.read("a/ж-1.json") == b"first\nline"
    assert store.read("a/b/2") == b""
    assert store.names("a") == ["a/b/2", "a/ж-1.json"]
    assert store.names("none") == []
    with pytest.raises(FileNotFoundError):
        store.read("a/c")


@pytest.mark.parametrize("error", [AlreadyExistsError("its own"), GenericError("lost answer")])
def test_a_put_that_succeeded_and_was_answered_by_an_error_is_ours(
    error: Exception, store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered_by(error, monkeypatch, is_put=True, before=lambda: None)

    assert store.create("a", b"content")
    assert store.read("a") == b"content"


@pytest.mark.parametrize("error", [AlreadyExistsError("theirs"), GenericError("lost answer")])
def test_an_error_over_another_ones_record_does_not_make_it_ours(
    error: Exception, store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = SharedStore(store.address)
    answered_by(error, monkeypatch, is_put=False, before=lambda: theirs.create("a", b"content"))

    assert not store.create("a", b"content"), "equal, and somebody else's"


def test_a_put_that_failed_is_told_as_the_store_being_away(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered_by(GenericError("no route\n\nDebug"), monkeypatch, is_put=False, before=lambda: None)

    with pytest.raises(StoreAway, match=r"^file:///.*store: no route$"):
        store.create("a", b"content")
    assert store.names("") == []


def test_a_bucket_that_is_not_there_is_a_store_that_is_away(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    missing = FileNotFoundError("no such bucket")
    answered_by(missing, monkeypatch, is_put=False, before=lambda: None)
    with pytest.raises(StoreAway, match="no such bucket"):
        store.create("a", b"content")
    answered_by(missing, monkeypatch, is_put=False, before=lambda: None)
    with pytest.raises(StoreAway, match="no such bucket"):
        store.send(tmp_path / "file", "b")


def test_a_damaged_record_is_named(store: SharedStore, tmp_path: Path) -> None:
    store.create("a", b"content")
    path = tmp_path / "store" / "a"
    path.write_bytes(path.read_bytes().replace(b"content", b"contenu"))

    with pytest.raises(DamagedRecord, match="store: a: its sha256 is not the one"):
        store.read("a")
    assert not store.create("a", b"content")
    path.write_bytes(b"\xff\n")
    with pytest.raises(DamagedRecord, match="a: no JSON"):
        store.read("a")


def test_a_folder_that_is_not_there_is_a_store_that_is_away(tmp_path: Path) -> None:
    store = SharedStore(f"file://{tmp_path}/none")

    for ask in (
        lambda: store.create("a", b""),
        lambda: store.read("a"),
        lambda: store.names("a"),
        lambda: store.remove("a"),
    ):
        with pytest.raises(StoreAway, match="none: there is no such folder; mount or make it"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint_that_refuses_is_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    with pytest.raises(
        StoreAway, match=r"s3://bucket/a: .*http://127\.0\.0\.1:9/bucket/a/store"
    ) as told:
        SharedStore("s3://bucket/a").create("b", b"")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("size", [0, 5, 2 * BYTES_OF_A_PART + 3])
def test_files_travel_in_parts_and_tell_how_far_they_are(
    size: int, store: SharedStore, tmp_path: Path
) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    sent: list[int] = []
    fetched: list[int] = []

    store.send(tmp_path / "file", "a/f", sent.append)
    store.fetch("a/f", tmp_path / "copy", fetched.append)

    assert (tmp_path / "copy").read_bytes() == content[:size]
    assert fetched == [min(n + BYTES_OF_A_PART, size) for n in range(0, size, BYTES_OF_A_PART)]
    assert sent == (fetched if size > BYTES_OF_A_PART else [])


def test_what_was_removed_is_gone_and_may_be_removed_again(store: SharedStore) -> None:
    store.create("a", b"")
    store.remove("a")
    store.remove("a")

    assert store.names("") == []
    with pytest.raises(FileNotFoundError):
        store.fetch("a", Path("copy"))


def test_a_put_that_is_not_whole_is_in_no_listing_and_can_be_removed(
    store: SharedStore, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x" * (2 * BYTES_OF_A_PART))
    seen: list[list[str]] = []
    store.create("a/b", b"")

    def look(_: int) -> None:  # the library's own thread, which may not ask the store
        seen.append([path.name for path in (tmp_path / "store" / "a").iterdir()])

    store.send(tmp_path / "file", "a/f", look)
    assert sorted(seen[-1]) == ["b", "f#1"], "as the library calls it"
    assert store.unfinished() == {}

    (tmp_path / "store" / "a" / "f#1").write_bytes(b"half")
    (tmp_path / "store" / "a" / "f#x").write_bytes(b"somebody's")
    assert {name: entry.num_bytes for name, entry in store.unfinished().items()} == {"a/f#1": 4}
    assert "a/f#1" not in store.names("a")
    store.remove("a/f#1")
    store.remove("a/f#1")
    assert store.unfinished() == {}
    assert (tmp_path / "store" / "a" / "f#x").exists()


def test_a_record_is_a_line_for_the_store_and_the_content(
    store: SharedStore, tmp_path: Path
) -> None:
    store.create("a", b'{"b": 1}\n')

    line, content, end = (tmp_path / "store" / "a").read_text().split("\n")
    assert set(json.loads(line)) == {"sha256", "token"}
    assert (content, end) == ('{"b": 1}', "")


class Silent:
    """An object store that answers nothing, and how often it was asked, by a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_asked, self.now, self.answers = 0, 1000.0, False
        self._real = {name: getattr(obstore, name) for name in ("get", "list", "put")}
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        for name in self._real:
            monkeypatch.setattr(module.obstore, name, self._asked(name))

    def _asked(self, name: str) -> Callable[..., Any]:
        def answer(*arguments: Any, **options: Any) -> Any:
            if self.answers:
                return self._real[name](*arguments, **options)
            self.num_asked += 1
            raise GenericError("no answer within 10 seconds")

        return answer


def test_a_store_that_did_not_answer_is_not_asked_again_for_some_seconds(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Silent(monkeypatch)
    for _ in range(5):
        with pytest.raises(StoreAway, match="no answer within 10 seconds"):
            store.read("a")
        with pytest.raises(StoreAway, match="no answer within 10 seconds"):
            store.names("a")
        with pytest.raises(StoreAway, match="no answer within 10 seconds"):
            store.remove("a")
    assert silent.num_asked == 1

    silent.now += module.SECONDS_OF_SILENCE - 0.1
    silent.answers = True
    with pytest.raises(StoreAway):
        store.names("a")
    silent.now += 0.2
    assert store.names("a") == []
    assert store.create("a", b""), "it answers: nothing is held back any more"


def test_a_put_that_was_not_answered_is_looked_for_at_once(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Silent(monkeypatch)

    with pytest.raises(StoreAway):
        store.create("a", b"")

    assert silent.num_asked == 2, "the put, and the look for it"


def test_a_put_that_is_held_back_asks_nothing_and_what_must_be_told_is_not_held_back(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Silent(monkeypatch)
    with pytest.raises(StoreAway):
        store.read("a")
    with pytest.raises(StoreAway):
        store.create("a", b"")
    assert silent.num_asked == 1

    silent.answers = True
    assert store.create("given up", b"", waits=False)


def test_what_is_wrong_with_one_object_holds_nothing_back(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("a", b"content")
    real = obstore.get

    def refused(where: Any, name: str) -> Any:
        if name == "theirs":
            raise PermissionDeniedError("theirs: permission denied")
        return real(where, name)

    monkeypatch.setattr(module.obstore, "get", refused)
    with pytest.raises(StoreAway, match="permission denied"):
        store.read("theirs")

    assert store.read("a") == b"content"
