"""The gate: what beats a champion, and what is luck."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from flows import champion_challenger
from flows.champion_challenger import evaluate_and_promote
from models.metrics.bootstrap import paired_bootstrap
from models.metrics.seed_variance import SeedSpread
from tasks.evaluation.scorecard import ChampionEvaluation, PromotionDecision, Scorecard
from tasks.families.table import FAMILIES
from tasks.registry import promotion_policy
from tasks.registry.promotion_policy import (
    DEGREES_OF_FREEDOM_OF_A_GUESS,
    compared,
    difference_bounds,
    difference_interval,
    known_spread,
    noise_margin,
)
from tasks.registry.versions import Version
from tasks.training.fit_store import TrainedModel

FITTED = TrainedModel(
    family="vae",
    name="digits-vae",
    run_id="",
    folder="",
    digest="",
    data_digest="",
    seed=0,
    seconds=1.0,
    num_parameters=1,
)
RANDOM = np.random.default_rng(3)
ITEMS = RANDOM.normal(20.0, 3.0, 400)
LEVEL = FAMILIES["vae"].luck_level


@pytest.fixture
def scored(tmp_path: Path):
    """Makes a scorecard whose evaluation holds some scores."""
    numbers = count()

    def make(scores: np.ndarray, kind: str = "items", value: float | None = None) -> Scorecard:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        save_file({kind: scores.astype(np.float64)}, folder / "scores.safetensors")
        return Scorecard(
            name="digits-vae",
            run_id="",
            main_metric="test_nll_nats",
            main_value=float(scores.mean()) if value is None else value,
            metrics={},
            failed_checks=(),
            data_digest="",
            judge_digest="",
            data_title="",
            data_licence="",
            example="",
            folder=str(folder),
        )

    return make


def test_better_on_most_items_and_by_more_than_a_seed_gives_is_better(scored):
    candidate, champion = scored(ITEMS - 1.0), scored(ITEMS)

    verdict = compared(candidate, champion, 4, SeedSpread(0.005, 10), LEVEL)

    assert verdict.accepted
    assert verdict.champion_version == 4
    assert verdict.difference == pytest.approx(-1.0)
    assert verdict.low == pytest.approx(-1.0)
    assert verdict.high == pytest.approx(-1.0)
    assert verdict.margin is not None
    assert 0 < verdict.margin < 1.0
    assert verdict.reason.startswith("better: ")


def test_a_better_mean_that_the_items_cannot_tell_apart_is_refused(scored):
    noise = RANDOM.normal(0.0, 3.0, len(ITEMS))
    candidate = scored(ITEMS + noise - noise.mean() - 0.05)

    verdict = compared(candidate, scored(ITEMS), 1, None, LEVEL)

    assert verdict.difference == pytest.approx(-0.05)
    assert not verdict.accepted
    assert verdict.reason.startswith("not better: ")


def test_a_sure_difference_that_another_seed_may_give_is_refused(scored):
    candidate, champion = scored(ITEMS - 0.08), scored(ITEMS)

    verdict = compared(candidate, champion, 1, SeedSpread(0.005, 10), LEVEL)

    assert verdict.high is not None
    assert verdict.high < 0
    assert not verdict.accepted
    assert verdict.reason.startswith("improvement is within seed-to-seed variance: ")
    assert "another seed alone gives up to" in verdict.reason
    assert compared(candidate, champion, 1, None, LEVEL).accepted  # counting knows no seeds


def test_a_worse_model_is_refused(scored):
    assert not compared(scored(ITEMS + 1.0), scored(ITEMS), 1, None, LEVEL).accepted


def test_a_champion_without_a_finite_result_is_beaten(scored):
    champion = scored(np.full(len(ITEMS), math.nan))

    assert compared(scored(ITEMS), champion, 1, SeedSpread(0.005, 4), LEVEL).accepted


@pytest.mark.parametrize("num_items", [6, 12, 55])
def test_a_bound_of_few_items_is_passed_by_chance_as_rarely_as_it_says(num_items: int) -> None:
    """A plain percentile bootstrap is passed by 10 % with 6 items, and by 8 % with 12."""
    generator = np.random.default_rng(3)
    nothing = np.zeros(num_items)
    trials = [generator.normal(size=num_items) for _ in range(1500)]

    bounds = [difference_bounds(each, nothing, False, math.nan) for each in trials]

    error = 3 * math.sqrt(0.05 * 0.95 / 1500)
    for passed in (
        np.mean([low > 0 for low, _ in bounds]),
        np.mean([high < 0 for _, high in bounds]),
    ):
        assert 0.05 - error <= passed <= 0.05 + error


def test_the_bounds_of_few_items_are_those_of_the_published_expansion():
    """By `ExpandProbs` of Hesterberg's R package resample: with 12 items 5 % become 3.035 %."""
    values = np.random.default_rng(4).normal(size=12)

    found = difference_bounds(values, np.zeros(12), False, math.nan)

    interval = paired_bootstrap(values, level=1 - 2 * 0.03035)
    assert found == pytest.approx((interval.low, interval.high), abs=2e-4)


def test_resamples_give_the_interval_of_a_distance_without_their_bias(scored):
    """Resampled distances are too large; their paired differences scatter by the right amount."""
    resampled = RANDOM.normal(0.5, 0.05, 400)
    candidate = scored(resampled - 0.1 + RANDOM.normal(0, 0.01, 400), "resamples", value=0.2)
    champion = scored(resampled, "resamples", value=0.3)

    low, high = difference_interval(candidate, champion)

    assert (low + high) / 2 == pytest.approx(-0.1)
    assert high - low == pytest.approx(2 * 1.645 * 0.01, rel=0.15)


def test_scores_of_different_items_do_not_pair(scored):
    with pytest.raises(ValueError, match="do not pair"):
        difference_interval(scored(ITEMS), scored(ITEMS[:-1]))


def test_the_margin_is_exceeded_by_another_seed_once_in_four_times():
    """Pairs of a known spread, which is known well."""
    pairs = np.random.default_rng(0).normal(10.0, 0.2, (100_000, 2))
    margin = noise_margin(10.0, SeedSpread(0.02, 100_000), LEVEL)

    exceeded = (pairs[:, 0] - pairs[:, 1] < -margin).mean()

    assert exceeded == pytest.approx(0.24, abs=0.005)
    assert margin == pytest.approx(0.2, rel=0.01)  # one spread


def test_a_higher_level_asks_for_more():
    spread = SeedSpread(0.02, 19)

    assert noise_margin(1.0, spread, 0.86) > 1.4 * noise_margin(1.0, spread, LEVEL)


def test_a_spread_known_from_few_seeds_asks_for_more():
    assert noise_margin(1.0, SeedSpread(0.02, 4), LEVEL) > noise_margin(
        1.0, SeedSpread(0.02, 1000), LEVEL
    )


class Registry:
    """All that the flows' loop and the gate see of a registry, in memory: versions, a champion."""

    def __init__(self) -> None:
        self.versions: list[SimpleNamespace] = []
        self.champion: ChampionEvaluation | None = None
        self.num_promotions = 0

    def versions_of(self, _: str) -> list[SimpleNamespace]:
        return self.versions

    def evaluate_champion(self, *_: object) -> ChampionEvaluation | None:
        return self.champion

    def register_version(self, fitted: TrainedModel, scorecard: Scorecard, *_: object) -> Version:
        tags = {"sound": "yes", "recipe_digest": "recipe", "evaluation_digest": "evaluation"}
        tags |= {"content_digest": fitted.digest, "main_value": repr(scorecard.main_value)}
        self.versions.append(SimpleNamespace(tags=tags))
        self.latest = scorecard
        return Version(
            name=fitted.name,
            version=len(self.versions),
            alias="",
            run_id="",
            digest=fitted.digest,
            main_metric=scorecard.main_metric,
            main_value=scorecard.main_value,
            seconds=0.0,
            is_new=True,
        )

    def apply_decision(self, version: Version, verdict: PromotionDecision) -> Version:
        if verdict.accepted:
            self.num_promotions += self.champion is not None
            self.champion = ChampionEvaluation(
                version=version.version, digest=version.digest, scorecard=self.latest, problem=""
            )
        return version


@pytest.fixture
def num_promotions(monkeypatch: pytest.MonkeyPatch, scored) -> Callable[[np.ndarray], int]:
    """How often the first champion of quick VAEs is replaced, by their results in succession.

    The loop of the flows and the gate are the real ones. The items agree with the results, so that
    the interval lets everything pass and the margin is the only guard: items can only add to it.
    """

    def promote(results: np.ndarray) -> int:
        registry = Registry()
        monkeypatch.setattr(promotion_policy, "versions_of", registry.versions_of)
        monkeypatch.setattr(promotion_policy, "withdrawal_reason", lambda *_: "")
        for name in ("evaluate_champion", "register_version", "apply_decision"):
            monkeypatch.setattr(champion_challenger, name, getattr(registry, name))
        monkeypatch.setattr(champion_challenger, "gate", promotion_policy.gate.fn)
        monkeypatch.setattr(champion_challenger, "show_difference", lambda *_: "")
        recipe: Any = SimpleNamespace(preset="quick")
        nothing: Any = None
        for number, result in enumerate(results):
            fitted = replace(FITTED, digest=str(number))
            scorecard = scored(np.full(2, result))
            evaluate_and_promote(fitted, scorecard, recipe, nothing, FAMILIES["vae"])
        return registry.num_promotions

    return promote


@pytest.mark.slow
def test_twenty_seeds_of_one_recipe_promote_one_after_the_first_at_most_on_the_average(
    num_promotions: Callable[[np.ndarray], int],
) -> None:
    """Two hundred times over: the mean is then known to .05, and lies at .9."""
    spread = known_spread("vae", "quick", "digits")
    assert spread is not None
    histories = np.random.default_rng(1).normal(1.0, spread.relative, (200, 20))

    promotions = np.array([num_promotions(history) for history in histories])

    assert 0.5 < np.mean(promotions) < 1.0  # a gate that promotes nothing is none
    assert np.mean(promotions >= 3) < 0.05


@pytest.mark.slow
def test_an_improvement_of_two_spreads_and_a_fifth_is_promoted_four_times_in_five(scored) -> None:
    """The other side of the same margin; what the held-out items add is measured, not simulated."""
    spread = known_spread("gpt", "quick", "pydocs")
    assert spread is not None
    pairs = np.random.default_rng(2).normal(1.0, spread.relative, (2000, 2))
    better = pairs[:, 0] - 2.2 * spread.relative

    verdicts = [
        compared(scored(np.full(2, ours)), scored(np.full(2, theirs)), 1, spread, LEVEL)
        for ours, theirs in zip(better, pairs[:, 1], strict=True)
    ]

    assert np.mean([verdict.accepted for verdict in verdicts]) == pytest.approx(0.8, abs=0.02)


def test_families_that_train_by_chance_have_a_known_spread_and_counting_has_none():
    assert {name for name, family in FAMILIES.items() if not family.seed_spreads} == {"ngram"}
    assert known_spread("ngram", "quick", "pydocs") is None


@pytest.mark.parametrize(
    ("family", "preset", "data"),
    [("gan", "full", "digits"), ("gan", "quick", "mnist"), ("gpt", "quick", "book")],
)
def test_a_preset_and_data_that_were_not_measured_are_believed_less(
    family: str, preset: str, data: str
) -> None:
    measured = known_spread(family, "quick", {"gan": "digits", "gpt": "pydocs"}[family])
    guessed = known_spread(family, preset, data)

    assert measured is not None
    assert guessed is not None
    assert guessed.relative == measured.relative
    assert guessed.degrees_of_freedom == DEGREES_OF_FREEDOM_OF_A_GUESS < measured.degrees_of_freedom


def test_the_verdict_on_equal_scores_is_no(scored):
    same = scored(ITEMS)

    assert not compared(same, replace(same), 1, None, LEVEL).accepted
