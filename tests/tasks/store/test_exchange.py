"""Two homes that share a store: made once, fetched whole, waited for, taken over, sent later."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tasks.store import claims, exchange, outbox, retention
from tasks.store.artifacts import (
    Artifact,
    artifact_folder,
    find,
    get_or_create,
    opened,
    verify,
)
from tasks.store.exchange import Exchange, is_sent
from tasks.store.files import digest_of, home, write_text
from tasks.store.outbox import send_unsent, unsent
from tasks.store.shared import SharedStore, StoreAway, shared
from tasks.store.steps import history
from tasks.store.storage import MANIFEST, STORE_VARIABLE
from tests.tasks.store.making import Maker

KEY = {"settings": {"size": 3}, "inputs": []}


class Homes:
    """Two homes, one of which this process works in, and the store that they share."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._monkeypatch = root / "store", monkeypatch
        self.root.mkdir()
        self._homes = root
        monkeypatch.setenv(STORE_VARIABLE, f"file://{self.root}")
        self.enter("a")

    def enter(self, name: str) -> None:
        self._monkeypatch.setenv("ATELIER_HOME", str(self._homes / name))

    @property
    def store(self) -> SharedStore:
        found = shared()
        assert found is not None
        return found

    @contextmanager
    def away(self) -> Iterator[None]:
        """The store's folder is not mounted."""
        self.root.rename(self.root.with_name("unmounted"))
        yield
        self.root.with_name("unmounted").rename(self.root)
        exchange._away_since.update(dict.fromkeys(exchange._away_since, -1e9))


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Homes]:
    monkeypatch.setattr(exchange, "SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(exchange, "_away_since", {})
    monkeypatch.setattr(exchange, "_emptied", set())
    monkeypatch.setenv(retention.LEASE_VARIABLE, "1")
    yield Homes(tmp_path, monkeypatch)


def made(make: Any, name: str = "digits-vae") -> Artifact:
    return get_or_create("models", name, KEY, make)


def reasons(step: str = "digits-vae") -> str:
    return "\n".join(history(step)[-1].reasons)


def stored(homes: Homes, folder: str = "") -> list[str]:
    return homes.store.names(folder)


def test_what_one_home_made_is_unchanged_in_the_other(homes: Homes) -> None:
    make = Maker()
    first = made(make)
    homes.enter("b")
    second = made(make)
    again = made(make)

    assert make.times == 1
    assert (second.digest, second.files, second.record) == (first.digest, first.files, first.record)
    assert second.was_stored and again.was_stored
    assert (second.folder / "samples/one.txt").read_text() == "a sample"
    assert [record.state for record in history("digits-vae")] == ["unchanged", "unchanged"]
    assert "another home made it; fetched 2 files" in "\n".join(history("digits-vae")[0].reasons)
    assert history("digits-vae")[1].reasons == []


def test_the_store_has_each_file_by_its_content_and_no_claim_is_left(homes: Homes) -> None:
    first = made(Maker())

    key = first.folder.name
    names = [f"artifacts/models/digits-vae/{key}/{sha}" for _, sha in first.files.values()]
    assert stored(homes, "artifacts") == sorted(
        [*names, f"artifacts/models/digits-vae/{key}/{MANIFEST}"]
    )
    assert stored(homes, "claims") == stored(homes, "checkpoints") == []
    assert is_sent(first.folder, homes.store)


def test_nothing_is_shared_without_an_address(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = homes.store
    monkeypatch.delenv(STORE_VARIABLE)

    found = made(Maker())

    assert not is_sent(found.folder, address)
    assert address.names("") == []


def test_what_was_made_before_a_store_was_set_is_sent_when_it_is_asked_for(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, address = Maker(), f"file://{homes.root}"
    monkeypatch.delenv(STORE_VARIABLE)
    made(make)
    monkeypatch.setenv(STORE_VARIABLE, address)
    made(make)
    homes.enter("b")

    assert made(make).was_stored
    assert make.times == 1


def test_the_manifest_goes_last(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    create = SharedStore.create

    def cut_off(store: SharedStore, name: str, content: bytes, **how: bool) -> bool:
        if name.endswith(MANIFEST):
            raise StoreAway("cut off")
        return create(store, name, content, **how)

    monkeypatch.setattr(SharedStore, "create", cut_off)
    made(Maker())

    assert len(stored(homes, "artifacts")) == 2
    assert not [name for name in stored(homes) if name.endswith(MANIFEST)]


@pytest.mark.parametrize("damage", ["file", "missing file", "manifest", "seal", "other manifest"])
def test_a_damaged_one_is_named_made_again_and_mended(damage: str, homes: Homes) -> None:
    make = Maker()
    first = made(make)
    folder = homes.root / "artifacts/models/digits-vae" / first.folder.name
    blob = folder / first.files["weights"][1]
    manifest = folder / MANIFEST
    if damage == "file":
        blob.write_bytes(b"weighty")
    elif damage == "missing file":
        blob.unlink()
    elif damage == "manifest":
        manifest.write_bytes(manifest.read_bytes()[:-9])
    else:
        manifest.unlink()
        plain = json.loads((first.folder / MANIFEST).read_text())
        change = {"inputs": ["d"]} if damage == "seal" else {"name": "digits-gan"}
        homes.store.create(
            f"artifacts/models/digits-vae/{first.folder.name}/{MANIFEST}",
            json.dumps({**plain, **change}).encode(),
        )

    homes.enter("b")
    second = made(make)
    assert not second.was_stored and make.times == 2
    assert "what the shared store has is damaged and will be made again" in reasons()
    homes.enter("c")

    assert made(make).was_stored, "mended"
    assert make.times == 2


@pytest.mark.parametrize("name", ["../../stolen", "/tmp/stolen", "a/../../../stolen"])
def test_no_file_is_written_outside_an_artifacts_folder(
    name: str, homes: Homes, tmp_path: Path
) -> None:
    make = Maker()
    first = made(make)
    plain = json.loads((first.folder / MANIFEST).read_text())
    del plain["seal"]
    plain["files"][name] = plain["files"]["weights"]
    sealed = json.dumps({**plain, "seal": digest_of(plain)}).encode()
    manifest = f"artifacts/models/digits-vae/{first.folder.name}/{MANIFEST}"
    homes.store.remove(manifest)
    homes.store.create(manifest, sealed)
    homes.enter("b")

    assert not made(make).was_stored
    assert "is no file of an artifact's folder" in reasons()
    assert [*tmp_path.rglob("stolen"), *Path("/tmp").glob("stolen")] == []


def test_a_record_that_cannot_be_read_any_more_is_damage(homes: Homes) -> None:
    get_or_create("models", "digits-vae", KEY, lambda folder: {"size": 3})
    homes.enter("b")

    found = get_or_create(
        "models", "digits-vae", KEY, lambda _: {"size": "3"}, record=dict[str, str]
    )
    assert found.record == {"size": "3"}
    homes.enter("c")
    assert get_or_create("models", "digits-vae", KEY, Maker(), record=dict[str, str]).was_stored


def test_unfinished_work_of_a_home_gives_way_to_what_another_finished(homes: Homes) -> None:
    made(Maker())
    homes.enter("b")
    with opened("models", "digits-vae", KEY, can_resume=True) as place:
        place.folder.mkdir(parents=True)
        write_text(place.folder / "checkpoint.safetensors", "half")
        found = place.found()

    assert found is not None
    assert not (found.folder / "checkpoint.safetensors").exists()


def test_a_data_set_is_sent_and_neither_claimed_nor_fetched(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_of_content() -> bool:
        with opened("images", "digits", {}, key="d" * 64) as place:
            found = place.found()
            if found is None:
                place.folder.mkdir(parents=True)
                write_text(place.folder / "images", "content")
                place.commit({}, digest="d" * 64)
            return found is not None

    monkeypatch.setattr(Exchange, "fetched", None)
    assert not made_of_content() and made_of_content()
    homes.enter("b")

    assert not made_of_content(), "its content is at hand"
    assert len(stored(homes, "artifacts/images")) == 2


def test_an_artifact_is_found_by_its_content_alone_wherever_it_was_made(homes: Homes) -> None:
    first = made(Maker())
    homes.enter("b")
    assert find("tokens", first.digest) is None
    found = find("models", first.digest)

    assert found is not None and verify(found.folder).digest == first.digest
    assert list((home() / "artifacts").glob("*/*/.partial-*")) == []
    with homes.away():
        assert find("models", first.digest) is not None
        homes.enter("c")
        assert find("models", first.digest) is None
    assert find("models", first.digest) is not None


# Claims -------------------------------------------------------------------------------------


def test_who_comes_second_waits_and_reads_the_result(
    homes: Homes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atelier")
    other = Exchange(homes.store, home() / name_of("digits-vae"), lambda _: None)
    assert not other.fetched(lambda _: {}), "claimed"
    make, results = Maker(), []
    second = threading.Thread(target=lambda: results.append(made(make)))
    second.start()
    wait_for(lambda: "is making it; waiting for its result" in caplog.text)
    other.close()  # given up: an error, say
    second.join(20)

    assert [each.was_stored for each in results] == [False]
    assert make.times == 1
    assert stored(homes, "claims") == []
    assert f"process {os.getpid()} of " in reasons()


def name_of(model: str) -> str:
    """Of the folder of a model with the key of these tests in the store."""
    return f"artifacts/models/{model}/{artifact_folder('models', model, digest_of(KEY)).name}"


def wait_for(is_so: Any, seconds: float = 20.0) -> None:
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)


def claim_of_the_dead(homes: Homes, owner: str, generation: int = 1) -> str:
    folder = name_of("digits-vae").replace("artifacts", "claims")
    name = f"{folder}/{generation:08d}.claim"
    assert homes.store.create(name, json.dumps({"owner": owner}).encode())
    return folder


def test_a_claim_that_does_not_move_is_taken_over(homes: Homes) -> None:
    folder = claim_of_the_dead(homes, "elsewhere:12:0000")
    began = time.monotonic()
    seen: list[list[str]] = []

    def make(_: Path) -> dict[str, int]:
        seen.append(stored(homes, folder))
        return {}

    made(make)

    assert 1.0 <= time.monotonic() - began < 10
    assert "process 12 of elsewhere is making it" in reasons()
    assert "has not been heard of for 1 s; taken over" in reasons()
    assert [f"{folder}/00000001.claim", f"{folder}/00000002.claim"] == seen[0][:2]
    assert stored(homes, "claims") == []


def test_a_claim_that_moves_is_not_taken_over(homes: Homes) -> None:
    folder = claim_of_the_dead(homes, "elsewhere:12:0000")
    found = claims.Claims(homes.store, folder, lambda _: None)
    until = time.monotonic() + 2.5
    number = 0
    while time.monotonic() < until:
        assert isinstance(found.take(), claims.Holder)
        number += 1
        homes.store.create(f"{folder}/00000001.{number:08d}", b"")
        homes.store.remove(f"{folder}/00000001.{number - 1:08d}")
        time.sleep(0.2)


def test_a_claim_of_a_process_that_died_here_is_taken_over_at_once(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(retention.LEASE_VARIABLE, "1000")
    host, _, mark = claims.this_process().rsplit(":", 2)
    claim_of_the_dead(homes, f"{host}:1:{mark}")

    made(Maker())

    assert "had claimed it and has died; taken over" in reasons()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"owner": "x"}'])
def test_a_claim_without_a_readable_owner_is_watched_all_the_same(
    body: bytes, homes: Homes
) -> None:
    folder = name_of("digits-vae").replace("artifacts", "claims")
    homes.store.create(f"{folder}/00000007.claim", body)

    made(Maker())

    assert "another home had claimed it and has not been heard of" in reasons()


def test_a_claim_beats_and_tells_when_it_was_taken_over(homes: Homes) -> None:
    said: list[str] = []
    claim = claims.Claims(homes.store, "claims/x", said.append).take()
    assert isinstance(claim, claims.Claim)
    wait_for(lambda: "claims/x/00000001.00000003" in stored(homes, "claims"))
    assert len(stored(homes, "claims")) <= 3
    homes.store.create("claims/x/00000002.claim", json.dumps({"owner": "gpu:5:0"}).encode())
    wait_for(lambda: said)

    assert said == ["process 5 of gpu has taken it over, for this one seemed lost; it goes on"]
    claim.end(is_done=True)
    assert stored(homes, "claims") == ["claims/x/00000002.claim"]


def test_an_error_gives_the_claim_up(homes: Homes) -> None:
    def fail(_: Path) -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        made(fail)
    assert [name.rpartition(".")[2] for name in stored(homes, "claims")] == ["claim", "given-up"]
    homes.enter("b")
    began = time.monotonic()

    assert not made(Maker()).was_stored
    assert time.monotonic() - began < 1.0, "nothing was waited for"
    assert stored(homes, "claims") == []


def test_many_homes_that_want_the_same_at_once_make_it_once(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread is a home of its own, as far as the store can tell."""
    monkeypatch.setattr(exchange, "name_of", lambda _: "artifacts/models/m/k")
    makers, has = [], []

    def work(number: int) -> None:
        folder = homes.root.parent / f"home-{number}"
        place = Exchange(homes.store, folder, lambda _: None)
        if place.fetched(lambda _: {}):
            has.append(number)
        else:
            makers.append(number)
            time.sleep(0.1)
            folder.mkdir()
            write_text(folder / MANIFEST, "{}")
            place.offer({}, "d")
        place.close()

    rivals = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(30)

    assert len(makers) == 1 and len(has) == 5
    assert stored(homes, "claims") == []


# Away ----------------------------------------------------------------------------------------


def test_while_the_store_is_away_the_work_goes_on_and_is_sent_later(
    homes: Homes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atelier")
    make = Maker()
    with homes.away():
        first = made(make)
        made(make, "digits-gan")
    assert caplog.text.count("the shared store is away; the work goes on here") == 1
    assert not is_sent(first.folder, homes.store)

    made(make)
    assert is_sent(first.folder, homes.store)
    assert "the shared store answers again" in caplog.text
    homes.enter("b")
    assert made(make).was_stored
    assert make.times == 2


def test_what_is_sent_later_leaves_no_claim_and_no_checkpoint(homes: Homes) -> None:
    """Those of this process, which could not end them, and those of a machine that was lost."""
    with homes.away():
        found = made(Maker())
    below = f"models/digits-vae/{found.folder.name}"
    for name in (f"claims/{below}/00000001.claim", f"checkpoints/{below}/0000000010.{'0' * 64}"):
        homes.store.create(name, b"")
    other = f"claims/models/digits-vae/{'0' * len(found.folder.name)}/00000001.claim"
    homes.store.create(other, b"")

    assert send_unsent(homes.store) == 1

    assert stored(homes, "claims") == [other]
    assert stored(homes, "checkpoints") == []


def test_what_is_left_of_the_making_when_the_store_goes_away_goes_the_next_time(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with homes.away():
        place = made(Maker())
    below = "/".join(place.folder.parts[-3:])
    homes.store.create(f"claims/{below}/00000001.claim", b"")

    def away(*_: Any) -> None:
        raise StoreAway("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(SharedStore, "remove", away)
        assert send_unsent(homes.store) == 0
    assert unsent(homes.store) == [place.folder]
    exchange._away_since.clear()

    assert send_unsent(homes.store) == 1
    assert homes.store.names(f"claims/{below}") == []


def test_what_waited_goes_with_the_next_step_and_with_no_later_one(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Maker()
    with homes.away():
        first = [made(make, name) for name in ("x-vae", "x-gan", "x-gpt")]
        write_text(first[2].folder / "weights", "damaged")
    monkeypatch.setattr(exchange, "_emptied", set())  # another process, or this one, later

    made(make)

    assert [is_sent(each.folder, homes.store) for each in first] == [True, True, False]
    assert unsent(homes.store) == [first[2].folder]
    monkeypatch.setattr(outbox, "unsent", None)
    made(make, "y-vae")


def test_a_step_does_not_send_for_long_what_others_left(homes: Homes) -> None:
    with homes.away():
        for name in ("x-vae", "x-gan", "x-gpt"):
            made(Maker(), name)

    assert send_unsent(homes.store, 0.0) == 1
    assert len(unsent(homes.store)) == 2
    assert send_unsent(homes.store) == 2
    assert send_unsent(homes.store) == 0


def test_another_store_lacks_what_the_first_one_has(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made(Maker())
    (homes.root.parent / "other").mkdir()
    monkeypatch.setenv(STORE_VARIABLE, f"file://{homes.root.parent}/other")

    assert unsent(homes.store) == [found.folder]
    made(Maker())
    assert unsent(homes.store) == []


def test_pages_of_one_home_are_not_shared(homes: Homes) -> None:
    get_or_create("samples", "gallery", KEY, Maker())

    assert stored(homes) == []
    assert unsent(homes.store) == []


def test_a_store_that_was_away_is_not_asked_at_every_step(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with homes.away():
        made(Maker())
        monkeypatch.setattr(SharedStore, "__init__", None)
        monkeypatch.setattr(SharedStore, "_asked", None)
        made(Maker(), "digits-gan")


def test_who_waits_goes_on_alone_when_the_store_stays_away(homes: Homes) -> None:
    claim_of_the_dead(homes, "elsewhere:12:0000")
    results: list[Artifact] = []
    second = threading.Thread(target=lambda: results.append(made(Maker())))
    second.start()
    wait_for(lambda: history("digits-vae") and (Path(homes.root)).exists())
    time.sleep(0.2)
    with homes.away():
        second.join(20)

    assert [each.was_stored for each in results] == [False]
    assert not is_sent(results[0].folder, homes.store)


def test_a_result_of_two_who_could_not_see_each_other_stays_that_of_the_first(
    homes: Homes,
) -> None:
    make = Maker()
    with homes.away():
        first = made(make)
        homes.enter("b")
        second = made(make)
    made(make)
    homes.enter("a")
    made(make)

    assert make.times == 2
    assert first.digest == second.digest
    manifests = [name for name in stored(homes) if name.endswith(MANIFEST)]
    assert len(manifests) == 1
    for name in ("a", "b"):
        homes.enter(name)
        assert is_sent(first.folder, homes.store)
