"""Judge an image model on held-out images -> Scorecard."""

from functools import partial
from typing import Any

from prefect import task
from safetensors.torch import load_file

from models.metrics.classifier import Classifier, ClassifierConfig
from tasks.data.ingestion import ImageSet
from tasks.evaluation.cache import evaluate_cached
from tasks.evaluation.image_metrics import measure_images
from tasks.evaluation.result import EvaluationResult
from tasks.evaluation.scorecard import Scorecard, publish
from tasks.packaging.package import rebuilt
from tasks.runtime.retries import NETWORKED
from tasks.store.files import read_json
from tasks.training.fit_store import TrainedModel


@task(name="evaluate-images", task_run_name="evaluate {fitted.name}", **NETWORKED)
def evaluate_images(
    fitted: TrainedModel, images: ImageSet, judge: TrainedModel, run_id: str
) -> Scorecard:
    """Measure an image model's samples, and a VAE's likelihood, on the test split."""
    scorecard = evaluate_cached(
        fitted.name,
        fitted.digest,
        images,
        run_id=run_id,
        module="tasks.evaluation.image_metrics",
        subject=partial(rebuilt, fitted),
        measure=lambda subject: measured_images(subject, images, judge),
        judge_digest=judge.digest,
    )
    publish(scorecard, images)
    return scorecard


def measured_images(subject: Any, images: ImageSet, judge: TrainedModel) -> EvaluationResult:
    """Measure with the classifier of a fit as the judge."""
    return measure_images(subject, images, judge_of(judge))


def judge_of(fitted: TrainedModel) -> Classifier:
    """The classifier of a fit."""
    classifier = Classifier(ClassifierConfig(**read_json(fitted.config_path)["config"]))
    classifier.load_state_dict(load_file(fitted.weights_path))
    return classifier.eval()
