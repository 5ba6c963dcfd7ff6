"""Judge the champion, or any version, now: on the candidate's data and with the same code."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task

from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.evaluation.images import evaluate_image_model
from tasks.evaluation.scorecard import ChampionEvaluation, Scorecard
from tasks.evaluation.text import evaluate_text_model
from tasks.families.family import Family
from tasks.registry.loading import loaded
from tasks.registry.reproduction import at_home
from tasks.registry.verification import verified_copy
from tasks.registry.version_tags import text_tag
from tasks.registry.versions import champion_of, named_version
from tasks.runtime.messages import one_line
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED
from tasks.store.files import BadInput
from tasks.tracking.mlflow_client import outages_named
from tasks.training.fit_store import TrainedModel


@task(name="evaluate-champion", task_run_name="evaluate the champion of {name}", **NETWORKED)
def evaluate_champion(
    name: str, data: ImageSet | TokenSet, family: Family, judge: TrainedModel | None = None
) -> ChampionEvaluation | None:
    """Measure the present champion of a name on the data of today, or find that it is none.

    judge: the classifier that measures images. What was measured before is found again; a change
    of the data, of the judge or of the code that measures makes it measure anew. A champion that
    cannot be loaded, that is not what was registered, or that cannot answer for these data, is an
    ChampionEvaluation with a problem: a person must decide, because nothing can be compared.
    """
    with outages_named():
        champion = champion_of(name)
    if champion is None:
        return None
    version, digest = champion.version, champion.tags.get("content_digest", "")
    try:
        with verified_copy(name, str(version)):  # also where a stored evaluation answers
            pass
        wanted = text_tag(champion, "content_digest")
        scorecard = _scorecard(
            partial(loaded, name, str(version)), name, wanted, data, family, judge
        )
    except (ConnectionError, TimeoutError):
        raise
    except Exception as error:  # whatever an old version's own code may raise
        problem = one_line(error)
        log(f"{name}: the champion, version {version}, cannot be judged: {problem}")
        return ChampionEvaluation(version=version, digest=digest, scorecard=None, problem=problem)
    if not scorecard.was_stored:
        log(f"{name}: the champion, version {version}, was re-evaluated")
    return ChampionEvaluation(version=version, digest=digest, scorecard=scorecard, problem="")


@task(name="evaluate-version", task_run_name="evaluate {name} version {version}", **NETWORKED)
def evaluate_version(
    name: str,
    version: int,
    data: ImageSet | TokenSet,
    family: Family,
    judge: TrainedModel | None = None,
    empty: Path | None = None,
) -> Scorecard:
    """Measure any version on data with the code of today; what was measured before is found.

    empty: a home in which nothing was measured yet, where it is to be measured all the same.
    Raises what loading a version raises, and ValueError for data that it cannot answer for.
    """
    with outages_named():
        found = named_version(name, str(version))
    if found is None:
        raise BadInput(f"{name} has no version {version}")
    digest = text_tag(found, "content_digest")
    if empty is None:
        with verified_copy(name, str(version)):  # also where a stored evaluation answers
            pass
        return _scorecard(partial(loaded, name, str(version)), name, digest, data, family, judge)
    with loaded(name, str(version)) as model, at_home(empty):  # the audit log is not there
        return _scorecard(partial(nullcontext, model), name, digest, data, family, judge)


def _scorecard(
    subject: Callable[[], AbstractContextManager[Any]],
    name: str,
    digest: str,
    data: ImageSet | TokenSet,
    family: Family,
    judge: TrainedModel | None,
) -> Scorecard:
    if isinstance(data, TokenSet):
        return evaluate_text_model(name, digest, subject, data)
    assert judge is not None, "images are measured by a classifier"
    return evaluate_image_model(
        name,
        digest,
        subject,
        data,
        judge,
        likelihood=family.likelihood,
        draws_means=family.draws_means,
    )
