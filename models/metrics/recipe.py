"""How the classifier is trained in whose features image samples are compared."""

from dataclasses import replace
from typing import Any

from models.metrics.classifier import ClassifierConfig
from models.presets import ImageShape
from models.training.config import FitConfig


def classifier_recipe(shape: ImageShape) -> dict[str, Any]:
    """The judge of image samples; the same for all presets and seeds, so that numbers compare.

    Pictures without labels it learns to tell apart one by one.
    """
    is_tiny, is_labelled = shape.side <= 12, shape.num_classes > 0
    config = ClassifierConfig(
        channels=shape.channels,
        height=shape.height,
        width=shape.width,
        num_classes=shape.num_classes,
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
    return {"model": config, "training": fit}


def plain_classifier_recipe(shape: ImageShape) -> dict[str, Any]:
    """A classifier that learns classes alone, as published comparisons are judged by one."""
    recipe = classifier_recipe(shape)
    return {
        "model": replace(recipe["model"], augment_light=0.0, damage_weight=0.0),
        "training": replace(recipe["training"], batch_size=64 if shape.side <= 12 else 128),
    }
