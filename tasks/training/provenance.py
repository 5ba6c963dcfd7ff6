"""The record of how a version was made: enough to make it again, and to say what changed since."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tasks.store.files import digest_of
from tasks.store.fingerprint import LIBRARIES, module_digests
from tasks.training.parent import Parent

if TYPE_CHECKING:  # a record is read without PyTorch
    from tasks.data.ingestion import ImageSet
    from tasks.data.tokenization import TokenSet
    from tasks.training.plan import TrainingPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingProvenance:
    """What a model was trained from, with what settings, by what code, where."""

    family: str
    source: str
    """The data's source, as a person names it: `digits`, `file:PATH`, `poems=file:PATH`."""
    image_size: int | None
    """The side to which a person's own images were resized."""
    scheme: str
    """The tokenizer's; empty for images."""
    vocabulary_size: int
    preset: str
    seed: int
    settings: dict[str, dict[str, Any]]
    """The configurations of model and training, by name, in full: presets may change."""
    data_digest: str
    data_size: str
    """How much data, in words."""
    code: dict[str, str]
    """Digests of the modules that trained it, by dotted name."""
    libraries: dict[str, str]
    device: str
    machine: str
    glob: str | None = None
    """The pattern that chose files of a person's folder of text."""
    given: dict[str, Any] = field(default_factory=dict)
    """Of the settings those that a person set, by `group.field`; the rest is the preset's."""
    continues: Parent | None = None
    """The version whose weights it began with, if it did not begin at random."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", by_present_names(self.settings))

    @property
    def code_digest(self) -> str:
        """One digest of all the code that trained it."""
        return digest_of(self.code)

    @property
    def seedless_digest(self) -> str:
        """Equal for trainings that differ by their seed alone."""
        seedless = {
            name: {key: value for key, value in values.items() if key != "seed"}
            for name, values in self.settings.items()
        }
        made_by: list[Any] = [self.code, self.libraries, self.device]
        if self.continues is not None:
            made_by.append([self.continues.digest, self.continues.beside])
        return digest_of([self.family, self.data_digest, seedless, made_by])

    @property
    def filters(self) -> dict[str, str]:
        """What people look for in tables of runs and versions; the name of the data comes beside.

        Tags of both, by name.
        """
        return {
            **{"family": self.family, "preset": self.preset, "seed": str(self.seed)},
            **({"tokenizer": self.scheme} if self.scheme else {}),
            **({"parent": self.continues.address} if self.continues else {}),
        }


_GROUPS_BEFORE = {"config": "model", "fit": "training"}
_FIELDS_BEFORE = {
    "average_fraction": "ema_half_life_fraction",
    "channel_towers": "per_channel_branches",
    "longest_ngram": "max_ngram",
    "most_held_out": "max_held_out",
}
"""What groups and fields were called in records of 0.2.0 and before."""


def by_present_names(settings: Any) -> Any:
    """Settings of a record, whenever it was written; one of another shape as it is."""
    if not isinstance(settings, Mapping):
        return settings
    return {
        _GROUPS_BEFORE.get(group, group): {
            _FIELDS_BEFORE.get(name, name): value for name, value in values.items()
        }
        if isinstance(values, Mapping)
        else values
        for group, values in settings.items()
    }


def provenance_of(
    plan: "TrainingPlan", data: "ImageSet | TokenSet", preset: str
) -> TrainingProvenance:
    """The record of a training that is about to be registered."""
    from tasks.training.device import training_device
    from tasks.training.fit_store import modules_of

    return TrainingProvenance(
        family=plan.family,
        preset=preset,
        seed=plan.seed,
        settings=plan.plain_settings(),
        given=dict(plan.given),
        continues=plan.initial.parent if plan.initial else None,
        data_digest=data.digest,
        code=module_digests(modules_of(plan)),
        libraries={name: version(name) for name in LIBRARIES},
        device=training_device().type if plan.uses_gpu else "cpu",
        machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        **_of_data(data),
    )


def _of_data(data: "ImageSet | TokenSet") -> dict[str, Any]:
    from tasks.data.tokenization import TokenSet

    if isinstance(data, TokenSet):
        corpus = data.corpus
        size = (
            f"{data.num_train:,} / {data.num_validation:,} / {data.num_test:,} tokens"
            f" ({corpus.num_characters:,} characters)"
        )
        return {
            "source": corpus.source,
            "glob": corpus.glob,
            "image_size": None,
            "scheme": data.scheme,
            "vocabulary_size": data.vocabulary_size,
            "data_size": size,
        }
    return {
        "source": data.source,
        "image_size": data.image_size,
        "scheme": "",
        "vocabulary_size": 0,
        "data_size": f"{data.num_train:,} / {data.num_validation:,} / {data.num_test:,} images of"
        f" {data.width}x{data.height}x{data.channels}",
    }
