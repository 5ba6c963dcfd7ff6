"""The settings that every process of ours needs, before anything reads them.

Nothing here may import prefect, mlflow or torch: `apply_settings` decides what they find in the
environment when they are imported.
"""

import os
from pathlib import Path

from atelier.services import ambient_settings, credentials
from atelier.services.private_home import check_place, make_private
from atelier.services.proxies import bypass_proxies
from atelier.services.server_records import recorded
from tasks.store.files import home
from tasks.store.retention import days_to_keep
from tasks.store.storage import has_shared_store


def apply_settings(*, makes_files: bool = True, needs_store: bool = True) -> None:
    """Put the settings that every process of ours needs into the environment, before imports.

    A variable that a person has set stays, but for those of `atelier.services.ambient_settings`.
    makes_files: make the home, and a secret where one is asked for; needs_store: refuse the address
    of a shared store that cannot be.
    Raises BadInput for a setting of a person's that cannot be.
    """
    check_place()
    ambient_settings.settle(os.environ)
    prefect_home = home() / "prefect"
    if makes_files:
        make_private(home())
        prefect_home.mkdir(mode=0o700, exist_ok=True)  # Prefect makes the last folder only
    for name, value in {
        # OpenMP threads that spin at barriers slow training tenfold beside a busy neighbour.
        "OMP_WAIT_POLICY": "passive",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it, products on a GPU vary from run to run
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_PROFILES_PATH": str(prefect_home / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # By default the server stores one task state per transaction and falls behind.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        # The server forgets old flow runs with their tasks, logs and artifacts by itself.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(days_to_keep() * 86_400),
        # In memory, a server's restart would forget who holds a slot and never give it back.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
        "PREFECT_LOGGING_SETTINGS_PATH": str(Path(__file__).with_name("logging.yml")),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "",  # atelier/services/logging.yml configures ours in full
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # A flow waits for an API that is away, 2 + 4 + ... + 128 seconds in all.
        "PREFECT_CLIENT_MAX_RETRIES": "7",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONWARNINGS": "ignore",
    }.items():
        os.environ.setdefault(name, value)
    bypass_proxies()
    own_urls = [server.url for server in recorded().values()]
    credentials.apply_credentials(own_urls, creates=makes_files)
    ambient_settings.check_files(os.environ)
    if needs_store and has_shared_store():  # its address is checked; asked it is when it is wanted
        from tasks.store.shared import shared

        shared()
