"""What the rest of the project knows of a family of models: one record, data and names alone.

A record is read where nothing may be imported yet (the command line) and where hardly anything may
be (diagnostics), so it names code by `module:attribute` and imports none. No module whose code is
part of a cache key reads the table, or every family's code would be in every key: flows look a
record up and pass on what a step needs (`tests/test_architecture.py` holds this).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Data = Literal["images", "text"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """A short form of one setting, for the command line and forms."""

    setting: str
    """Which one, `group.field`."""
    choices: tuple[str, ...]
    """The first is the recipe's default."""
    text: str
    """What forms and the command line say of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A family of models.

    Its code lies in `models/<name>/`: `serving.py`, which travels inside each version and is found
    by the family's name, and what is named below.
    """

    name: str
    """Of its folder in `models/`; ends the names of its registered models: `<data set>-<name>`."""
    title: str
    """For people: a word or two."""
    data: Data
    """What it learns from."""
    purpose: str
    """One sentence, for cards and pages."""
    limits: str
    """What it cannot do, for cards."""

    recipe: str
    """Its settings: a `models.settings.Recipe`."""
    training: str
    """A class with the interface `models.training.protocol.Training`."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """Settings that forms and the command line show by a name of their own."""
    continued: tuple[str, ...] = ()
    """The modules of its training's state that begin with a version's weights where it continues
    from one, parts after a dot; empty where nothing can be continued."""
    kept_beside: tuple[str, ...] = ()
    """Modules of that state that no version has, and that are kept for who continues from it."""
    not_continued: str = ""
    """Why nothing can be continued, and what to do."""
    loader: str = ""
    """What loads an exported version, of `tasks.packaging.exported`; empty: what its data say."""
    uses_gpu: bool = True
    """Whether it trains on a GPU where there is one; its results then depend on the device."""

    likelihood: str = ""
    """For images: called with (model, pixels, seed), gives a `models.metrics.likelihood.Likelihood`
    whose nats decide. Without one the Frechet distance of the samples does."""
    draws_means: bool = False
    """Whether a sample is the mean of what the model expects there, which is smoother than data."""

    seed_spreads: Mapping[str, tuple[float, int]]
    """By preset: the relative standard deviation of the main metric over seeds, on the embedded
    data, and its degrees of freedom (benchmarks/gate_noise.py). "quick" must be there, and
    stands in for others; a guess has few degrees of freedom, which ask for a wider margin. Empty
    where training knows no chance."""
    luck_level: float = 0.76
    """How often another seed of the recipe stays within the promotion margin; see
    `tasks.registry.promotion_policy`. Raised where real seeds scatter less evenly."""

    curves: tuple[str, ...] = ()
    """Metrics of training that the gallery draws."""
    growth: str = ""
    """Caption of what it drew as training went on."""
    latents: str = ""
    """For images: a class with the interface `tasks.playground.latent_space.Latents`, called with
    the model that a version brought along; empty where no point says what is drawn."""
    explains_tokens: bool = False
    """For text: whether its model tells by `explain(context, token)` how a probability came about,
    order by order."""
    gallery_extras: tuple[str, ...] = ()
    """What the gallery shows besides samples: functions called with (model, seed, keep); see
    `tasks.samples.drawing`."""

    def __post_init__(self) -> None:
        if self.data == "text" and (self.likelihood or self.draws_means):
            raise ValueError(f"{self.name}: likelihood and draws_means are of images, got text")
        if self.latents and self.data == "text":
            raise ValueError(f"{self.name}: latents are of images, got text")
        if self.explains_tokens and self.data == "images":
            raise ValueError(f"{self.name}: explains_tokens is of text, got images")
        if bool(self.continued) == bool(self.not_continued):
            raise ValueError(f"{self.name}: wanted is either continued or not_continued")
        if self.seed_spreads and "quick" not in self.seed_spreads:
            raise ValueError(f"{self.name}: seed_spreads has no 'quick', which others lean on")
