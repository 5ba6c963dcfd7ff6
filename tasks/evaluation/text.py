"""Judge a token model on held-out text -> Scorecard."""

from functools import partial

from prefect import task

from tasks.data.tokenization import TokenSet
from tasks.evaluation.cache import evaluate_cached
from tasks.evaluation.scorecard import Scorecard, publish
from tasks.evaluation.text_metrics import measure_text
from tasks.packaging.package import rebuilt
from tasks.runtime.retries import NETWORKED
from tasks.training.fit_store import TrainedModel


@task(name="evaluate-tokens", task_run_name="evaluate {fitted.name}", **NETWORKED)
def evaluate_tokens(fitted: TrainedModel, tokens: TokenSet, run_id: str) -> Scorecard:
    """Measure a token model on the test split, and the texts that it writes."""
    scorecard = evaluate_cached(
        fitted.name,
        fitted.digest,
        tokens.corpus,
        run_id=run_id,
        module="tasks.evaluation.text_metrics",
        subject=partial(rebuilt, fitted),
        measure=lambda subject: measure_text(subject, tokens.corpus),
    )
    publish(scorecard, tokens.corpus)
    return scorecard
