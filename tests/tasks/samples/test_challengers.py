"""Which refused versions stand in the gallery."""

from types import SimpleNamespace
from typing import Any

import pytest

from tasks.samples import challengers
from tasks.samples.challengers import find_challengers


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, int]]:
    """The aliases of each model; every version of them is there."""
    aliases: dict[str, dict[str, int]] = {}

    def version(name: str, number: int) -> Any:
        tags = {"family": "gan", "main_metric": "m", "main_value": "0.5", "gate_reason": "worse"}
        return SimpleNamespace(name=name, version=str(number), tags=tags)

    monkeypatch.setattr(challengers, "aliases_by_model", lambda: aliases)
    monkeypatch.setattr(challengers, "get_version", version)
    return aliases


@pytest.mark.parametrize(
    ("aliases", "shown"),
    [
        ({"champion": 1, "challenger": 2}, (2, 1)),
        ({"challenger": 2}, (2, None)),
        ({"champion": 3, "challenger": 2}, None),  # held against another champion
        ({"champion": 2, "challenger": 2}, None),
        ({"champion": 2}, None),
        ({}, None),
    ],
    ids=["refused", "nobody-stays", "of-before", "became-champion", "champion", "none"],
)
def test_one_that_the_present_champion_withstood_is_shown(
    registry: dict[str, dict[str, int]], aliases: dict[str, int], shown: tuple[int, int] | None
) -> None:
    registry["book-gan"] = aliases

    found = [(each.version, each.champion) for each in find_challengers.fn()]

    assert found == ([] if shown is None else [shown])


def test_one_that_was_deleted_meanwhile_is_left_out(
    registry: dict[str, dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry["book-gan"] = {"challenger": 2}
    monkeypatch.setattr(challengers, "get_version", lambda *_: None)

    assert find_challengers.fn() == []
