"""Everything, in order: data, four models, their judges, the registry, the gallery."""

from dataclasses import dataclass
from typing import Literal

from models.recipes import Preset
from prefect import flow

from flows.image_models import train_gan, train_vae
from flows.prepare_data import prepare_corpus, prepare_images
from flows.sample_gallery import sample_gallery
from flows.token_models import train_gpt, train_ngram
from tasks.registration import Version
from tasks.tokenization import Scheme
from tasks.tracking import open_run

Family = Literal["vae", "gan", "ngram", "gpt"]
IMAGE_FAMILIES = {"vae": train_vae, "gan": train_gan}
TOKEN_FAMILIES = {"ngram": train_ngram, "gpt": train_gpt}
FAMILIES: tuple[Family, ...] = ("vae", "gan", "ngram", "gpt")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a full run registered, and where its gallery is."""

    versions: tuple[Version, ...]
    gallery: str


@flow(name="full-run", flow_run_name="{images} and {text}, {preset}, seed {seed}")
def full_run(
    *,
    images: str = "digits",
    text: str = "pydocs",
    models: tuple[Family, ...] = FAMILIES,
    preset: Preset = "standard",
    seed: int = 0,
    image_size: int | None = None,
    tokenizer: Scheme = "characters",
) -> RunSummary:
    """Train, judge and register the chosen models, then publish samples of the champions.

    Args:
        images: digits, mnist, fashion-mnist, cifar10, or folder:PATH with a sub-folder per class.
        text: pydocs, tinyshakespeare, file:PATH or folder:PATH.
        models: which of the four families to train.
        preset: how much work: quick, standard or full.
        seed: 0 to 2147483647; the same seed gives the same weights on the same machine.
        image_size: side in pixels to which your own images are cropped and resized.
        tokenizer: one token per character, or byte-level BPE.
    """
    image_trainers = [train for family, train in IMAGE_FAMILIES.items() if family in models]
    token_trainers = [train for family, train in TOKEN_FAMILIES.items() if family in models]
    versions: list[Version] = []
    with open_run(f"{images} and {text}", parameters={"preset": preset, "seed": seed}) as run_id:
        # All data first: bad input must stop the run before anything is trained or registered.
        image_set = prepare_images(images, image_size) if image_trainers else None
        token_set = prepare_corpus(text, tokenizer) if token_trainers else None
        if image_set is not None:
            versions += [train(image_set, preset, seed, run_id) for train in image_trainers]
        if token_set is not None:
            versions += [train(token_set, preset, seed, run_id) for train in token_trainers]
        gallery = sample_gallery([version.name for version in versions], seed, run_id)
    return RunSummary(versions=tuple(versions), gallery=gallery)
