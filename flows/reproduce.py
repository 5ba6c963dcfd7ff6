"""Make a registered version again, from its record alone, and compare."""

from typing import TypeVar

from prefect import flow

from flows.parameters import Alias, ModelName
from flows.prepare_data import prepare_corpus, prepare_images
from models.gan.networks import GanConfig
from models.gpt.model import GptConfig
from models.ngram.backoff import NgramConfig
from models.ngram.tuning import TuningConfig
from models.presets import classifier_recipe
from models.training.loops import FitConfig
from models.vae.model import VaeConfig
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import Scheme, TokenSet
from tasks.evaluation.images import evaluate_images
from tasks.evaluation.scorecard import Scorecard
from tasks.evaluation.text import evaluate_tokens
from tasks.maintenance.crash_recovery import label_with_process
from tasks.registry.reproduction import Reproduction, compare_with_record, read_record, scratch_home
from tasks.runtime.messages import one_line
from tasks.runtime.stopping import unless_stopped
from tasks.store.records import DamagedRecord
from tasks.tracking.runs import open_run
from tasks.training.classifier import fit_classifier
from tasks.training.fit_store import TrainedModel
from tasks.training.gan import fit_gan
from tasks.training.gpt import fit_gpt
from tasks.training.ngram import fit_ngram
from tasks.training.provenance import TrainingProvenance
from tasks.training.vae import fit_vae

Config = TypeVar("Config")


@flow(name="reproduce", flow_run_name="{name}@{which}, again", on_running=[label_with_process])
def reproduce(name: ModelName, which: Alias = "champion") -> Reproduction:
    """Train a version again with what its record says, and compare weights and metrics.

    Nothing is registered. On the machine that made it, and with the same code and libraries, the
    weights are identical; where they are not, the comparison says what changed.

    Args:
        name: a registered model.
        which: an alias or a version's number.
    """
    version, recipe = read_record(name, which)
    with open_run(
        f"{name}, again", parameters={"reproduces": f"{name}/{version.version}"}
    ) as run_id:
        if recipe.family in ("vae", "gan"):
            images = unless_stopped(
                prepare_images(recipe.source, recipe.image_size, to_register=False)
            )
            fitted, scorecard = _images_again(recipe, images, run_id)
            return compare_with_record(version, recipe, fitted, scorecard, images)
        scheme: Scheme = "bpe" if recipe.scheme == "bpe" else "characters"
        size = recipe.vocabulary_size
        tokens = unless_stopped(
            prepare_corpus(recipe.source, scheme, size, recipe.glob, to_register=False)
        )
        fitted, scorecard = _tokens_again(recipe, tokens, run_id)
        return compare_with_record(version, recipe, fitted, scorecard, tokens)


def _settings(kind: type[Config], recipe: TrainingProvenance, name: str) -> Config:
    """A configuration as the record has it; raises DamagedRecord for what is none."""
    try:
        return kind(**recipe.settings[name])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRecord(
            f"the record of this {recipe.family} cannot be used, its part {name!r} is damaged:"
            f" {type(error).__name__}: {one_line(error)}"
        ) from error


def _images_again(
    recipe: TrainingProvenance, images: ImageSet, run_id: str
) -> tuple[TrainedModel, Scorecard]:
    shape, num_classes = (images.channels, images.height, images.width), len(images.class_names)
    judge = fit_classifier(images, *classifier_recipe(*shape, num_classes), run_id)
    fit = _settings(FitConfig, recipe, "fit")
    with scratch_home():
        if recipe.family == "vae":
            fitted = fit_vae(images, _settings(VaeConfig, recipe, "config"), fit, run_id)
        else:
            fitted = fit_gan(images, _settings(GanConfig, recipe, "config"), fit, run_id)
        return fitted, evaluate_images(fitted, images, judge, run_id)


def _tokens_again(
    recipe: TrainingProvenance, tokens: TokenSet, run_id: str
) -> tuple[TrainedModel, Scorecard]:
    with scratch_home():
        if recipe.family == "ngram":
            is_tuned = bool(recipe.settings.get("tuning"))
            tuning = _settings(TuningConfig, recipe, "tuning") if is_tuned else None
            config = _settings(NgramConfig, recipe, "config")
            fitted = fit_ngram(tokens, config, tuning, recipe.seed, run_id)
        else:
            shape = _settings(GptConfig, recipe, "config")
            fit = _settings(FitConfig, recipe, "fit")
            fitted = fit_gpt(tokens, shape, fit, run_id)
        return fitted, evaluate_tokens(fitted, tokens, run_id)
