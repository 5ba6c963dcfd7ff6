"""How requests are answered in turn, without a process."""

import io
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.data.ingestion import ImageSet
from tasks.families.table import FAMILIES
from tasks.playground.version_worker import read_requests, serve, session_of
from tests.tasks.samples.untrained import untrained

Told = list[dict[str, Any]]


def served(*requests: dict[str, Any] | None) -> Told:
    """All replies to requests that came at once; a request for `endless` is never done."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for each in requests:
        waiting.put(each)
    told: Told = []

    def count(request: dict[str, Any]) -> Iterator[int]:
        yield from range(request["to"])

    def endless(request: dict[str, Any]) -> Iterator[int]:
        for number in range(1000):
            if number == 3:  # what a person does meanwhile
                waiting.put({"stop": request["id"]})
            yield number
        raise AssertionError("nobody stopped it")

    def wrong(_: dict[str, Any]) -> Iterator[int]:
        yield 0
        raise ValueError("that cannot be\nand more")

    def reply(message: dict[str, Any]) -> None:
        told.append(message)
        if "answer" not in message and not any("ask" in m for m in told):
            done.append(message["id"])
            if len(done) == expected:
                waiting.put(None)

    done: list[Any] = []
    expected = sum(1 for each in requests if each and each.get("ask") not in (None, "endless"))
    serve({"count": count, "endless": endless, "wrong": wrong}, waiting, reply)
    return told


def test_requests_take_turns() -> None:
    told = served({"id": 1, "ask": "count", "to": 3}, {"id": 2, "ask": "count", "to": 2})
    assert told == [
        {"id": 1, "answer": 0},
        {"id": 2, "answer": 0},
        {"id": 1, "answer": 1},
        {"id": 2, "answer": 1},
        {"id": 1, "answer": 2},
        {"id": 2, "end": True},
        {"id": 1, "end": True},
    ]


def test_a_request_that_is_stopped_says_no_more_and_others_go_on() -> None:
    told = served({"id": 1, "ask": "endless"}, {"id": 2, "ask": "count", "to": 9})
    assert [each["answer"] for each in told if each["id"] == 1] == [0, 1, 2, 3]
    assert told[-1] == {"id": 2, "end": True}


def test_what_fails_says_why_and_others_go_on() -> None:
    told = served(
        {"id": 1, "ask": "wrong"}, {"id": 2, "ask": "nothing"}, {"id": 3, "ask": "count", "to": 2}
    )
    assert {"id": 1, "error": "that cannot be"} in told
    assert {"id": 2, "error": "'nothing'"} in told
    assert told[-1] == {"id": 3, "end": True}


def test_the_end_of_the_input_is_the_end() -> None:
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    read_requests(io.StringIO('{"id": 1, "ask": "count", "to": 1}\n'), waiting)
    assert waiting.get() == {"id": 1, "ask": "count", "to": 1}
    assert waiting.get() is None
    serve({}, _ended(), lambda _: None)


@pytest.mark.parametrize("error", [FileNotFoundError("train.npy"), ValueError("cannot reshape")])
def test_a_version_plays_without_pictures_that_are_damaged(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def damaged(*_: Any) -> Any:
        raise error

    monkeypatch.setattr("tasks.registry.versions.get_version", lambda *_: None)
    monkeypatch.setattr("tasks.registry.version_tags.record_tag", lambda *_: None)
    there = object.__new__(ImageSet)
    monkeypatch.setattr("tasks.registry.rehearsal.data_in_store", lambda *_, **__: there)
    monkeypatch.setattr("tasks.data.splits.load_images", damaged)

    session = session_of("tale-vae", 3, untrained("vae", tmp_path), FAMILIES["vae"])

    assert session.facts()["has_training"] is False
    assert f"tale-vae version 3 plays without its data: {error}" in capsys.readouterr().err


def _ended() -> "queue.SimpleQueue[Any]":
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    waiting.put(None)
    return waiting
