"""Fit the judge of image samples: a small classifier whose features distances are measured in."""

import torch
from prefect import task
from torch import Tensor

from models.metrics.classifier import Classifier, ClassifierConfig, make_optimizer
from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.checkpoint import BestWeights, TrainingState, num_parameters
from models.training.loops import FitConfig, likelihood_steps
from tasks.data.ingestion import ImageSet, load_images
from tasks.runtime.retries import TRAINING
from tasks.training.checkpointing import checkpointed_steps
from tasks.training.device import training_device
from tasks.training.fit_store import FitContext, TrainedModel, load_cached_fit, open_fit, save_fit

NUM_VALIDATIONS = 10
VALIDATION_IMAGES = 1000


@task(
    name="fit-classifier",
    task_run_name="fit {images.name}-classifier",
    **TRAINING,
)
def fit_classifier(
    images: ImageSet, config: ClassifierConfig, fit: FitConfig, run_id: str
) -> TrainedModel:
    """Train the classifier on the training split, once for an image set; the best validated stays.

    A set without classes has labels that are not looked at; see `models.metrics.classifier`.
    """
    settings = {"classifier": config, "classifier_fit": fit}
    with open_fit(
        "classifier", images, settings, seed=fit.seed, run_id=run_id, prefix="classifier_"
    ) as place:
        return load_cached_fit(place) or _train(place, images, config, fit)


def _train(
    place: FitContext, images: ImageSet, config: ClassifierConfig, fit: FitConfig
) -> TrainedModel:
    device = training_device()
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    model = Classifier(config).to(device)
    optimizer = make_optimizer(model, fit)
    best = BestWeights(model)
    state = TrainingState({"model": model, "best": best.model}, {"all": optimizer}, {"best": best})
    pixels, labels = load_images(images, "train")
    batches = ImageBatches(torch.from_numpy(pixels.copy()).to(device), fit.batch_size, fit.seed)
    all_labels = torch.from_numpy(labels).to(device)

    def batch_at(step: int) -> tuple[Tensor, Tensor]:
        return batches.at(step), all_labels[batches.indices_at(step)]

    validation = tuple(
        torch.from_numpy(part[:: max(1, len(part) // VALIDATION_IMAGES)].copy()).to(device)
        for part in load_images(images, "validation")
    )
    validate_every = max(1, fit.steps // NUM_VALIDATIONS)
    for step in checkpointed_steps(
        lambda start: likelihood_steps(
            model,
            optimizer,
            batch_at,
            fit,
            start,
        ),
        state,
        place,
        num_steps=fit.steps,
        shown=("loss", "accuracy"),
    ):
        if step.step % validate_every == 0 or step.step == fit.steps:
            numbers = _validated(model, *validation)
            place.journal.add(step.step, numbers)
            best.offer(step.step, numbers["validation_loss"], model)
    place.say(f"the weights of step {best.step} did best on the validation split")
    return save_fit(
        place,
        tensors=best.model.state_dict(),
        config=config,
        seconds=state.seconds,
        num_parameters=num_parameters(model),
    )


@torch.no_grad()
def _validated(model: Classifier, pixels: Tensor, labels: Tensor) -> dict[str, float]:
    """The lessons' loss on held-out images, changed and damaged by the same draw every time."""
    torch.manual_seed(0)  # the next step of training seeds anew
    terms = model.losses((pixels.float() / 255, labels), 0)
    return {f"validation_{name}": float(terms[name]) for name in ("loss", "accuracy")}
