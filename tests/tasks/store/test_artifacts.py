"""The artifact store: made once, found whole, known as damaged, and the same in another place."""

import hashlib
import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.store import artifacts as store
from tasks.store.artifacts import (
    Artifact,
    artifact_folder,
    facts_of,
    find,
    get_or_create,
    is_intact,
    opened,
    read_manifest,
    verify,
)
from tasks.store.files import DiskFull, digest_of, home, write_json, write_text
from tasks.store.graph import Graph
from tasks.store.records import DamagedRecord
from tasks.store.steps import history
from tasks.store.storage import MANIFEST
from tests.tasks.store.making import Maker

KEY = {"settings": {"size": 3}, "inputs": ["d" * 64]}


@dataclass(frozen=True, kw_only=True)
class Receipt:
    folder: str
    digest: str
    size: int


def made(make: Any, key: Any = KEY, **more: Any) -> Artifact:
    return get_or_create("models", "digits-vae", key, make, record=Receipt, **more)


def test_it_is_made_once_and_found_with_all_that_it_says(atelier_home: Path) -> None:
    make = Maker()
    first = made(make, inputs=["d" * 64, ""])
    again = made(make, inputs=["d" * 64, ""])

    assert make.times == 1
    assert (first.was_stored, again.was_stored) == (False, True)
    assert first.inputs == again.inputs == ("d" * 64,)
    assert (first.digest, first.record) == (again.digest, again.record)
    assert set(first.files) == {"weights", "samples/one.txt"}
    assert first.files["weights"][0] == 7
    assert again.as_receipt(Receipt) == Receipt(
        folder=str(first.folder), digest=first.digest, size=3
    )
    assert [record.state for record in history("digits-vae")] == ["made", "unchanged"]
    assert made(make, {**KEY, "device": "cuda"}).folder != first.folder


def test_two_who_make_the_same_at_once_make_it_once(atelier_home: Path) -> None:
    make = Maker()
    rivals = [threading.Thread(target=made, args=(make,)) for _ in range(4)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()

    assert make.times == 1
    states = sorted(record.state for record in history("digits-vae"))
    assert states == ["made", "unchanged", "unchanged", "unchanged"]


def test_a_manifest_is_known_as_damaged_whichever_byte_was_flipped(atelier_home: Path) -> None:
    path = made(Maker()).folder / MANIFEST
    good = path.read_bytes()
    assert is_intact(path.parent)

    for index in range(len(good)):
        changed = bytearray(good)
        changed[index] ^= 1 << index % 7
        path.write_bytes(changed)
        assert not is_intact(path.parent), bytes(changed)


@pytest.mark.parametrize("damage", ["changed", "cut", "lost", "a folder", "no manifest"])
def test_what_is_damaged_is_told_and_made_again(atelier_home: Path, damage: str) -> None:
    make = Maker()
    folder = made(make).folder
    weights = folder / "weights"
    if damage == "changed":
        weights.write_text("weighty")
    elif damage == "cut":
        weights.write_text("weigh")
    elif damage == "no manifest":
        (folder / MANIFEST).unlink()
    else:
        weights.unlink()
        if damage == "a folder":
            weights.mkdir()

    again = made(make)

    assert make.times == 2
    assert weights.read_text() == "weights"
    assert not again.was_stored
    (reason,) = history("digits-vae")[-1].reasons
    assert "damaged" in reason
    assert ("manifest" if damage == "no manifest" else "weights") in reason


@pytest.mark.parametrize("record", [[], None, "x", {}, {"size": "three"}])
def test_a_sealed_record_of_another_shape_is_made_again(atelier_home: Path, record: object) -> None:
    with opened("models", "digits-vae", KEY) as place:
        write_text(place.folder / "weights", "weights")
        if isinstance(record, dict):
            place.commit(record)
        else:  # sealed by another program
            plain = json.loads(json.dumps({**PLAIN, "record": record}))
            write_json(place.folder / MANIFEST, {**plain, "seal": store.digest_of(plain)})
    make = Maker()

    assert made(make).record == {"size": 3}
    assert str(artifact_folder("models", "digits-vae", place.key)) in " ".join(
        history("digits-vae")[-1].reasons
    )


PLAIN = {
    **{"kind": "models", "name": "digits-vae", "key": store.digest_of(KEY), "digest": "d" * 64},
    **{"files": {}, "inputs": []},
}


def test_a_manifest_in_the_place_of_another_is_not_believed(atelier_home: Path) -> None:
    folder = made(Maker()).folder
    shutil.copytree(folder, artifact_folder("models", "letters-vae", "f" * 64))

    with pytest.raises(DamagedRecord, match=r"is the manifest of models/digits-vae/"):
        read_manifest(artifact_folder("models", "letters-vae", "f" * 64))


def test_an_error_leaves_nothing_and_work_that_can_be_resumed_stays(atelier_home: Path) -> None:
    def fail(folder: Path) -> None:
        write_text(folder / "half", "")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        made(fail)
    assert store.folders("models") == []
    with (
        pytest.raises(ValueError, match="no"),
        opened("models", "digits-vae", KEY, can_resume=True) as place,
    ):
        fail(place.folder)
    assert store.folders("models") == [place.folder]
    assert history("digits-vae")[-1].state == "failed"


def test_a_disk_that_is_full_while_it_is_made_is_named(atelier_home: Path) -> None:
    def fill(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFull, match="finished steps are kept"):
        made(fill)


def test_a_home_may_be_moved_and_nothing_in_it_names_its_place(
    atelier_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Maker()
    first = made(make)
    place = first.folder.relative_to(home())
    told = [path.read_text() for path in home().rglob("*.json*")]
    assert len(told) > 1
    assert not any(str(home()) in text for text in told)

    atelier_home.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "elsewhere"))

    again = made(make)
    assert make.times == 1
    assert again.folder == tmp_path / "elsewhere" / place
    assert verify(again.folder).digest == first.digest


def test_a_receipt_keeps_no_folder_of_its_own(atelier_home: Path) -> None:
    assert facts_of(Receipt(folder="/a/place", digest="d", size=3)) == {"size": 3}


def test_a_home_of_an_earlier_version_is_told_of_once(
    atelier_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "atelier")
    (atelier_home / "runs" / "digits-vae" / "0123456789abcdef").mkdir(parents=True)

    made(Maker())
    made(Maker(), {"settings": 1})

    told = [record for record in caplog.messages if "made by an earlier version" in record]
    assert len(told) == 1


def test_the_graph_leads_back_to_what_a_model_was_made_from(atelier_home: Path) -> None:
    def simple(folder: Path) -> dict[str, str]:
        write_text(folder / "file", folder.parent.name)
        return {}

    corpus = get_or_create("corpora", "tale", {"a": 1}, simple)
    tokens = get_or_create("tokens", "tale-bpe", {}, simple, inputs=[corpus.digest])
    model = get_or_create("models", "tale-gpt", {}, simple, inputs=[tokens.digest, "gone"])
    get_or_create("corpora", "other", {}, simple)
    graph = Graph.of_home()

    assert [made.name for made in graph.origins([model.digest])] == ["tale", "tale-bpe", "tale-gpt"]
    assert graph.reachable([model.digest]) == {corpus.digest, tokens.digest, model.digest, "gone"}
    assert graph.reachable(["unknown"]) == {"unknown"}
    assert find("tokens", tokens.digest) == tokens
    assert find("models", tokens.digest) is None
    (model.folder / MANIFEST).write_text("scribbled over")
    assert Graph.of_home().named(model.digest) is None


def test_what_is_its_own_input_is_an_origin_once(atelier_home: Path) -> None:
    """A training that continues and changes nothing has the content that it began with."""
    digest = digest_of({"weights": hashlib.sha256(b"same").hexdigest()})

    def write(folder: Path) -> dict[str, str]:
        write_text(folder / "weights", "same")
        return {}

    made = get_or_create("models", "m", KEY, write, inputs=[digest])

    assert made.digest == digest
    assert Graph.of_home().origins([digest]) == [read_manifest(made.folder)]
