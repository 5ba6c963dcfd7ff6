"""The gate: what a candidate must show before it may be called champion.

Three things. Absolute checks: finite, not collapsed, not memorised. A paired comparison with the
champion, both judged now: the 95 % interval of the difference, over resampled held-out items, lies
wholly on the better side. And more than luck with the seed: two trainings of one recipe can truly
differ on a test set, so the difference must exceed what another seed alone gives.
"""

import math

import numpy as np
from prefect import task
from scipy.special import stdtrit

from models.intervals import paired_bootstrap
from models.resampling import SeedSpread, pooled_spread
from tasks.evaluations import item_scores
from tasks.promotion import withdrawn
from tasks.registration import tags_of, versions_of
from tasks.retries import NETWORKED
from tasks.scorecard import Incumbent, Scorecard, Verdict
from tasks.tracking import outages_named
from tasks.training.loop import Fitted
from tasks.version_tags import number_tag

KNOWN_SPREADS = {
    "vae": SeedSpread(0.0026, 4),
    "gan": SeedSpread(0.14, 4),
    "gpt": SeedSpread(0.0086, 4),
}
"""Relative spreads of quick recipes on the embedded data, by `python -m benchmarks.gate_noise`.

Measured over 20 seeds each. Other recipes and data differ, so each counts as four observations, and
a model's own history soon outweighs it. Counting (`ngram`) knows no chance.
"""


@task(name="gate", task_run_name="gate {fitted.name}", **NETWORKED)
def gate(fitted: Fitted, scorecard: Scorecard, incumbent: Incumbent | None) -> Verdict:
    """Accept a sound model that is the first, or better than the champion beyond chance."""
    if scorecard.faults:
        return Verdict(accepted=False, reason="; ".join(scorecard.faults))
    if incumbent is not None and incumbent.digest == fitted.digest:
        return Verdict(
            accepted=True,
            reason="the same content as the champion",
            champion_version=incumbent.version,
        )
    if why := withdrawn(fitted.name, fitted.digest):
        return Verdict(accepted=False, reason=f"withdrawn by hand: {why}")
    if incumbent is None:
        return Verdict(accepted=True, reason="the first version that passed the checks")
    champion = incumbent.scorecard
    if champion is None or champion.unit != scorecard.unit:
        return _undecided(fitted, incumbent)
    with outages_named():
        spread = seed_spread(fitted)
    return compared(scorecard, champion, incumbent.version, spread)


def _undecided(fitted: Fitted, incumbent: Incumbent) -> Verdict:
    """Without a comparison only a person may promote."""
    measured = incumbent.scorecard
    why = (
        f"is measured in {measured.unit}" if measured else f"cannot be judged: {incumbent.problem}"
    )
    return Verdict(
        accepted=False,
        reason=f"nothing to compare with: the champion, version {incumbent.version}, {why}; a"
        f" person decides, with `atelier promote {fitted.name}`",
        champion_version=incumbent.version,
    )


def compared(
    candidate: Scorecard, champion: Scorecard, champion_version: int, spread: SeedSpread | None
) -> Verdict:
    """The verdict on two evaluations of the same items; spread: None where seeds change nothing."""
    low, high = difference_interval(candidate, champion)
    difference = candidate.main_value - champion.main_value
    margin = 0.0 if spread is None else noise_margin(champion.main_value, spread)
    if not math.isfinite(champion.main_value):
        finding, accepted = "better: the champion's result is no finite number", True
    elif not high < 0:
        finding, accepted = "not better", False
    elif difference >= -margin:
        finding, accepted = "not better than another seed of one recipe may be by luck", False
    else:
        finding, accepted = "better", True
    return Verdict(
        accepted=accepted,
        reason=f"{finding}: {candidate.main_value:.4f} against the champion's"
        f" {champion.main_value:.4f}, difference {difference:+.4f} ({low:+.4f} to {high:+.4f});"
        f" another seed alone gives up to {margin:.4f}",
        champion_version=champion_version,
        champion_value=champion.main_value,
        difference=difference,
        low=low,
        high=high,
        margin=margin,
    )


def difference_interval(candidate: Scorecard, champion: Scorecard) -> tuple[float, float]:
    """The 95 % interval of the candidate's main value minus the champion's, over the same items.

    Items (images, blocks of text) are resampled in pairs. A Frechet distance is no mean of items:
    there the samples and the training images were resampled, the same rows for both models, and
    the interval is the difference plus and minus 1.96 standard deviations of the resampled one,
    which unlike its percentiles is free of the bias that resampling gives to distances.
    """
    ours, are_resamples = item_scores(candidate)
    theirs, _ = item_scores(champion)
    if ours.shape != theirs.shape:
        raise ValueError(f"scores of {ours.shape} and {theirs.shape} items do not pair")
    differences = ours - theirs
    if not np.isfinite(differences).all() or len(differences) < 2:
        return math.nan, math.nan
    if not are_resamples:
        interval = paired_bootstrap(differences)
        return interval.low, interval.high
    difference = candidate.main_value - champion.main_value
    error = 1.96 * float(differences.std(ddof=1))
    return difference - error, difference + error


def noise_margin(value: float, spread: SeedSpread) -> float:
    """What the difference of two seeds of one recipe exceeds once in 40 times.

    The t quantile at 97.5 % times the standard deviation of a difference, sqrt(2) spreads.
    """
    quantile = float(stdtrit(spread.freedom, 0.975))
    return quantile * math.sqrt(2) * spread.relative * abs(value)


def seed_spread(fitted: Fitted) -> SeedSpread | None:
    """What seeds alone do to this model, from its registered versions; None where nothing.

    Versions of one recipe, judged on the same data by the same code, that differ in their seed.
    The candidate itself does not count: it is what the spread is held against. Nor do collapsed
    trainings, which the absolute checks refuse.
    """
    prior = KNOWN_SPREADS.get(fitted.family)
    if prior is None:
        return None
    groups: dict[tuple[str, str], list[float]] = {}
    for version in versions_of(fitted.name):
        tags = tags_of(version)
        if tags.get("sound") == "yes" and tags.get("content_digest") != fitted.digest:
            key = tags.get("recipe_digest", ""), tags.get("evaluation_digest", "")
            if all(key):
                groups.setdefault(key, []).append(number_tag(version, "main_value"))
    finite = [[v for v in group if 0 < v < math.inf] for group in groups.values()]
    return pooled_spread(finite, prior)
