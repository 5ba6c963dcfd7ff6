"""The gate: what a candidate must show before it may be called champion."""

from prefect import task

from tasks.registration import champion_of
from tasks.retries import NETWORKED
from tasks.scorecard import Scorecard, Verdict
from tasks.tracking import outages_named
from tasks.training.loop import Fitted


@task(
    name="gate",
    task_run_name="gate {fitted.name}",
    **NETWORKED,
)
def gate(fitted: Fitted, scorecard: Scorecard) -> Verdict:
    """Accept a sound model that is the first, or better than the champion on the same data."""
    if scorecard.faults:
        return Verdict(accepted=False, reason="; ".join(scorecard.faults))
    with outages_named():
        champion = champion_of(fitted.name)
    if champion is None:
        return Verdict(accepted=True, reason="the first version that passed the checks")
    if champion.tags.get("content_digest") == fitted.digest:
        return Verdict(accepted=True, reason="the same content as the champion")
    if champion.tags.get("data_digest") != scorecard.data_digest:
        return Verdict(accepted=True, reason="the data changed since the champion was judged")
    if champion.tags.get("judge_digest") != scorecard.judge_digest:
        return Verdict(accepted=True, reason="the judge changed since the champion was judged")
    incumbent = float(champion.tags["main_value"])
    better = scorecard.main_value < incumbent
    comparison = f"{scorecard.main_value:.4f} against the champion's {incumbent:.4f}"
    return Verdict(accepted=better, reason=f"{'better' if better else 'not better'}: {comparison}")
