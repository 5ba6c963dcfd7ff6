"""Train, judge and register the two image models; the same lines for each."""

from prefect import flow

from flows.champion_challenger import evaluate_and_promote
from flows.device_slot import released_slot
from models.gan.networks import GanLoss
from models.presets import Preset, classifier_recipe, gan_recipe, vae_recipe
from tasks.data.ingestion import ImageSet
from tasks.evaluation.images import evaluate_images
from tasks.registry.versions import Version
from tasks.tracking.runs import task_run
from tasks.training.classifier import fit_classifier
from tasks.training.fit_store import fit_cache_key
from tasks.training.gan import fit_gan
from tasks.training.provenance import provenance_of
from tasks.training.vae import fit_vae


@flow(name="train-vae", flow_run_name="{images.name}-vae, {preset}, seed {seed}")
def train_vae(
    images: ImageSet,
    preset: Preset = "standard",
    seed: int = 0,
    parent_run_id: str | None = None,
    approve_within: int | None = None,
) -> Version:
    """Fit a variational auto-encoder, judge it on held-out images, register it.

    Args:
        images: the receipt of an image set.
        preset: how much work: quick, standard or full.
        seed: 0 to 2147483647; the same seed gives the same weights on the same machine.
        parent_run_id: the MLflow run under which this one is filed.
        approve_within: seconds to wait for a person's consent to a promotion; none: do not ask.
    """
    shape, num_classes = (images.channels, images.height, images.width), len(images.class_names)
    config, fit = vae_recipe(preset, *shape, seed)
    key = fit_cache_key("vae", images, {"vae": config, "fit": fit})
    with task_run(f"{images.name}-vae", key, parent_run_id, meanwhile=released_slot) as run_id:
        judge = fit_classifier(images, *classifier_recipe(*shape, num_classes), run_id)
        fitted = fit_vae(images, config, fit, run_id)
        scorecard = evaluate_images(fitted, images, judge, run_id)
        recipe = provenance_of("vae", images, preset, seed, config=config, fit=fit)
        return evaluate_and_promote(fitted, scorecard, recipe, images, judge, approve_within)


@flow(name="train-gan", flow_run_name="{images.name}-gan, {preset}, seed {seed}")
def train_gan(
    images: ImageSet,
    preset: Preset = "standard",
    seed: int = 0,
    parent_run_id: str | None = None,
    gan_loss: GanLoss = "relativistic",
    approve_within: int | None = None,
) -> Version:
    """Fit a generative adversarial network, judge its samples, register it.

    Args:
        images: the receipt of an image set.
        preset: how much work: quick, standard or full.
        seed: 0 to 2147483647; the same seed gives the same weights on the same machine.
        parent_run_id: the MLflow run under which this one is filed.
        gan_loss: the rules of the game.
        approve_within: seconds to wait for a person's consent to a promotion; none: do not ask.
    """
    shape, num_classes = (images.channels, images.height, images.width), len(images.class_names)
    config, fit = gan_recipe(preset, shape, num_classes, seed, gan_loss)
    key = fit_cache_key("gan", images, {"gan": config, "fit": fit})
    with task_run(f"{images.name}-gan", key, parent_run_id, meanwhile=released_slot) as run_id:
        judge = fit_classifier(images, *classifier_recipe(*shape, num_classes), run_id)
        fitted = fit_gan(images, config, fit, run_id)
        scorecard = evaluate_images(fitted, images, judge, run_id)
        recipe = provenance_of("gan", images, preset, seed, config=config, fit=fit)
        return evaluate_and_promote(fitted, scorecard, recipe, images, judge, approve_within)
