"""How good a model is on the validation split: what a search compares its trials by.

The test split is not read, or what the search found would be judged by what it was chosen on. As on
the test split, text is measured in bits per byte, images in nats where the family has a likelihood,
else by the Frechet distance of samples in the features of the judge.
"""

import math
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch

from models.metrics.classifier import Classifier
from models.metrics.images import frechet_distance
from models.metrics.sample_quality import MAX_IMAGES, bytes_of, evenly_chosen, features_of
from models.metrics.text import bits_per_byte
from tasks.data.ingestion import ImageSet
from tasks.data.splits import load_images, load_tokens
from tasks.data.tokenization import TokenSet
from tasks.evaluation.result import EVALUATION_SEED
from tasks.training.device import on_training_device

MIN_SAMPLES, SAMPLES_PER_IMAGE, MAX_SAMPLES = 2000, 5, 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """What is made as small as possible."""

    name: str
    value: float
    unit: str

    @property
    def fault(self) -> str:
        """Why it cannot be compared, in words; empty where it can."""
        return "" if math.isfinite(self.value) else f"its {self.name} is {self.value}"


def objective_modules(likelihood: str) -> list[str]:
    """Where the code of a measurement begins; likelihood: see `measured_on_validation`."""
    return ["tasks.evaluation.validation", *filter(None, [likelihood.partition(":")[0]])]


def measured_on_validation(
    subject: Any, data: ImageSet | TokenSet, judge: Classifier | None, *, likelihood: str = ""
) -> Objective:
    """Measure a model on the validation split.

    subject: a SampleModel; judge: in whose features samples are compared, where there is no
    likelihood; likelihood: `module:function`, see `tasks.families.family.Family`. Raises ValueError
    for a model of images with neither.
    """
    if isinstance(data, TokenSet):
        return _bits(subject, data)
    pixels, labels = load_images(data, "validation")
    if likelihood:
        found = resolve_name(likelihood)(subject.model, pixels, EVALUATION_SEED)
        return Objective(
            name="validation_nll_nats",
            value=float(found.nats.mean()),
            unit=f"nats per image, {found.unit}",
        )
    if judge is None:
        raise ValueError(f"{data.name}: samples are compared in the features of a judge; got none")
    return _distance(subject, pixels, labels, judge)


def _bits(subject: Any, tokens: TokenSet) -> Objective:
    """The split begins the text: its first token is scored with nothing before it."""
    ids = torch.from_numpy(load_tokens(tokens, "validation").astype(np.int64))
    nats = -subject.model.score(ids).double().sum()
    return Objective(
        name="validation_bits_per_byte",
        value=bits_per_byte(float(nats), tokens.corpus.bytes_validation),
        unit="bits per byte",
    )


def _distance(subject: Any, pixels: np.ndarray, labels: np.ndarray, judge: Classifier) -> Objective:
    number = min(MAX_SAMPLES, max(MIN_SAMPLES, SAMPLES_PER_IMAGE * len(pixels)))
    asked = (
        torch.from_numpy(np.resize(labels, number)) if subject.config.get("num_classes") else None
    )
    with on_training_device(subject.model):
        drawn = bytes_of(subject.draw(number, EVALUATION_SEED, labels=asked))
    chosen = pixels[evenly_chosen(len(pixels), MAX_IMAGES)]
    value = frechet_distance(features_of(judge, chosen), features_of(judge, drawn))
    return Objective(
        name="validation_frechet_distance",
        value=value,
        unit=f"squared distance of {number} samples to {len(chosen)} images",
    )
