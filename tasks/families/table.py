"""The table of families, in the order in which a run trains them."""

from collections.abc import Collection

from tasks.families.diffusion import DIFFUSION
from tasks.families.family import Data, Family, Option
from tasks.families.gan import GAN
from tasks.families.gpt import GPT
from tasks.families.ngram import NGRAM
from tasks.families.vae import VAE

FAMILIES: dict[str, Family] = {family.name: family for family in (VAE, GAN, DIFFUSION, NGRAM, GPT)}


def names() -> tuple[str, ...]:
    """The names of all families."""
    return tuple(FAMILIES)


def of_data(data: Data, among: Collection[str] | None = None) -> tuple[Family, ...]:
    """The families that learn from images, or from text; among: only those of these names."""
    return tuple(
        family
        for family in FAMILIES.values()
        if family.data == data and (among is None or family.name in among)
    )


def options_of_families() -> dict[str, Option]:
    """The options of all families, by name."""
    return {name: each for family in FAMILIES.values() for name, each in family.options.items()}


def purpose_of(name: str) -> str:
    """What a family is, for pages; nothing for one that this program does not know."""
    return FAMILIES[name].purpose if name in FAMILIES else ""
