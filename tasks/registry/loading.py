"""A registered version, loaded for a while, as the code and the weights that it brought."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlflow

from tasks.registry.verification import verified_copy
from tasks.store.names import checked_name
from tasks.tracking.mlflow_client import client, outages_named


@contextmanager
def loaded(name: str, alias_or_version: str = "champion") -> Iterator[Any]:
    """Load a registered version and give its SampleModel.

    What is imported is a copy of our own, which was compared with the audit log before; raises
    PackageChanged, PackageUnknown and LedgerDamaged without having executed anything of it.
    Each version brings its own copy of `models/`. It is imported afresh for the time of the block,
    so that a version made by older code runs on that code and leaves ours alone.
    """
    checked_name("model", name)
    checked_name("alias", alias_or_version)
    client()  # points MLflow at the tracking server and the registry
    with verified_copy(name, alias_or_version) as (folder, _):
        ours = {key: sys.modules.pop(key) for key in list(sys.modules) if _is_models(key)}
        path = list(sys.path)
        try:
            with outages_named():
                model = mlflow.pyfunc.load_model(str(folder))
            yield model.unwrap_python_model()
        finally:
            sys.path[:] = path
            for key in [key for key in sys.modules if _is_models(key)]:
                del sys.modules[key]
            sys.modules.update(ours)


def _is_models(module_name: str) -> bool:
    return module_name == "models" or module_name.startswith("models.")
