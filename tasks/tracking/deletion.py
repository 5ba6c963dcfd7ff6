"""How things leave MLflow: with their files, and from its database where that is at hand.

MLflow's own deletion marks a row and leaves its files. Whoever runs a server of their own empties
its trash with `mlflow gc`; where the database is this home's, or $MLFLOW_BACKEND_STORE_URI names
it, rows go for good. What a person threw into MLflow's trash stays there.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from tasks.runtime.progress import log
from tasks.store.files import home, sqlite_address
from tasks.tracking.mlflow_client import client, code_of, outages_named

_GONE = "RESOURCE_DOES_NOT_EXIST"


def remove_version(name: str, number: int) -> None:
    """Take a version out of the registry; its package stays until `remove_packages`."""
    with outages_named():
        try:
            for tag in client().get_model_version(name, str(number)).tags:
                client().delete_model_version_tag(name, str(number), tag)  # MLflow would keep it
            client().delete_model_version(name, str(number))
        except Exception as error:
            if code_of(error) != _GONE:
                raise


def remove_packages(model_ids: Iterable[str]) -> int:
    """Remove logged models with their files; returns how many there were."""
    removed = []
    with outages_named():
        for model_id in model_ids:
            try:
                package = client().get_logged_model(model_id)
                _remove_files(package.artifact_location)
                client().delete_logged_model(model_id)
            except Exception as error:
                if code_of(error) != _GONE:
                    raise
                continue
            removed.append(model_id)
    _forget("_hard_delete_logged_model", removed)
    return len(removed)


def remove_runs(run_ids: Iterable[str]) -> int:
    """Remove runs with their files; returns how many there were."""
    removed = []
    with outages_named():
        for run_id in run_ids:
            try:
                address = client().get_run(run_id).info.artifact_uri
                if address:
                    _remove_files(address)
                client().delete_run(run_id)
            except Exception as error:
                if code_of(error) != _GONE:
                    raise
                continue
            removed.append(run_id)
    _forget("_hard_delete_run", removed)
    return len(removed)


def _remove_files(address: str) -> None:
    """Everything below an artifact's address; that nothing is there is no error."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with suppress(FileNotFoundError):
        try:
            get_artifact_repository(address).delete_artifacts()  # type: ignore[no-untyped-call]
        except MlflowException as error:
            if error.error_code == "TEMPORARILY_UNAVAILABLE" or "API request" in str(error):
                raise
            log(f"files at {address} stay: {error.message.splitlines()[0]}")


def _forget(how: str, ids: list[str]) -> None:
    """Delete marked rows for good, where their database is at hand."""
    store = _store() if ids else None
    if store is None:
        return
    from mlflow.exceptions import MlflowException

    for each in ids:
        with suppress(MlflowException):  # another server's: its database does not know them
            getattr(store, how)(each)


def _store() -> Any:
    """MLflow's own door to its database, or None where that is elsewhere."""
    address = os.environ.get("MLFLOW_BACKEND_STORE_URI")
    own = home() / "mlflow.db"
    if not address and not own.exists():
        return None
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    artifacts = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION") or (home() / "mlartifacts").as_uri()
    return SqlAlchemyStore(address or sqlite_address(own), artifacts)  # type: ignore[no-untyped-call]
