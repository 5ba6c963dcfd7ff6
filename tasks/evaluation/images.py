"""Judge an image model on held-out images -> Scorecard."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pkgutil import resolve_name
from typing import Any

from prefect import task
from safetensors.torch import load_file

from models.metrics.classifier import Classifier, ClassifierConfig
from tasks.data.ingestion import ImageSet
from tasks.evaluation.cache import Measurement, evaluate_cached
from tasks.evaluation.image_metrics import measure_images
from tasks.evaluation.scorecard import Scorecard, publish
from tasks.packaging.package import rebuilt
from tasks.runtime.retries import NETWORKED
from tasks.store.files import read_json
from tasks.training.device import training_device
from tasks.training.fit_store import TrainedModel


@task(name="evaluate-images", task_run_name="evaluate {fitted.name}", **NETWORKED)
def evaluate_images(
    fitted: TrainedModel,
    images: ImageSet,
    judge: TrainedModel,
    run_id: str,
    *,
    likelihood: str = "",
    draws_means: bool = False,
) -> Scorecard:
    """Measure an image model on the test split; see `measure_images` for the rest."""
    scorecard = evaluate_image_model(
        fitted.name,
        fitted.digest,
        partial(rebuilt, fitted),
        images,
        judge,
        run_id=run_id,
        likelihood=likelihood,
        draws_means=draws_means,
    )
    publish(scorecard, images)
    return scorecard


def evaluate_image_model(
    name: str,
    content_digest: str,
    subject: Callable[[], AbstractContextManager[Any]],
    images: ImageSet,
    judge: TrainedModel,
    *,
    run_id: str = "",
    likelihood: str = "",
    draws_means: bool = False,
) -> Scorecard:
    """The same for a candidate and for a champion, measured once for each judge.

    subject: gives the SampleModel; it is not asked where a stored evaluation answers. likelihood:
    `module:function`, see `tasks.families.family.Family`.
    """
    modules = ("tasks.evaluation.image_metrics", likelihood.partition(":")[0])
    # Now: an old version's own `models` may stand in the place of ours while it is measured.
    measure_likelihood = resolve_name(likelihood) if likelihood else None
    measurement = Measurement(
        modules=tuple(filter(None, modules)),
        measure=lambda model: measure_images(
            model, images, judge_of(judge), likelihood=measure_likelihood, draws_means=draws_means
        ),
        settings={"likelihood": likelihood, "draws_means": draws_means},
        judge_digest=judge.digest,
        device=training_device().type,
    )
    return evaluate_cached(
        name, content_digest, images, measurement, run_id=run_id, subject=subject
    )


def judge_of(fitted: TrainedModel) -> Classifier:
    """The classifier of a fit."""
    classifier = Classifier(ClassifierConfig(**read_json(fitted.config_path)["config"]))
    classifier.load_state_dict(load_file(fitted.weights_path))
    return classifier.eval()
