"""One model on demand, as Prefect deployments: each form asks what that family needs."""

from prefect import flow

from flows.device_slot import final_state, training_slot
from flows.image_models import train_gan, train_vae
from flows.parameters import Glob, ImageSide, ImageSource, Seed, TextSource, run_name
from flows.prepare_data import prepare_corpus, prepare_images
from flows.token_models import train_gpt, train_ngram
from models.gan.networks import GanLoss
from models.presets import Preset
from tasks.data.tokenization import Scheme
from tasks.maintenance.crash_recovery import label_with_process
from tasks.registry.versions import Version


@flow(
    name="retrain-vae",
    flow_run_name=run_name("{images}-vae, {preset}, seed {seed}"),
    on_running=[label_with_process],
)
def retrain_vae(
    *,
    images: ImageSource = "digits",
    preset: Preset = "standard",
    seed: Seed = 0,
    image_size: ImageSide | None = None,
    rehash: bool = False,
) -> Version:
    """Train, judge and register the variational auto-encoder.

    Args:
        images: digits, mnist, fashion-mnist, cifar10, or folder:PATH (its sub-folders are classes);
            NAME=folder:PATH gives the data set a name of your own.
        preset: how much work: quick, standard or full.
        seed: 0 to 2147483647; the same seed gives the same weights on the same machine.
        image_size: side in pixels, 8 to 64, to which your own images are cropped and resized.
        rehash: read your own files again even if their names, sizes and times are unchanged.
    """
    with training_slot():
        version = train_vae(prepare_images(images, image_size, rehash), preset, seed)
    return final_state(version, [version])


@flow(
    name="retrain-gan",
    flow_run_name=run_name("{images}-gan, {preset}, seed {seed}"),
    on_running=[label_with_process],
)
def retrain_gan(
    *,
    images: ImageSource = "digits",
    preset: Preset = "standard",
    seed: Seed = 0,
    image_size: ImageSide | None = None,
    gan_loss: GanLoss = "relativistic",
    rehash: bool = False,
) -> Version:
    """Train, judge and register the generative adversarial network.

    Args:
        images: digits, mnist, fashion-mnist, cifar10, or folder:PATH (its sub-folders are classes);
            NAME=folder:PATH gives the data set a name of your own.
        preset: how much work: quick, standard or full.
        seed: 0 to 2147483647; the same seed gives the same weights on the same machine.
        image_size: side in pixels, 8 to 64, to which your own images are cropped and resized.
        gan_loss: relativistic with R1 and R2, hinge with spectral norm, or wasserstein (WGAN-GP).
        rehash: read your own files again even if their names, sizes and times are unchanged.
    """
    with training_slot():
        version = train_gan(
            prepare_images(images, image_size, rehash), preset, seed, None, gan_loss
        )
    return final_state(version, [version])


@flow(
    name="retrain-ngram",
    flow_run_name=run_name("{text}-ngram, {preset}"),
    on_running=[label_with_process],
)
def retrain_ngram(
    *,
    text: TextSource = "pydocs",
    preset: Preset = "standard",
    seed: Seed = 0,
    tokenizer: Scheme = "characters",
    glob: Glob | None = None,
    rehash: bool = False,
) -> Version:
    """Count, judge and register the n-gram model.

    Args:
        text: pydocs, tinyshakespeare, file:PATH or folder:PATH; NAME=file:PATH gives the data set a
            name of your own.
        preset: how much work: quick, standard or full.
        seed: 0 to 2147483647; seeds the sampled examples, counting itself is not random.
        tokenizer: one token per character, or byte-level BPE.
        glob: which files of your own folder of text are read, such as *.py; none: all text.
        rehash: read your own files again even if their names, sizes and times are unchanged.
    """
    with training_slot():
        tokens = prepare_corpus(text, tokenizer, glob=glob, rehash=rehash)
        version = train_ngram(tokens, preset, seed)
    return final_state(version, [version])


@flow(
    name="retrain-gpt",
    flow_run_name=run_name("{text}-gpt, {preset}, seed {seed}"),
    on_running=[label_with_process],
)
def retrain_gpt(
    *,
    text: TextSource = "pydocs",
    preset: Preset = "standard",
    seed: Seed = 0,
    tokenizer: Scheme = "characters",
    glob: Glob | None = None,
    rehash: bool = False,
) -> Version:
    """Train, judge and register the GPT.

    Args:
        text: pydocs, tinyshakespeare, file:PATH or folder:PATH; NAME=file:PATH gives the data set a
            name of your own.
        preset: how much work: quick, standard or full.
        seed: 0 to 2147483647; the same seed gives the same weights on the same machine.
        tokenizer: one token per character, or byte-level BPE.
        glob: which files of your own folder of text are read, such as *.py; none: all text.
        rehash: read your own files again even if their names, sizes and times are unchanged.
    """
    with training_slot():
        tokens = prepare_corpus(text, tokenizer, glob=glob, rehash=rehash)
        version = train_gpt(tokens, preset, seed)
    return final_state(version, [version])
