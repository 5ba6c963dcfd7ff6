"""What is in the cache key of each step: the code that changes its result, and nothing else."""

import pytest

from tasks.families.table import FAMILIES
from tasks.samples.drawing import modules
from tasks.store.files import project_root
from tasks.store.fingerprint import import_closure

SHARED = {
    *{"models.settings", "models.training.device", "models.training.protocol", "tasks.data.splits"},
    *{"tasks.training.device", "tasks.training.examples", "tasks.training.fit"},
}
LOOP = SHARED | {
    *{"models.training.batches", "models.training.captured", "models.training.checkpoint"},
    *{"models.training.config", "models.training.loops", "models.training.sharding"},
    *{"models.training.stored_data", "models.memory_maps"},
}
VALIDATED = LOOP | {"models.training.validated"}
LOOPS = {
    **{"vae": VALIDATED, "gpt": VALIDATED, "diffusion": LOOP},
    "gan": LOOP | {"models.training.adversarial"},
    "ngram": SHARED,  # it counts: no loop is in its key
}
FITS = {
    "vae": {"config", "densities", "elbo", "latent_mixture", "model", "training"},
    "gan": {"config", "model", "networks", "stability", "training"},
    "diffusion": {"augmentation", "config", "model", "networks", "sampling", "training"},
    "ngram": {
        *{
            "backoff",
            "config",
            "counting",
            "external_sort",
            "keys",
            "model",
            "smoothing",
            "training",
        },
        "tuning",
    },
    "gpt": {"config", "model", "muon", "training"},
}
BESIDE = {
    "gan": {"models.image_grids", "models.metrics.images"},  # the monitor measures distances
    "diffusion": {"models.image_grids"},
    "ngram": {"models.memory_maps"},  # texts and tables may be larger than memory
}

CLASSIFIER = {
    *{"models.metrics.classifier", "models.metrics.contrastive", "models.metrics.corruptions"},
    *{"models.settings", "models.training.config"},
}
IMAGE_EVALUATION = CLASSIFIER | {
    *{"models.metrics.baselines", "models.metrics.bootstrap", "models.metrics.classes"},
    *{"models.metrics.images", "models.metrics.likelihood", "models.metrics.sample_quality"},
    *{"models.metrics.seed_variance", "tasks.evaluation.image_metrics"},
    *{
        "models.memory_maps",
        "models.training.device",
        "tasks.data.splits",
        "tasks.evaluation.result",
    },
    *{"tasks.plots", "tasks.training.device"},
}
VAE_LIKELIHOOD = {
    *{"models.training.batches", "models.vae.config"},
    *{"models.vae.densities", "models.vae.elbo", "models.vae.evaluation", "models.vae.model"},
}
TEXT_EVALUATION = {
    *{"models.metrics.bootstrap", "models.metrics.text", "models.text.decoding"},
    *{"models.text.tokenizer", "models.training.batches", "tasks.evaluation.result"},
    *{"tasks.data.splits", "tasks.evaluation.text_metrics"},
}
DRAWING = {"tasks.plots", "tasks.samples.drawing"}
DRAWN_BESIDES = {
    "vae": {"tasks.samples.latent_space"},
    "ngram": {
        *{"models.text.decoding", "models.text.tokenizer", "models.training.batches"},
        "tasks.samples.token_attribution",
    },
}


def in_key(*starts: str) -> set[str]:
    """The modules in the key of a step whose code begins in some modules; empty ones left out."""
    closure = import_closure(list(starts), project_root())
    return {name for name in closure if not is_package(name)}


def is_package(name: str) -> bool:
    return project_root().joinpath(*name.split(".")).is_dir()


def test_no_family_is_left_out() -> None:
    assert set(FITS) == set(LOOPS) == set(FAMILIES)


@pytest.mark.parametrize("family", FITS)
def test_a_fit_has_its_familys_code_and_its_loop_in_its_key(family: str) -> None:
    start = FAMILIES[family].training.partition(":")[0]
    own = {f"models.{family}.{name}" for name in FITS[family]}

    assert in_key(start, "tasks.training.fit") == own | LOOPS[family] | BESIDE.get(family, set())


def test_what_a_continued_fit_begins_with_adds_what_loads_it_alone() -> None:
    added = in_key("tasks.training.initial_weights") - {"tasks.training.initial_weights"}

    assert added == {"tasks.training.parent"}


def test_the_classifier_has_no_generative_model_in_its_key() -> None:
    start = "models.metrics.classifier_training"

    assert in_key(start, "tasks.training.fit") == CLASSIFIER | VALIDATED | {start}


def test_an_evaluation_has_what_measures_and_draws_figures_in_its_key() -> None:
    likelihood = FAMILIES["vae"].likelihood.partition(":")[0]

    assert in_key("tasks.evaluation.image_metrics") == IMAGE_EVALUATION
    assert in_key("tasks.evaluation.image_metrics", likelihood) == IMAGE_EVALUATION | VAE_LIKELIHOOD
    assert in_key("tasks.evaluation.text_metrics") == TEXT_EVALUATION


@pytest.mark.parametrize("family", FITS)
def test_samples_have_what_draws_in_their_key_and_neither_registry_nor_page(family: str) -> None:
    found = in_key(*modules(FAMILIES[family].gallery_extras))

    assert found == DRAWING | DRAWN_BESIDES.get(family, set())


def test_tokens_have_the_tokenizer_alone_in_their_key() -> None:
    assert in_key("models.text.tokenizer") == {"models.text.tokenizer"}
