"""Fit the GAN: both losses, the penalties and the referee's view of the game, logged as it goes."""

import torch
from prefect import task
from torch import Tensor

from models.gan.model import Gan, labelled_batches, optimizers_of
from models.gan.networks import GanConfig, fixed_latents, images_of
from models.gan.stability import ControlConfig, StabilityMonitor, controlled_state, controlled_steps
from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.checkpoint import num_parameters
from models.training.loops import FitConfig
from tasks.data.ingestion import ImageSet, load_images
from tasks.runtime.retries import TRAINING
from tasks.training.checkpointing import checkpointed_steps
from tasks.training.device import training_device
from tasks.training.examples import GRID_COLUMNS, example_images, save_sample_grid, snapshot_steps
from tasks.training.fit_store import FitContext, TrainedModel, load_cached_fit, open_fit, save_fit

REFERENCE_IMAGES = 1000


@task(
    name="fit-gan",
    task_run_name="fit {images.name}-gan",
    **TRAINING,
)
def fit_gan(images: ImageSet, config: GanConfig, fit: FitConfig, run_id: str) -> TrainedModel:
    """Train both networks on the training split; what is kept is the averaged generator."""
    settings = {"gan": config, "fit": fit}
    with open_fit("gan", images, settings, seed=fit.seed, run_id=run_id) as place:
        return load_cached_fit(place) or _train(place, images, config, fit)


def _train(place: FitContext, images: ImageSet, config: GanConfig, fit: FitConfig) -> TrainedModel:
    device = training_device()
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    model = Gan(config).to(device)
    optimizers = optimizers_of(model, fit.learning_rate)
    pixels, labels = load_images(images, "train")
    train = torch.from_numpy(pixels.copy()).to(device)
    classes = torch.from_numpy(labels).to(device) if config.num_classes else None
    batches = labelled_batches(ImageBatches(train, fit.batch_size, fit.seed), classes)
    monitor = StabilityMonitor(ControlConfig(), _reference(train, classes))
    state = controlled_state(model, optimizers, monitor)
    moments = snapshot_steps(fit.steps)
    num_rollbacks = 0
    for step in checkpointed_steps(
        lambda _: controlled_steps(model, state, batches, fit, monitor),
        state,
        place,
        num_steps=fit.steps,
        shown=("generator_loss", "discriminator_loss"),
    ):
        if step.step in moments:
            save_sample_grid(place, step.step, "fixed latent points", _drawn(model))
        if monitor.num_rollbacks > num_rollbacks:
            num_rollbacks = monitor.num_rollbacks
            place.say(f"went back to step {step.step}: {monitor.diagnoses[-1]}")
    return save_fit(
        place,
        tensors=model.average.state_dict(),
        config=config,
        seconds=state.seconds,
        num_parameters=num_parameters(model.generator),
        extra_json={"classes.json": list(images.class_names) if config.num_classes else []},
        extra_tensors={"examples.safetensors": {"examples": example_images(images)}},
    )


def _reference(train: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Real images for the monitor to compare with, from all over the training split."""
    step = max(1, len(train) // REFERENCE_IMAGES)
    return train[::step].float() / 255, None if classes is None else classes[::step]


def _drawn(model: Gan) -> Tensor:
    """What the averaged generator makes of the same latent points, now."""
    latents = fixed_latents(model.config, GRID_COLUMNS, seed=0)
    num_classes = model.config.num_classes
    labels = torch.arange(GRID_COLUMNS) % num_classes if num_classes else None
    return images_of(model.average, latents, labels)
