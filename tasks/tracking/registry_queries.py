"""What the model registry is asked: of this home's database where it is at hand, else of MLflow.

Only questions stand here; what changes the registry goes through MLflow's client. None of them asks
for a name's form: others' models may be called anything.
"""

from typing import Any

from tasks.tracking.home_database import RegisteredVersion, StoredModel, asked
from tasks.tracking.mlflow_client import client, code_of, is_unknown

MAX_VERSION = 2**31 - 1
"""The registry's database knows no larger number."""
_LATEST = "latest"
"""The alias that MLflow gives to a version by itself: no table has it."""


def models() -> list[StoredModel]:
    """All registered models, others' too."""

    def by_client() -> list[StoredModel]:
        return [_stored_model(each) for each in client().search_registered_models(max_results=1000)]

    return asked(lambda tables: tables.models(), by_client)


def model(name: str) -> StoredModel | None:
    """A registered model, if there is one of a name."""

    def by_client() -> StoredModel | None:
        try:
            return _stored_model(client().get_registered_model(name))
        except Exception as error:
            if code_of(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    return asked(lambda tables: next(iter(tables.models(name)), None), by_client)


def versions(name: str | None = None) -> list[RegisteredVersion]:
    """All versions of a model, or of all models, those being made among them."""

    def by_client() -> list[RegisteredVersion]:
        wanted = None if name is None else f"name = '{name}'"
        found: list[RegisteredVersion] = []
        token = None
        while True:
            page = client().search_model_versions(wanted, page_token=token)
            found += map(stored_version, page)
            token = page.token
            if not token:
                return found

    return asked(lambda tables: list(tables.versions(name)), by_client)


def version_of_number(name: str, number: int) -> RegisteredVersion | None:
    """A version of a model, be it in the making, if there is one of a number."""
    if number > MAX_VERSION:
        return None

    def by_client() -> RegisteredVersion | None:
        try:
            return stored_version(client().get_model_version(name, str(number)))
        except Exception as error:
            if not is_unknown(error):
                raise
            return None

    return asked(lambda tables: next(iter(tables.versions(name, number)), None), by_client)


def version_of_alias(name: str, alias: str) -> RegisteredVersion | None:
    """The version of a model that has an alias, if there is one."""

    def by_client() -> RegisteredVersion | None:
        try:
            return stored_version(client().get_model_version_by_alias(name, alias))
        except Exception as error:
            if not is_unknown(error):
                raise
            return None

    if alias.lower() == _LATEST:
        return by_client()
    return asked(lambda tables: tables.version_called(name, alias), by_client)


def stored_version(told: Any) -> RegisteredVersion:
    """What MLflow's client tells of a version, as its database does: servers tell numbers as text.

    One question may be answered by the database and the next by the client, and versions are
    compared by their numbers.
    """
    return RegisteredVersion(
        name=told.name,
        version=int(told.version),
        source=told.source or "",
        run_id=told.run_id or "",
        description=told.description or "",
        creation_timestamp=told.creation_timestamp or 0,
        tags=dict(told.tags),
    )


def _stored_model(told: Any) -> StoredModel:
    """What MLflow's client tells of a model, as its database does."""
    return StoredModel(
        name=told.name,
        tags=dict(told.tags),
        aliases={alias: int(number) for alias, number in told.aliases.items()},
    )
