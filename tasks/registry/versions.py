"""The versions of the model registry, and how they are found.

A version is `pending` until its registration is finished (`tasks.registry.registration`), and left
out by whoever does not ask for those that are being made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.families.table import FAMILIES
from tasks.registry.version_tags import number_tag, record_tag, references_tag, text_tag
from tasks.store.files import BadInput
from tasks.store.names import checked_name, is_name
from tasks.tracking import registry_queries
from tasks.tracking.home_database import RegisteredVersion, StoredModel, asked
from tasks.tracking.mlflow_client import client, outages_named, version_url
from tasks.training.parent import Parent
from tasks.training.provenance import TrainingProvenance

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """Receipt of a registered version."""

    name: str
    version: int
    alias: str
    run_id: str
    """The MLflow run that trained it."""
    digest: str
    main_metric: str
    main_value: float
    seconds: float
    """Wall time of its training."""
    is_new: bool
    """Whether this run added the version, rather than finding it."""
    references: dict[str, float] = field(default_factory=dict)
    """See `tasks.evaluation.result.references`."""
    continues: Parent | None = None
    """The version whose weights its training began with."""


def find_version(name: str, digest: str) -> RegisteredVersion | None:
    """The version of a model that has a content digest, if there is one: of several the first."""
    named = _named(name)

    def by_client() -> list[RegisteredVersion]:
        wanted = f"{named} and tags.content_digest = '{digest}'"
        return [
            registry_queries.stored_version(each) for each in client().search_model_versions(wanted)
        ]

    found = asked(lambda tables: tables.versions_with(name, "content_digest", digest), by_client)
    return min(found, key=lambda version: version.version, default=None)


def champion_of(name: str) -> RegisteredVersion | None:
    """The version that is called champion, if there is one."""
    return named_version(name, CHAMPION)


def champions() -> list[str]:
    """The names of our registered models that have a champion; others' models are left alone."""
    with outages_named():
        return [name for name, aliases in aliases_by_model().items() if CHAMPION in aliases]


def versions_of(name: str) -> list[RegisteredVersion]:
    """All complete versions of a model, oldest first; those being made are left out."""
    return [version for version in all_versions(name) if version.tags.get("state") == "complete"]


def contents_of(name: str) -> dict[int, str]:
    """The content digest of each version of a model by its number, of those being made too."""
    return {v.version: v.tags.get("content_digest", "") for v in all_versions(name)}


def all_versions(name: str) -> list[RegisteredVersion]:
    """All versions of a model, oldest first, those being made too."""
    found = registry_queries.versions(checked_name("model", name))
    return sorted(found, key=lambda version: version.version)


def every_version() -> list[RegisteredVersion]:
    """All versions of all models, others' and those being made among them."""
    return registry_queries.versions()


def aliases_of(name: str) -> set[int]:
    """The numbers of a model's versions that have an alias; none where there is no such model."""
    found = registry_queries.model(checked_name("model", name))
    return set() if found is None else set(found.aliases.values())


def _named(name: str) -> str:
    """The registry's filter for a model's versions; a checked name holds no quotation mark."""
    return f"name = '{checked_name('model', name)}'"


def get_version(name: str, number: int) -> RegisteredVersion | None:
    """A complete version of a model, if there is one of that number."""
    found = registry_queries.version_of_number(name, number)
    return found if found is not None and found.tags.get("state") == "complete" else None


def recorded(name: str, which: str) -> tuple[Version, TrainingProvenance | None]:
    """A version by its alias or number, and the record of how it was made, if it has one.

    Raises BadInput for what is not there.
    """
    with outages_named():
        found = named_version(name, which)
    if found is None:
        with outages_named():
            numbers = ", ".join(str(each.version) for each in versions_of(name)) or "none"
        raise BadInput(f"{name} has no version {which!r}; there are: {numbers}")
    version = Version(
        name=name,
        version=found.version,
        alias=which,
        run_id=found.run_id,
        digest=text_tag(found, "content_digest"),
        main_metric=text_tag(found, "main_metric"),
        main_value=number_tag(found, "main_value"),
        seconds=0.0,
        is_new=False,
        references=references_tag(found),
    )
    return version, record_tag(
        found, "recipe", TrainingProvenance
    ) if "recipe" in found.tags else None


def named_version(name: str, which: str) -> RegisteredVersion | None:
    """A version of a model by its alias or number, if there is one."""
    checked_name("model", name)
    if checked_name("alias", which).isdecimal():
        return get_version(name, int(which))
    return registry_queries.version_of_alias(name, which)


def project_models() -> list[str]:
    """The names of all registered models that this project made.

    One that somebody gave a name that none of ours can have is left out: see `misnamed`.
    """
    return list(aliases_by_model())


def aliases_by_model() -> dict[str, dict[str, int]]:
    """The version's number of each alias of each model that this project made, by name."""
    ours = [model for model in _registered_models() if _is_ours(model)]
    return {model.name: model.aliases for model in sorted(ours, key=lambda each: each.name)}


def misnamed() -> list[str]:
    """The registered models of our families whose names none of ours can have."""
    found = [each for each in _registered_models() if each.tags.get("family") in FAMILIES]
    return sorted(each.name for each in found if not is_name(each.name))


def _is_ours(model: StoredModel) -> bool:
    return model.tags.get("family") in FAMILIES and is_name(model.name)


def _registered_models() -> list[StoredModel]:
    with outages_named():
        return registry_queries.models()


def page_of(version: Version) -> str:
    """The version's page in the registry."""
    return version_url(version.name, version.version)


def tags_of(version: RegisteredVersion) -> Mapping[str, str]:
    """A version's tags."""
    tags: Mapping[str, str] = version.tags
    return tags
