"""Judge a token model on held-out text -> Scorecard."""

from functools import partial

from prefect import task

from tasks.evaluations import judged
from tasks.packaging import rebuilt
from tasks.retries import NETWORKED
from tasks.scorecard import Scorecard, publish
from tasks.text_measures import measure_text
from tasks.tokenization import TokenSet
from tasks.training.loop import Fitted


@task(name="evaluate-tokens", task_run_name="evaluate {fitted.name}", **NETWORKED)
def evaluate_tokens(fitted: Fitted, tokens: TokenSet, run_id: str) -> Scorecard:
    """Measure a token model on the test split, and the texts that it writes."""
    scorecard = judged(
        fitted.name,
        fitted.digest,
        tokens.corpus,
        run_id=run_id,
        module="tasks.text_measures",
        subject=partial(rebuilt, fitted),
        measure=lambda subject: measure_text(subject, tokens.corpus),
    )
    publish(scorecard, tokens.corpus)
    return scorecard
