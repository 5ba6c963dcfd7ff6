"""The recipes: what each preset trains, for data of a given shape.

quick is a rehearsal (about ten seconds a model on two CPU cores), standard the default (up to a
minute each on the embedded data), full wants a GPU or patience. docs/experiments.md tells how the
numbers were found.
"""

from typing import Literal

from models.classifier import ClassifierConfig
from models.fitting import FitConfig
from models.gan import GanConfig
from models.gpt import GptConfig
from models.ngram import NgramConfig
from models.vae import VaeConfig

Preset = Literal["quick", "standard", "full"]


def classifier_recipe(
    channels: int, height: int, width: int, num_classes: int
) -> tuple[ClassifierConfig, FitConfig]:
    """The judge of image samples; the same for all presets and seeds, so that numbers compare."""
    is_tiny = max(height, width) <= 12
    config = ClassifierConfig(
        channels=channels,
        height=height,
        width=width,
        num_classes=num_classes,
        base_width=32 if is_tiny else 16,
        augment_shift=1 if is_tiny else 2,
    )
    if is_tiny:
        fit = FitConfig(steps=400, batch_size=64, learning_rate=3e-3, weight_decay=0.05)
    else:
        fit = FitConfig(steps=600, batch_size=128, learning_rate=4e-3, weight_decay=0.05)
    return config, fit


def vae_recipe(
    preset: Preset, channels: int, height: int, width: int, seed: int
) -> tuple[VaeConfig, FitConfig]:
    """A VAE for images of a size."""
    config = VaeConfig(channels=channels, height=height, width=width)
    steps = {"quick": 300, "standard": 2000, "full": 20_000}[preset]
    return config, FitConfig(steps=steps, batch_size=128, learning_rate=2e-3, seed=seed)


def gan_recipe(
    preset: Preset, shape: tuple[int, int, int], num_classes: int, seed: int
) -> tuple[GanConfig, FitConfig]:
    """A class-conditional GAN for images of a shape (channels, height, width)."""
    channels, height, width = shape
    config = GanConfig(channels=channels, height=height, width=width, num_classes=num_classes)
    steps = {"quick": 200, "standard": 1000, "full": 20_000}[preset]
    return config, FitConfig(steps=steps, batch_size=64, learning_rate=5e-4, seed=seed)


def ngram_recipe(preset: Preset) -> NgramConfig:
    """The order of the n-gram model."""
    return NgramConfig(order={"quick": 5, "standard": 7, "full": 7}[preset])


def gpt_recipe(
    preset: Preset, vocabulary_size: int, num_tokens: int, seed: int
) -> tuple[GptConfig, FitConfig]:
    """A GPT for a vocabulary; the context is shortened for texts of few tokens."""
    config = GptConfig(vocabulary_size=vocabulary_size)
    steps = {"quick": 100, "standard": 600, "full": 5000}[preset]
    return config, FitConfig(steps=steps, batch_size=32, learning_rate=5e-3, seed=seed)
