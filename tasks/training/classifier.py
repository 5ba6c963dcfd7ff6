"""Fit the judge of image samples: a small classifier whose features distances are measured in."""

import torch
from prefect import task

from models.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.classifier import Classifier, ClassifierConfig, make_optimizer
from models.fitting import FitConfig, likelihood_steps
from models.training_state import TrainingState, num_parameters
from tasks.ingestion import ImageSet, load_images
from tasks.retries import TRAINING
from tasks.training.loop import (
    Fitted,
    Workplace,
    finished,
    stored,
    training_device,
    watched,
    workplace,
)


@task(
    name="fit-classifier",
    task_run_name="fit {images.name}-classifier",
    **TRAINING,
)
def fit_classifier(
    images: ImageSet, config: ClassifierConfig, fit: FitConfig, run_id: str
) -> Fitted:
    """Train the classifier on the training split, once for an image set."""
    settings = {"classifier": config, "classifier_fit": fit}
    with workplace(
        "classifier", images, settings, seed=fit.seed, run_id=run_id, prefix="classifier_"
    ) as place:
        return stored(place) or _train(place, images, config, fit)


def _train(place: Workplace, images: ImageSet, config: ClassifierConfig, fit: FitConfig) -> Fitted:
    device = training_device()
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
        shown=("loss", "accuracy"),
    ):
        pass
    return finished(
        place,
        tensors=model.state_dict(),
        config=config,
        seconds=state.seconds,
        num_parameters=num_parameters(model),
    )
