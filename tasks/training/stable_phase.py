"""The part of a training that its length does not change: kept, so that a longer one goes on there.

With the schedule "wsd" the learning rate is held until a decay at the end. What comes before
the decay is the same for every number of steps, so its last state is an artifact of its own, under
a key without the steps: 500 steps and then 1000 give the same bits as 1000 at once.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.training.config import FitConfig
from tasks.store.artifacts import Artifact, artifacts, get_or_create, verify
from tasks.store.files import atomic_file, digest_of

CHECKPOINT = "state.safetensors"
WITHOUT_EFFECT = ("steps", "decay_fraction", "final_learning_rate_fraction")
"""Settings of a training that change nothing before its decay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StablePhase:
    """The steps of one training that are common to all lengths."""

    name: str
    parts: dict[str, Any]
    """What these steps depend on."""
    inputs: tuple[str, ...]
    end: int
    """How many they are."""

    @property
    def key(self) -> str:
        """Equal for trainings that begin alike."""
        return digest_of(self.parts)

    def latest(self) -> tuple[int, Path] | None:
        """The furthest state that was kept and that this training passes: its step, its file."""
        kept = (each for each in artifacts("stable-phases") if self._is_passed(each))
        for found in sorted(kept, key=_step_of, reverse=True):
            try:
                verify(found.folder)
            except (OSError, ValueError):  # damaged: an earlier one, or none
                continue
            return _step_of(found), found.folder / CHECKPOINT
        return None

    def keep(self, checkpoint: Path) -> None:
        """Keep the state of the last of these steps; one that is there already stays."""

        def copy(folder: Path) -> dict[str, Any]:
            with atomic_file(folder / CHECKPOINT) as temporary:
                shutil.copyfile(checkpoint, temporary)
            return {"phase": self.key, "step": self.end}

        parts = {**self.parts, "step": self.end}
        get_or_create("stable-phases", self.name, parts, copy, inputs=self.inputs)

    def _is_passed(self, artifact: Artifact) -> bool:
        return artifact.record.get("phase") == self.key and 0 < _step_of(artifact) <= self.end


def stable_phase_of(
    name: str, parts: Mapping[str, Any], training: Any, inputs: Sequence[str]
) -> StablePhase | None:
    """What a training shares with longer ones; None where its schedule depends on its length.

    parts: of the fit's cache key; training: its `FitConfig`, if it has one.
    """
    if not isinstance(training, FitConfig) or training.schedule != "wsd":
        return None
    settings = dict(parts["settings"])
    kept = {k: v for k, v in settings["training"].items() if k not in WITHOUT_EFFECT}
    return StablePhase(
        name=name,
        parts={**parts, "settings": {**settings, "training": kept}},
        inputs=tuple(inputs),
        end=training.decay_start,
    )


def _step_of(artifact: Artifact) -> int:
    step = artifact.record.get("step")
    return step if isinstance(step, int) else 0
