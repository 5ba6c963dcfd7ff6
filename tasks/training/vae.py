"""Fit the VAE: both losses and the use of z logged, the best validated weights kept."""

import torch
from prefect import task
from torch import Tensor

from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.checkpoint import BestWeights, TrainingState, num_parameters
from models.training.loops import FitConfig, likelihood_steps
from models.vae.elbo import active_units, binarize, collapse_alarm, negative_elbo
from models.vae.latent_mixture import fit_mixture
from models.vae.model import Vae, VaeConfig, make_optimizer
from tasks.data.ingestion import ImageSet, load_images
from tasks.runtime.retries import TRAINING
from tasks.training.checkpointing import checkpointed_steps
from tasks.training.device import training_device
from tasks.training.examples import GRID_COLUMNS, example_images, save_sample_grid, snapshot_steps
from tasks.training.fit_store import FitContext, TrainedModel, load_cached_fit, open_fit, save_fit

NUM_VALIDATIONS = 20
VALIDATION_IMAGES = 1000
GRID_TITLE = "held-out - reconstructed - new"


@task(
    name="fit-vae",
    task_run_name="fit {images.name}-vae",
    **TRAINING,
)
def fit_vae(images: ImageSet, config: VaeConfig, fit: FitConfig, run_id: str) -> TrainedModel:
    """Train the VAE on the training split; a retry or a new process resumes where it stopped."""
    settings = {"vae": config, "fit": fit}
    with open_fit("vae", images, settings, seed=fit.seed, run_id=run_id) as place:
        return load_cached_fit(place) or _train(place, images, config, fit)


def _train(place: FitContext, images: ImageSet, config: VaeConfig, fit: FitConfig) -> TrainedModel:
    device = training_device()
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    model = Vae(config).to(device)
    optimizer = make_optimizer(model, fit)
    best = BestWeights(model)
    state = TrainingState({"model": model, "best": best.model}, {"all": optimizer}, {"best": best})
    train = torch.from_numpy(load_images(images, "train")[0].copy()).to(device)
    held_out = torch.from_numpy(load_images(images, "validation")[0][:VALIDATION_IMAGES].copy())
    validation = held_out.to(device).float() / 255
    if config.likelihood == "bernoulli":
        validation = binarize(validation, seed=0)
    batches = ImageBatches(train, fit.batch_size, fit.seed)
    validate_every = max(1, fit.steps // NUM_VALIDATIONS)
    moments = snapshot_steps(fit.steps)
    for step in checkpointed_steps(
        lambda start: likelihood_steps(model, optimizer, batches.at, fit, start),
        state,
        place,
        num_steps=fit.steps,
        shown=("negative_elbo", "reconstruction", "kl"),
    ):
        if step.step % validate_every == 0 or step.step == fit.steps:
            model.eval()
            numbers, alarm = _validated(model, validation)
            place.journal.add(step.step, numbers)
            if step.step > config.kl_warmup_steps:
                best.offer(step.step, numbers["validation_negative_elbo"], model)
                if alarm:
                    place.say(f"step {step.step}: {alarm}")
        if step.step in moments:
            save_sample_grid(place, step.step, GRID_TITLE, _drawn(model, held_out))
    place.say(f"the weights of step {best.step} did best on the validation split")
    best.model.eval()
    fit_mixture(best.model, train.float() / 255, seed=fit.seed)
    return save_fit(
        place,
        tensors=best.model.state_dict(),
        config=config,
        seconds=state.seconds,
        num_parameters=num_parameters(model),
        extra_tensors={"examples.safetensors": {"examples": example_images(images)}},
    )


def _drawn(model: Vae, held_out: Tensor) -> Tensor:
    """Three rows: images never trained on, what is left of them after z, and new ones; now."""
    model.eval()
    originals = held_out[:GRID_COLUMNS].to(model.mixture_means.device).float() / 255
    rows = (originals, model.reconstruct(originals), model.sample(GRID_COLUMNS, seed=0))
    return torch.cat(rows)


def _validated(model: Vae, validation: Tensor) -> tuple[dict[str, float], str | None]:
    """Losses on the validation images, the use made of z, and the alarm if there is cause."""
    losses = negative_elbo(model, validation, seed=0)
    loss, kl = (float(losses[name].mean()) for name in ("negative_elbo", "kl"))
    num_active = active_units(model, validation)
    alarm = collapse_alarm(kl, num_active, model.config.latent_size)
    numbers = {
        "validation_negative_elbo": loss,
        "validation_kl": kl,
        "active_units": float(num_active),
        "collapse_alarm": float(alarm is not None),
    }
    return numbers, alarm
