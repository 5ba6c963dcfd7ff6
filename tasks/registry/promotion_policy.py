"""The gate: what a candidate must show before it may be called champion.

Three things. Absolute checks: finite, not collapsed, not memorised, not rubbish. A paired
comparison with the champion, both judged now: over resampled held-out items the difference is below
zero with 95 % confidence. And more than luck with the seed: two trainings of one recipe can truly
differ on a test set, so the difference must exceed what another seed gives three times out of four.
Of twenty seeds of one recipe, tried one after the other, this promotes one after the first or none
on the average, and it leaves room for improvements to be seen: `python -m benchmarks.gate_power`.
"""

import math

import numpy as np
from prefect import task
from scipy.special import ndtr, ndtri, stdtrit

from models.metrics.bootstrap import paired_bootstrap
from models.metrics.seed_variance import SeedSpread, pooled_spread
from tasks.data.sources import known_sources
from tasks.evaluation.cache import item_scores
from tasks.evaluation.scorecard import ChampionEvaluation, PromotionDecision, Scorecard, beside_main
from tasks.families.table import FAMILIES
from tasks.registry.promotion import withdrawal_reason
from tasks.registry.version_tags import digest_tag, number_tag
from tasks.registry.versions import tags_of, versions_of
from tasks.runtime.retries import NETWORKED
from tasks.tracking.mlflow_client import outages_named
from tasks.training.fit_store import TrainedModel

DEGREES_OF_FREEDOM_OF_A_GUESS = 4
"""Where a preset or data were not measured, the quick one of the embedded data stands in."""
CONFIDENCE = 0.95
"""That the held-out items alone do not make the candidate look better."""


@task(name="gate", task_run_name="gate {fitted.name}", **NETWORKED)
def gate(
    fitted: TrainedModel,
    scorecard: Scorecard,
    incumbent: ChampionEvaluation | None,
    preset: str = "",
) -> PromotionDecision:
    """Accept a sound model that is the first, or better than the champion beyond chance.

    preset: of the recipe, whose spread between seeds may have been measured.
    """
    if scorecard.failed_checks:
        return PromotionDecision(accepted=False, reason="; ".join(scorecard.failed_checks))
    if incumbent is not None and incumbent.digest == fitted.digest:
        return PromotionDecision(
            accepted=True,
            reason="the same content as the champion",
            champion_version=incumbent.version,
        )
    if why := withdrawal_reason(fitted.name, fitted.digest):
        return PromotionDecision(accepted=False, reason=f"withdrawn by hand: {why}")
    if incumbent is None:
        return PromotionDecision(accepted=True, reason="the first version that passed the checks")
    champion = incumbent.scorecard
    if champion is None or champion.unit != scorecard.unit:
        return _undecided(fitted, incumbent)
    with outages_named():
        spread = seed_spread(fitted, preset)
    level = FAMILIES[fitted.family].luck_level
    return compared(scorecard, champion, incumbent.version, spread, level)


def _undecided(fitted: TrainedModel, incumbent: ChampionEvaluation) -> PromotionDecision:
    """Without a comparison only a person may promote."""
    measured = incumbent.scorecard
    why = (
        f"is measured in {measured.unit}" if measured else f"cannot be judged: {incumbent.problem}"
    )
    return PromotionDecision(
        accepted=False,
        reason=f"nothing to compare with: the champion, version {incumbent.version}, {why}; a"
        f" person decides, with `atelier promote {fitted.name}`",
        champion_version=incumbent.version,
    )


def compared(
    candidate: Scorecard,
    champion: Scorecard,
    champion_version: int,
    spread: SeedSpread | None,
    level: float,
) -> PromotionDecision:
    """The verdict on two evaluations of the same items; spread: None where seeds change nothing."""
    low, high = difference_interval(candidate, champion)
    difference = candidate.main_value - champion.main_value
    margin = 0.0 if spread is None else noise_margin(champion.main_value, spread, level)
    if not math.isfinite(champion.main_value):
        finding, accepted = "better: the champion's result is no finite number", True
    elif beats(difference, high, margin):
        finding, accepted = "better", True
    elif high < 0:
        finding, accepted = "improvement is within seed-to-seed variance", False
    else:
        finding, accepted = "not better", False
    return PromotionDecision(
        accepted=accepted,
        reason=f"{finding}: {candidate.main_value:.4f} against the champion's"
        f" {champion.main_value:.4f}, difference {difference:+.4f} ({low:+.4f} to {high:+.4f});"
        f" another seed alone gives up to {margin:.4f}{beside_main(candidate)}",
        champion_version=champion_version,
        champion_value=champion.main_value,
        difference=difference,
        low=low,
        high=high,
        margin=margin,
    )


def beats(difference: float, high: float, margin: float) -> bool:
    """Whether a difference is below zero for sure, and by more than another seed may give."""
    return high < 0 and difference < -margin


def difference_interval(candidate: Scorecard, champion: Scorecard) -> tuple[float, float]:
    """Bounds of the candidate's main value minus the champion's, each held with 95 % confidence.

    Items (images, blocks of text) are resampled in pairs. A Frechet distance is no mean of items:
    there the held-out images were resampled, the same rows for both models, and each bound is the
    difference and 1.645 standard deviations of the resampled one, which unlike its percentiles is
    free of the bias that resampling gives to distances.
    """
    ours, are_resamples = item_scores(candidate)
    theirs, _ = item_scores(champion)
    difference = candidate.main_value - champion.main_value
    return difference_bounds(ours, theirs, are_resamples, difference)


def difference_bounds(
    ours: np.ndarray,
    theirs: np.ndarray,
    are_resamples: bool,
    difference: float,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """The same for scores (N,) of the same items or resamples; NaN where they say nothing.

    confidence: of each bound; 0.975 makes of both an interval of 95 %. A percentile bootstrap's are
    too narrow for few items, so it is expanded to what a t interval would take (Hesterberg 2014,
    "What teachers should know about the bootstrap", arXiv:1411.5279): from five items on, fewer
    have no wider range.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"scores of {ours.shape} and {theirs.shape} items do not pair")
    differences = ours - theirs
    if not np.isfinite(differences).all() or len(differences) < 2:
        return math.nan, math.nan
    if not are_resamples:
        expanded = _expanded(confidence, len(differences))
        interval = paired_bootstrap(differences, level=2 * expanded - 1)
        return interval.low, interval.high
    error = float(ndtri(confidence)) * float(differences.std(ddof=1))
    return difference - error, difference + error


def _expanded(confidence: float, num_items: int) -> float:
    """The share of resamples below a bound that so few items need for this confidence."""
    errors = math.sqrt(num_items / (num_items - 1)) * float(stdtrit(num_items - 1, confidence))
    return min(float(ndtr(errors)), 1 - 1e-9)  # of two items the whole range


def noise_margin(value: float, spread: SeedSpread, level: float) -> float:
    """What the difference of two seeds of one recipe exceeds once in 1 / (1 - level) times.

    The t quantile at that level times the standard deviation of a difference, sqrt(2) spreads: at
    0.76 the margin is one spread, with which twenty seeds in succession give at most one promotion
    after the first on the average: tests/tasks/registry/test_promotion_policy.py simulates it. A
    wider margin hides improvements.
    """
    quantile = float(stdtrit(spread.degrees_of_freedom, level))
    return quantile * math.sqrt(2) * spread.relative * abs(value)


def known_spread(family: str, preset: str, data: str) -> SeedSpread | None:
    """What is known beforehand of a family's seeds; None where they change nothing.

    It was measured with some presets on the embedded data. Others are believed to spread like it,
    as four seeds would say, so that the registry's own versions soon count for more.
    """
    record = FAMILIES[family]
    if not record.seed_spreads:
        return None
    relative, degrees_of_freedom = record.seed_spreads.get(preset, record.seed_spreads["quick"])
    if preset not in record.seed_spreads or data != known_sources(record.data)[0]:
        degrees_of_freedom = min(degrees_of_freedom, DEGREES_OF_FREEDOM_OF_A_GUESS)
    return SeedSpread(relative, degrees_of_freedom)


def seed_spread(fitted: TrainedModel, preset: str = "") -> SeedSpread | None:
    """What seeds alone do to this model, from its registered versions; None where nothing.

    Versions of one recipe, judged on the same data by the same code, that differ in their seed.
    The candidate itself does not count: it is what the spread is held against. Nor do collapsed
    trainings, which the absolute checks refuse.
    """
    prior = known_spread(fitted.family, preset, fitted.name.removesuffix(f"-{fitted.family}"))
    if prior is None:
        return None
    groups: dict[tuple[str, str], list[float]] = {}
    for version in versions_of(fitted.name):
        tags = tags_of(version)
        if tags.get("sound") == "yes" and tags.get("content_digest") != fitted.digest:
            key = digest_tag(version, "recipe"), digest_tag(version, "evaluation")
            if all(key):
                groups.setdefault(key, []).append(number_tag(version, "main_value"))
    finite = [[v for v in group if 0 < v < math.inf] for group in groups.values()]
    return pooled_spread(finite, prior)
