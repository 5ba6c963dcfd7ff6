"""Which refused versions stand in the gallery."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.registry import audit_log
from tasks.samples import challengers
from tasks.samples.challengers import find_challengers


@pytest.fixture
def registry(atelier_home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, int]]:
    """The aliases of each model; every version of them is there."""
    aliases: dict[str, dict[str, int]] = {}

    def version(name: str, number: int) -> Any:
        tags = {"family": "gan", "main_metric": "m", "main_value": "0.5", "gate_reason": "of old"}
        return SimpleNamespace(name=name, version=number, tags=tags)

    monkeypatch.setattr(challengers, "aliases_by_model", lambda: aliases)
    monkeypatch.setattr(challengers, "get_version", version)
    return aliases


def write_log(happened: str) -> None:
    """`2 refused` and `to 3`, with commas between them, into the log of book-gan."""
    now = None
    for each in filter(None, happened.split(", ")):
        first, second = each.split(" ")
        if second == "refused":
            facts = {"action": "refuse", "from_version": now, "to_version": int(first)}
            audit_log.append("book-gan", "refused", **facts, why=f"worse than {now}")
        else:
            facts = {"action": "promote", "from_version": now, "to_version": int(second)}
            intent = audit_log.append("book-gan", "intent", **facts)
            audit_log.append("book-gan", "done", settles=intent.number)
            now = int(second)


@pytest.mark.parametrize(
    ("happened", "aliases", "shown"),
    [
        ("to 1, 2 refused", {"champion": 1, "challenger": 2}, (2, 1, "worse than 1")),
        ("2 refused", {"challenger": 2}, (2, None, "worse than None")),
        ("to 1, 2 refused, to 3", {"champion": 3, "challenger": 2}, None),
        (
            "to 1, 2 refused, to 3, 2 refused",
            {"champion": 3, "challenger": 2},
            (2, 3, "worse than 3"),
        ),
        ("to 1, 3 refused, to 2", {"champion": 2, "challenger": 3}, None),
        ("to 1, 2 refused, to 2", {"champion": 2, "challenger": 2}, None),
        ("to 2", {"champion": 2}, None),
        ("", {}, None),
    ],
    ids=[
        *("refused", "nobody-stays", "of-before", "judged-again", "of-before-an-older-one"),
        *("became-champion", "champion", "none"),
    ],
)
def test_one_that_the_present_champion_withstood_is_shown(
    registry: dict[str, dict[str, int]],
    happened: str,
    aliases: dict[str, int],
    shown: tuple[int, int | None, str] | None,
) -> None:
    registry["book-gan"] = aliases
    write_log(happened)

    found = [(each.version, each.champion, each.reason) for each in find_challengers.fn()]

    assert found == ([] if shown is None else [shown])


def test_one_whose_log_is_damaged_is_left_out_and_told(
    registry: dict[str, dict[str, int]], caplog: pytest.LogCaptureFixture
) -> None:
    registry["book-gan"] = {"champion": 1, "challenger": 2}
    write_log("to 1, 2 refused")
    audit_log.log_path("book-gan").write_text("not a line\n{}\n")

    with caplog.at_level("INFO", "atelier"):
        assert find_challengers.fn() == []

    assert "gallery: a challenger is left out" in caplog.text


def test_one_that_was_deleted_meanwhile_is_left_out(
    registry: dict[str, dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry["book-gan"] = {"challenger": 2}
    monkeypatch.setattr(challengers, "get_version", lambda *_: None)

    assert find_challengers.fn() == []
