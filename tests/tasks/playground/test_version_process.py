"""Versions in processes of their own: loaded, refused, killed, and how many."""

import os
import signal
from collections.abc import Iterator

import pytest

from tasks.playground.version_process import ProcessEnded, VersionFailed, VersionProcess, Versions
from tasks.registry.loading import loaded
from tests.tasks.conftest import Studio

pytestmark = pytest.mark.slow


@pytest.fixture
def versions(studio: Studio) -> Iterator[Versions]:
    held = Versions(max_processes=2)
    yield held
    held.close()


def written(process: VersionProcess, **request: object) -> str:
    _, *tokens = process.ask("write", request={"num_tokens": 60, "seed": 7, **request})
    return "".join(token["text"] for token in tokens)


def test_a_version_answers_from_its_process(studio: Studio, versions: Versions) -> None:
    process = versions.get(studio.name, 2)

    facts = process.facts()

    assert facts["data"] == "text" and facts["explains"] and facts["has_training"]
    with loaded(studio.name, "2") as model:
        (wanted,) = model.write_texts(1, 7, num_tokens=60)
    assert written(process) == wanted
    copies = process.answer("copies", text=studio.corpus.read_text()[50:110])
    assert copies["spans"] == [[0, 60]]
    with pytest.raises(VersionFailed, match="a token is a number from 0 to"):
        written(process, forced={"0": 10**6})
    # a text that nobody waits for any more is given up, and the process goes on
    begun = process.ask("write", request={"num_tokens": 100_000})
    assert "prompt" in next(begun)
    begun.close()
    assert not process.is_busy
    assert written(process) == wanted

    os.kill(process.process.pid, signal.SIGKILL)
    with pytest.raises(ProcessEnded, match=r"has ended; ask again"):
        written(process)
    again = versions.get(studio.name, 2)
    assert again is not process
    assert written(again) == wanted


def test_who_waits_is_told_when_the_process_is_killed(studio: Studio, versions: Versions) -> None:
    process = versions.get(studio.name, 2)
    begun = process.ask("write", request={"num_tokens": 100_000})
    next(begun)
    os.kill(process.process.pid, signal.SIGKILL)
    with pytest.raises(ProcessEnded):
        for _ in begun:
            pass


def test_a_version_that_was_changed_is_not_loaded(studio: Studio, versions: Versions) -> None:
    package = studio.package(2)
    with (package / "served_model.py").open("a") as code:
        code.write("raise SystemExit('executed')\n")

    with pytest.raises(VersionFailed, match="is not what was registered, and nothing of it is"):
        versions.get(studio.name, 2).facts()
    with pytest.raises(VersionFailed, match=f"{studio.name} has no version '9'"):
        versions.get(studio.name, 9).facts()


def test_those_that_rest_make_room_and_those_at_work_do_not(
    studio: Studio, versions: Versions
) -> None:
    first, second = versions.get(studio.name, 1), versions.get(studio.name, 2)
    first.facts()
    second.facts()
    begun = first.ask("write", request={"num_tokens": 100_000})
    next(begun)

    third = versions.get(studio.name, 3)  # is not there, and takes the place of the second

    assert first.is_alive and not second.is_alive
    with pytest.raises(VersionFailed):
        third.facts()
    third.process.wait()
    versions.get(studio.name, 2)
    with pytest.raises(VersionFailed, match="2 versions are at work"):
        versions.get(studio.name, 4)
    begun.close()
