"""A training that continues from a registered version, on data of its own."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from flows.train import planned
from models.presets import Preset
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.registry.parents import (
    Continued,
    find_parent,
    initial_weights,
    tell_of_classes,
    unless_it_made_it,
)
from tasks.settings.values import Given
from tasks.training.initial_weights import InitialWeights


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """What a training begins with, before its data are read; nothing, where it begins at random."""

    found: Continued | None = None
    weights: InitialWeights | None = None

    @property
    def tokenizer_file(self) -> str | None:
        """The vocabulary in which the text is to be written."""
        return str(self.weights.tokenizer_path) if self.weights else None

    def on(
        self, data: ImageSet | TokenSet, preset: Preset, seed: int, given: Given
    ) -> InitialWeights | None:
        """With what a training on these data begins; an unchanged one with what it began with."""
        if self.found is None or self.weights is None:
            return None
        tell_of_classes(self.weights, data)
        plan = planned(self.found.family, data, preset, seed, given, self.weights)
        return unless_it_made_it(self.found, plan, data)


def beginning(
    continue_from: str | None,
    families: Collection[str],
    given: Given,
    preset: Preset,
    source: dict[str, Any],
) -> Beginning:
    """Find and check the version that is to be continued, if one is, and fetch its weights.

    source: where the data are; see `tasks.registry.parents.find_parent`.
    """
    if continue_from is None:
        return Beginning()
    found = find_parent(continue_from, list(families), given, preset=preset, source=source)
    return Beginning(found=found, weights=initial_weights(found))
