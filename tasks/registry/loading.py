"""A registered version, loaded for a while, as the code and the weights that it brought."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlflow

from tasks.packaging.bundled_code import take_out
from tasks.registry.verification import verified_copy
from tasks.store.names import checked_name
from tasks.tracking.mlflow_client import client, outages_named


@contextmanager
def loaded(name: str, alias_or_version: str = "champion") -> Iterator[Any]:
    """Load a registered version and give its SampleModel.

    What is imported is a copy of our own, which was compared with the audit log before; raises
    PackageChanged, PackageUnknown and AuditLogDamaged without having executed anything of it.
    Each version brings its own copy of `models/` under a name of its own, so several can be loaded
    at a time, whatever code made them; see `tasks.packaging.bundled_code`. Versions of before call
    theirs `models`: of these one at a time, and our own code is put aside meanwhile.
    """
    checked_name("model", name)
    checked_name("alias", alias_or_version)
    client()  # points MLflow at the tracking server and the registry
    with verified_copy(name, alias_or_version) as (folder, _):
        packages = {path.name for path in (folder / "code").glob("*") if path.is_dir()}
        aside = take_out(packages)
        path = list(sys.path)
        try:
            with outages_named():
                model = mlflow.pyfunc.load_model(str(folder))
            yield model.unwrap_python_model()
        finally:
            sys.path[:] = path
            take_out(packages)
            sys.modules.update(aside)
