"""MLflow's server as an ASGI application, set up as `mlflow server` does it in its own process.

The command itself starts another process, in which nothing of ours could stand before the
application. Its settings are read by its own parser: from the MLFLOW_... variables.
"""

import os
import uuid
from typing import Any


def tracking_application(*, with_accounts: bool) -> Any:
    """The application, once its tables are made; to be called once in a process.

    MLFLOW_BACKEND_STORE_URI and MLFLOW_ARTIFACTS_DESTINATION must be set; with_accounts: ask for
    one, so that the MLFLOW_AUTH_... variables must be, too.
    """
    from mlflow.cli import server
    from mlflow.server import constants
    from mlflow.server.handlers import initialize_backend_stores
    from mlflow.utils.server_cli_utils import resolve_default_artifact_root

    given = server.make_context("mlflow server", []).params
    store = given["backend_store_uri"]
    registry = given["registry_store_uri"] or store
    root = resolve_default_artifact_root(
        given["serve_artifacts"], given["default_artifact_root"], store
    )
    initialize_backend_stores(store, registry, root)
    settings = {
        constants.BACKEND_STORE_URI_ENV_VAR: store,
        constants.REGISTRY_STORE_URI_ENV_VAR: registry,
        constants.ARTIFACT_ROOT_ENV_VAR: root,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: given["artifacts_destination"],
        constants.SERVE_ARTIFACTS_ENV_VAR: "true" if given["serve_artifacts"] else "",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_SERVER_BOOT_ID": uuid.uuid4().hex,
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
    }
    os.environ.update({name: value for name, value in settings.items() if value})

    if with_accounts:
        return _with_accounts()
    from mlflow.server.fastapi_app import app

    return app


def _with_accounts() -> Any:
    from mlflow.server.auth import auth_config, create_app, store

    application = create_app()
    user, password = str(auth_config.admin_username), str(auth_config.admin_password)
    if not store.authenticate_user(user, password):  # the secret was replaced since
        store.update_user(user, password=password, is_admin=True)
    return application
