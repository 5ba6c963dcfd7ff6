"""Which versions there are to play with, and which one an address means."""

from dataclasses import dataclass

from tasks.families.family import Data
from tasks.families.table import FAMILIES
from tasks.registry.listing import ListedModel, listed_model, listed_models
from tasks.store.files import BadInput
from tasks.store.names import version_address


@dataclass(frozen=True, slots=True)
class Chosen:
    """A version that is there."""

    name: str
    number: int
    family: str
    data: Data
    aliases: tuple[str, ...]

    @property
    def address(self) -> str:
        """As it stands in a page's address."""
        return f"{self.name}/{self.number}"

    @property
    def words(self) -> str:
        """For people."""
        return " · ".join([self.name, f"version {self.number}", *self.aliases])


def choices(data: Data | None = None) -> list[Chosen]:
    """All versions of models of images, or of text, or of both: champions first, newest first."""
    found = [
        _chosen(model, number)
        for model in listed_models().values()
        for number in model.versions
        if data in (None, FAMILIES[model.family].data)
    ]
    return sorted(found, key=lambda each: ("champion" not in each.aliases, each.name, -each.number))


def chosen(address: str, data: Data | None = None) -> Chosen:
    """The version that MODEL, MODEL@ALIAS or MODEL/N means; raises BadInput.

    data: of which kind it must be.
    """
    name, which = version_address(address)
    model = listed_model(name)
    kind = FAMILIES[model.family].data
    if data not in (None, kind):
        raise BadInput(f"{name} is a model of {kind}, and this page is of {data}")
    return _chosen(model, model.version(which).number)


def _chosen(model: ListedModel, number: int) -> Chosen:
    aliases = tuple(sorted(alias for alias, n in model.aliases.items() if n == number))
    return Chosen(model.name, number, model.family, FAMILIES[model.family].data, aliases)
