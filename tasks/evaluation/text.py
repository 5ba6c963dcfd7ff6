"""Judge a token model on held-out text -> Scorecard."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from prefect import task

from tasks.data.tokenization import TokenSet
from tasks.evaluation.cache import Measurement, evaluate_cached
from tasks.evaluation.scorecard import Scorecard, publish
from tasks.evaluation.text_metrics import measure_text
from tasks.packaging.package import rebuilt
from tasks.runtime.retries import NETWORKED
from tasks.training.fit_store import TrainedModel


@task(name="evaluate-tokens", task_run_name="evaluate {fitted.name}", **NETWORKED)
def evaluate_tokens(fitted: TrainedModel, tokens: TokenSet, run_id: str) -> Scorecard:
    """Measure a token model on the test split, and the texts that it writes."""
    subject = partial(rebuilt, fitted)
    scorecard = evaluate_text_model(fitted.name, fitted.digest, subject, tokens, run_id=run_id)
    publish(scorecard, tokens.corpus)
    return scorecard


def evaluate_text_model(
    name: str,
    content_digest: str,
    subject: Callable[[], AbstractContextManager[Any]],
    tokens: TokenSet,
    *,
    run_id: str = "",
) -> Scorecard:
    """The same for a candidate and for a champion, measured once.

    subject: gives the SampleModel; it is not asked where a stored evaluation answers.
    """
    measurement = Measurement(
        modules=("tasks.evaluation.text_metrics",),
        measure=lambda model: measure_text(model, tokens.corpus),
    )
    return evaluate_cached(
        name, content_digest, tokens.corpus, measurement, run_id=run_id, subject=subject
    )
