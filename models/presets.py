"""The recipes: what each preset trains, for data of a given shape.

quick is a rehearsal (about ten seconds a model on two CPU cores), standard the default (up to a
minute each on the embedded data), full wants a GPU or patience. docs/experiments.md tells how the
numbers were found.
"""

from dataclasses import replace
from typing import Any, Literal

from models.gan.networks import GanConfig, GanLoss
from models.gpt.model import GptConfig
from models.metrics.classifier import ClassifierConfig
from models.ngram.backoff import NgramConfig
from models.ngram.tuning import TuningConfig
from models.training.loops import FitConfig
from models.vae.model import VaeConfig

Preset = Literal["quick", "standard", "full"]


def classifier_recipe(
    channels: int, height: int, width: int, num_classes: int
) -> tuple[ClassifierConfig, FitConfig]:
    """The judge of image samples; the same for all presets and seeds, so that numbers compare.

    num_classes: 0 for pictures without labels, which it then learns to tell apart one by one.
    """
    is_tiny, is_labelled = max(height, width) <= 12, num_classes > 0
    config = ClassifierConfig(
        channels=channels,
        height=height,
        width=width,
        num_classes=num_classes,
        base_width=32 if is_tiny else 16,
        augment_shift=1 if is_tiny else 2,
        augment_probability=0.5 if is_labelled else 1.0,
        augment_light=0.2,
        augment_zoom=1.0 if is_labelled else 1.2,
        damage_weight=1.0,
        contrast_weight=0.0 if is_labelled else 1.0,
    )
    if is_tiny:
        fit = FitConfig(steps=400, batch_size=64, learning_rate=3e-3, weight_decay=0.05)
    else:
        size = 96 if is_labelled else 64  # two views of each picture and a damaged half
        fit = FitConfig(steps=600, batch_size=size, learning_rate=4e-3, weight_decay=0.05)
    return config, fit


def plain_classifier_recipe(
    channels: int, height: int, width: int, num_classes: int
) -> tuple[ClassifierConfig, FitConfig]:
    """A classifier that learns classes alone, as published comparisons are judged by one."""
    config, fit = classifier_recipe(channels, height, width, num_classes)
    config = replace(config, augment_light=0.0, damage_weight=0.0)
    return config, replace(fit, batch_size=64 if max(height, width) <= 12 else 128)


def vae_recipe(
    preset: Preset, channels: int, height: int, width: int, seed: int
) -> tuple[VaeConfig, FitConfig]:
    """A VAE for images of a size: Bernoulli pixels for grey images, 256 levels for colour."""
    shape: dict[str, Any] = {"channels": channels, "height": height, "width": width}
    shape["likelihood"] = "bernoulli" if channels == 1 else "logistic"
    if max(height, width) <= 16:
        sizes: dict[str, Any] = {"latent_size": 12, "base_width": 32}
        steps, kl_warmup, clip = {"quick": 400, "standard": 2000, "full": 6000}[preset], 300, 100
    elif preset == "full":
        sizes = {"latent_size": 32, "base_width": 32, "hidden_size": 512}
        steps, kl_warmup, clip = 40_000, 1000, 200
    else:
        sizes = {"latent_size": 20, "base_width": 16}
        steps, kl_warmup, clip = {"quick": 500, "standard": 2600}[preset], 1000, 200
    config = VaeConfig(
        **shape,
        **sizes,
        num_residual_blocks=0 if preset == "quick" else 1,
        kl_warmup_steps=min(kl_warmup, steps // 4),
    )
    fit = FitConfig(
        steps=steps,
        batch_size=64,
        learning_rate=4e-3,
        warmup_steps=min(200, steps // 8),
        gradient_clip=clip,  # losses are sums over pixels, and so are their gradients
        seed=seed,
    )
    return config, fit


def gan_recipe(
    preset: Preset,
    shape: tuple[int, int, int],
    num_classes: int,
    seed: int,
    loss: GanLoss = "relativistic",
) -> tuple[GanConfig, FitConfig]:
    """A class-conditional GAN for images of a shape (channels, height, width).

    Without classes, num_classes 0, it is an unconditional one, and no class is asked of it.
    Sizes and rates were found for the relativistic loss; the others share them.
    """
    channels, height, width = shape
    sizes: dict[str, Any] = {"channels": channels, "height": height, "width": width}
    if max(height, width) <= 16:
        config = GanConfig(
            **sizes,
            num_classes=num_classes,
            penalty=1.0,
            class_weight=0.1 if num_classes else 0.0,
            sampling_spread=1.08,
        )
        steps = {"quick": 600, "standard": 3000, "full": 5000}[preset]
        batch_size = 96
    else:
        config = GanConfig(
            **sizes,
            num_classes=num_classes,
            patch_size=4,
            base_width=64,
            blocks_per_stage=1,
            dense_blocks=2,
            dense_width=256,
            latent_size=64,
            penalty=10.0,
        )
        steps = {"quick": 100, "standard": 1200, "full": 20_000}[preset]
        batch_size = 64
    if loss != "relativistic":
        config = replace(config, loss=loss, penalty=10.0)  # of WGAN-GP; the hinge loss has none
    fit = FitConfig(
        steps=steps,
        batch_size=32 if preset == "quick" else batch_size,
        learning_rate=1e-3,
        warmup_steps=20,
        gradient_clip=100.0,  # the penalties keep gradients in bounds; this only stops a blow-up
        seed=seed,
    )
    return config, fit


def ngram_recipe(preset: Preset, scheme: str) -> tuple[NgramConfig, TuningConfig]:
    """The n-gram model for tokens of a scheme, "characters" or "bpe", and how to tune it."""
    if scheme == "bpe":
        order = {"quick": 5, "standard": 7, "full": 7}[preset]
    else:
        order = {"quick": 9, "standard": 10, "full": 12}[preset]
    tuning = {
        "quick": TuningConfig(most_held_out=30_000, num_iterations=30),
        "standard": TuningConfig(most_held_out=50_000, num_iterations=60),
        "full": TuningConfig(most_held_out=100_000, num_iterations=100),
    }[preset]
    return NgramConfig(order=order), tuning


def gpt_recipe(
    preset: Preset, vocabulary_size: int, num_tokens: int, seed: int
) -> tuple[GptConfig, FitConfig]:
    """A GPT for a vocabulary, and for a training text of a number of tokens."""
    if preset == "full":
        config = GptConfig(
            vocabulary_size=vocabulary_size,
            context_length=min(256, num_tokens // 4),
            num_layers=6,
            num_heads=6,
            width=384,
            dropout=0.3,
            ngram_dropout=0.5,
            embedding_rate=0.3,
        )
        fit = FitConfig(
            steps=1400, batch_size=64, learning_rate=0.01, warmup_steps=100, weight_decay=0.1
        )
    else:
        config = GptConfig(
            vocabulary_size=vocabulary_size,
            context_length=min(128, num_tokens // 4),
            ngram_dropout=0.5,
        )
        steps, warmup = {"quick": (60, 10), "standard": (450, 20)}[preset]
        fit = FitConfig(steps=steps, batch_size=16, learning_rate=0.02, warmup_steps=warmup)
    return config, replace(fit, final_learning_rate_fraction=0.0, seed=seed)
