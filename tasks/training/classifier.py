"""Fit the judge of image samples: a small classifier whose features distances are measured in."""

import time

import torch
from prefect import task

from models.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.classifier import Classifier, ClassifierConfig, make_optimizer
from models.fitting import FitConfig, likelihood_steps
from models.training_state import TrainingState, num_parameters
from tasks.ingestion import ImageSet, load_images
from tasks.retries import TRAINING
from tasks.tracking import MetricStream
from tasks.training.loop import Fitted, finished, stored, training_device, watched, workplace


@task(
    name="fit-classifier",
    task_run_name="fit {images.name}-classifier",
    **TRAINING,
)
def fit_classifier(
    images: ImageSet, config: ClassifierConfig, fit: FitConfig, run_id: str
) -> Fitted:
    """Train the classifier on the training split, once for an image set."""
    device = training_device()
    settings = {"classifier": config, "classifier_fit": fit}
    place = workplace(
        "classifier", images, settings, seed=fit.seed, run_id=run_id, device=device.type
    )
    if (earlier := stored(place)) is not None:
        return earlier
    started_at = time.monotonic()
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    model = Classifier(config).to(device)
    optimizer = make_optimizer(model, fit)
    state = TrainingState({"model": model}, {"all": optimizer})
    pixels, labels = load_images(images, "train")
    batches = ImageBatches(torch.from_numpy(pixels.copy()).to(device), fit.batch_size, fit.seed)
    all_labels = torch.from_numpy(labels).to(device)
    for _ in watched(
        lambda start: likelihood_steps(
            model,
            optimizer,
            lambda step: (batches.at(step), all_labels[batches.indices_at(step)]),
            fit,
            start,
        ),
        state,
        place,
        num_steps=fit.steps,
        metrics=MetricStream(run_id, prefix="classifier_"),
        shown=("loss", "accuracy"),
    ):
        pass
    return finished(
        place,
        tensors=model.state_dict(),
        config=config,
        seconds=time.monotonic() - started_at,
        num_parameters=num_parameters(model),
    )
