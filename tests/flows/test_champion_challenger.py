"""What a candidate goes through when others move the champion meanwhile."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from flows import champion_challenger
from flows.champion_challenger import MAX_JUDGEMENTS, evaluate_and_promote
from tasks.evaluation.scorecard import ChampionEvaluation, PromotionDecision
from tasks.families.table import FAMILIES
from tasks.registry.versions import Version
from tasks.training.fit_store import TrainedModel

FITTED = TrainedModel(
    family="ngram",
    name="tale-ngram",
    run_id="run",
    folder="folder",
    digest="digest",
    data_digest="data",
    seed=0,
    seconds=1.0,
    num_parameters=1,
)
VERSION = Version(
    name="tale-ngram",
    version=7,
    alias="",
    run_id="run",
    digest="digest",
    main_metric="bits",
    main_value=1.0,
    seconds=1.0,
    is_new=True,
)


class Registry:
    """A registry in which others move the champion so many times; it notes what was asked of it."""

    def __init__(self, num_moves: int) -> None:
        self.champion, self.moves_left = 1, num_moves
        self.asked: list[int | None] = []
        self.num_registered = 0

    def evaluate_champion(self, *_: Any) -> ChampionEvaluation:
        return ChampionEvaluation(
            version=self.champion, digest="other", scorecard=None, problem="old"
        )

    def gate(
        self, _: Any, __: Any, incumbent: ChampionEvaluation, preset: str
    ) -> PromotionDecision:
        assert preset == "quick"
        return PromotionDecision(accepted=True, reason="better", champion_version=incumbent.version)

    def register_version(self, *_: Any) -> Version:
        self.num_registered += 1
        return replace(VERSION, is_new=self.num_registered == 1)

    def request_approval(
        self, _: Version, verdict: PromotionDecision, __: int
    ) -> PromotionDecision:
        self.asked.append(verdict.champion_version)
        return verdict

    def apply_decision(self, version: Version, verdict: PromotionDecision) -> Version | None:
        if self.moves_left:
            self.moves_left -= 1
            self.champion += 1
        return (
            replace(version, alias="champion")
            if verdict.champion_version == self.champion
            else None
        )


def registry_with(num_moves: int, monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = Registry(num_moves)
    for name in (
        "evaluate_champion",
        "gate",
        "register_version",
        "request_approval",
        "apply_decision",
    ):
        monkeypatch.setattr(champion_challenger, name, getattr(registry, name))
    return registry


def admitted() -> Version:
    nothing: Any = None
    recipe: Any = SimpleNamespace(preset="quick")
    family = FAMILIES["ngram"]
    return evaluate_and_promote(FITTED, nothing, recipe, nothing, family, approve_within=60)


def test_a_candidate_is_judged_again_by_gate_and_person_when_the_champion_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = registry_with(2, monkeypatch)

    version = admitted()

    assert (version.version, version.alias, version.is_new) == (7, "champion", True)
    assert registry.asked == [1, 2, 3]


def test_a_champion_that_never_rests_ends_the_run_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry_with(MAX_JUDGEMENTS, monkeypatch)

    with pytest.raises(RuntimeError, match="run the same command again"):
        admitted()
