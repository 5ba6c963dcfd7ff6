"""The versions of the model registry, and how they are found.

A version is `pending` until its registration is finished (`tasks.registry.registration`), and left
out by whoever does not ask for those that are being made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from tasks.families.table import FAMILIES
from tasks.registry.verification import MAX_VERSION
from tasks.registry.version_tags import number_tag, record_tag, references_tag, text_tag
from tasks.store.files import BadInput
from tasks.store.names import checked_name, is_name
from tasks.tracking.mlflow_client import client, outages_named, version_url
from tasks.training.parent import Parent
from tasks.training.provenance import TrainingProvenance

CHAMPION, CHALLENGER = "champion", "challenger"

RegisteredVersion: TypeAlias = ModelVersion
"""MLflow's description of a version: its number, tags and run."""


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


def find_version(name: str, digest: str) -> ModelVersion | None:
    """The version of a model that has a content digest, if there is one: of several the first."""
    wanted = f"{_named(name)} and tags.content_digest = '{digest}'"
    found = client().search_model_versions(wanted)
    return min(found, key=lambda version: int(version.version), default=None)


def champion_of(name: str) -> ModelVersion | None:
    """The version that is called champion, if there is one."""
    return named_version(name, CHAMPION)


def champions() -> list[str]:
    """The names of our registered models that have a champion; others' models are left alone."""
    with outages_named():
        return [name for name, aliases in aliases_by_model().items() if CHAMPION in aliases]


def versions_of(name: str) -> list[ModelVersion]:
    """All complete versions of a model, oldest first; those being made are left out."""
    return [version for version in all_versions(name) if version.tags.get("state") == "complete"]


def contents_of(name: str) -> dict[int, str]:
    """The content digest of each version of a model by its number, of those being made too."""
    return {int(v.version): v.tags.get("content_digest", "") for v in all_versions(name)}


def all_versions(name: str) -> list[ModelVersion]:
    """All versions of a model, oldest first, those being made too."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client().search_model_versions(_named(name), page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def every_version() -> list[ModelVersion]:
    """All versions of all models, others' and those being made among them."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client().search_model_versions(page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def aliases_of(name: str) -> set[int]:
    """The numbers of a model's versions that have an alias."""
    return {int(number) for number in client().get_registered_model(name).aliases.values()}


def _named(name: str) -> str:
    """The registry's filter for a model's versions; a checked name holds no quotation mark."""
    return f"name = '{checked_name('model', name)}'"


def get_version(name: str, number: int) -> ModelVersion | None:
    """A complete version of a model, if there is one of that number."""
    if number > MAX_VERSION:
        return None
    try:
        found = client().get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
    return found if found.tags.get("state") == "complete" else None


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
        version=int(found.version),
        alias=which,
        run_id=found.run_id or "",
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
    try:
        return client().get_model_version_by_alias(name, which)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def project_models() -> list[str]:
    """The names of all registered models that this project made.

    One that somebody gave a name that none of ours can have is left out: see `misnamed`.
    """
    return list(aliases_by_model())


def aliases_by_model() -> dict[str, dict[str, int]]:
    """The version's number of each alias of each model that this project made, by name."""
    ours = [model for model in _registered_models() if _is_ours(model)]
    return {
        model.name: {alias: int(number) for alias, number in model.aliases.items()}
        for model in sorted(ours, key=lambda each: each.name)
    }


def misnamed() -> list[str]:
    """The registered models of our families whose names none of ours can have."""
    found = [each for each in _registered_models() if each.tags.get("family") in FAMILIES]
    return sorted(each.name for each in found if not is_name(each.name))


def _is_ours(model: RegisteredModel) -> bool:
    return model.tags.get("family") in FAMILIES and is_name(model.name)


def _registered_models() -> list[RegisteredModel]:
    with outages_named():
        return list(client().search_registered_models(max_results=1000))


def page_of(version: Version) -> str:
    """The version's page in the registry."""
    return version_url(version.name, version.version)


def tags_of(version: ModelVersion) -> Mapping[str, str]:
    """A version's tags."""
    tags: Mapping[str, str] = version.tags
    return tags
