"""What a search found, where people look: its page in MLflow, Prefect's page, the terminal."""

import json
import statistics
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact

from tasks.runtime.progress import log, show
from tasks.runtime.retries import NETWORKED
from tasks.runtime.templates import html_page, prefect_page
from tasks.search.pictures import pictures_of
from tasks.search.records import (
    Finding,
    SearchRecord,
    outcomes_of,
    proposals_of,
    results_of,
    steps_of,
)
from tasks.search.study import best_of
from tasks.store.files import scratch_folder, write_text
from tasks.store.names import artifact_key
from tasks.tracking.mlflow_client import (
    end_run,
    log_file,
    log_metrics,
    log_parameters,
    nested_runs,
    set_tags,
)

PRUNED = "atelier.pruned"
"""The tag of a nested run after which its trial was pruned."""
Row = tuple[str, str, str, str]
"""A trial's place, number, objective and settings."""


def told_labels(run_id: str) -> set[str]:
    """The labels of the trials whose nested runs have ended, well or not."""
    return {
        tags["atelier.trial"]
        for _, status, tags in nested_runs(run_id)
        if (status in ("FINISHED", "FAILED") or PRUNED in tags) and "atelier.trial" in tags
    }


@task(name="close-pruned-runs", **NETWORKED)
def close_pruned_runs(search: SearchRecord, run_id: str) -> None:
    """Let the last nested run of each pruned trial end KILLED, with the reason."""
    reasons = {
        f"trial {number} at {[*outcome.rungs][-1]} steps": outcome.reason
        for number, outcome in outcomes_of(search).items()
        if outcome.state == "pruned"
    }
    for nested, status, tags in nested_runs(run_id):
        reason = reasons.get(tags.get("atelier.trial", ""))
        if reason is not None and (status, tags.get(PRUNED)) == ("FINISHED", None):
            set_tags(nested, {PRUNED: "true", "atelier.reason": reason})
            end_run(nested, "KILLED")


def summary_of(search: SearchRecord, finding: Finding) -> str:
    """What was found, in sentences: best of n, fresh seeds beside it, the decision."""
    outcomes = outcomes_of(search)
    states = [each.state for each in outcomes.values()]
    number = f"{len(states)} trial{'s' * (len(states) != 1)}"
    sentences = [f"{number} of {search.model}, {states.count('failed')} failed"]
    if (steps := steps_of(search)) is not None:
        sentences[0] += f", {states.count('pruned')} pruned"
        if steps[1]:
            saved = 1 - steps[0] / steps[1]
            words = f"{steps[0]:,} steps trained instead of {steps[1]:,} without pruning"
            sentences.append(f"{words} ({saved:.0%} saved)")
    ranking = best_of(results_of(outcomes))
    if ranking:
        best = outcomes[ranking[0]]
        words = f"best of {len(ranking)} on validation: {best.value:.5g} {best.unit}"
        sentences.append(f"{words} (trial {ranking[0]})")
        if 0 in ranking and ranking[0] != 0:
            place = ranking.index(0) + 1
            sentences.append(f"the present recipe is number {place}: {outcomes[0].value:.5g}")
    values = [each.value for each in finding.fresh if each.value is not None]
    if values:
        spread = f" (standard deviation {statistics.stdev(values):.2g})" if len(values) > 1 else ""
        told = ", ".join(f"{value:.5g}" for value in values)
        sentences.append(f"with fresh seeds: {told}{spread}")
    return "; ".join([*sentences, finding.decision])


def rows_of(search: SearchRecord) -> list[Row]:
    """The trials, the best first, failed ones last."""
    outcomes = outcomes_of(search)
    proposals = {each.number: each.proposal for each in proposals_of(search)}
    ranking = best_of(results_of(outcomes))
    rest = [number for number in sorted(outcomes) if number not in ranking]
    rows = []
    for number in [*ranking, *rest]:
        outcome = outcomes[number]
        place = str(ranking.index(number) + 1) if number in ranking else ""
        is_complete = outcome.state == "complete" and outcome.value is not None
        value = f"{outcome.value:.5g}" if is_complete else outcome.reason
        settings = ", ".join(f"{k}={_short(v)}" for k, v in proposals[number].values.items())
        rows.append((place, f"{number}{' (present recipe)' * (number == 0)}", value, settings))
    return rows


def _short(value: Any) -> str:
    """A value as a table shows it; records and `--json` have all of its digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@task(name="publish-search", **NETWORKED)
def publish_search(search: SearchRecord, finding: Finding, run_id: str) -> None:
    """Numbers, pictures and a page with the search's MLflow run, a table in Prefect, a line."""
    summary, rows = summary_of(search, finding), rows_of(search)
    outcomes = outcomes_of(search)
    log_parameters(
        run_id,
        {
            **{"search": search.name, "preset": search.preset, "seed": search.spec.seed},
            **{"sampler": search.spec.sampler, "batch_size": search.spec.batch_size},
            **{"threads": search.threads, "given": search.given},
            "vary": {
                name: json.dumps(each, sort_keys=True) for name, each in search.spec.space.items()
            },
        },
    )
    numbers = {"trials": float(len(outcomes))}
    if (steps := steps_of(search)) is not None:
        numbers["trials_pruned"] = float(sum(o.state == "pruned" for o in outcomes.values()))
        numbers["steps_trained"], numbers["steps_without_pruning"] = map(float, steps)
    if finding.best is not None:
        numbers["best_objective"] = float(outcomes[finding.best].value or 0.0)
    log_metrics(run_id, numbers)
    set_tags(run_id, {"atelier.search": search.name, "mlflow.note.content": summary})
    with scratch_folder() as folder:
        for name, content in pages_of(search, summary).items():
            write_text(folder / name, content)
        log_file(run_id, folder, "search")
    page = prefect_page("search/search.md", search=search, summary=summary, rows=rows)
    show(
        f"search {search.name}",
        lambda: create_markdown_artifact(page, key=artifact_key(f"{search.name}-search")),
    )
    log(f"search {search.name}: {summary}")


def pages_of(search: SearchRecord, summary: str) -> dict[str, str]:
    """The pictures, and one page with all of them, by file name; none of it needs a network."""
    proposals = [each.proposal for each in proposals_of(search)]
    drawn = pictures_of(search.spec, proposals, outcomes_of(search))
    page = html_page(
        "search/search.html",
        search=search,
        summary=summary,
        pictures=list(drawn.values()),
        rows=rows_of(search),
    )
    return {**drawn, "search.html": page}
