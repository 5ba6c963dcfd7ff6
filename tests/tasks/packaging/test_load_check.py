"""The load check and our own loads, under the settings of MLflow that a person may have."""

import os
from typing import Any

import mlflow
import psutil
import pytest

from atelier.services import ambient_settings
from tasks.packaging import load_check, load_worker
from tasks.registry import promotion
from tasks.registry.loading import loaded
from tasks.tracking.home_database import tracking_uri

RULE = "MLFLOW_ALLOW_MODEL_CODE_EXECUTION"


@pytest.mark.slow
@pytest.mark.parametrize("said", ["true", None])
def test_versions_load_where_a_person_allows_their_code_or_says_nothing(
    said: str | None, studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From MLflow 3.18 on `false` refuses every version; no setting of ours may say so."""
    real = mlflow.pyfunc.load_model

    def as_from_318(*arguments: object, **named: object) -> object:
        assert os.environ.get(RULE, "true").lower() in ("true", "1"), "3.18 would refuse"
        return real(*arguments, **named)

    monkeypatch.setattr(mlflow.pyfunc, "load_model", as_from_318)
    monkeypatch.delenv(RULE, raising=False)
    if said is not None:
        monkeypatch.setenv(RULE, said)
    ambient_settings.settle(os.environ)
    load_check._clean_process.cache_clear()

    assert promotion.rollback(studio.name) == (2, 1)

    process, _ = load_check._clean_process()
    assert psutil.Process(process.pid).environ().get(RULE) == said
    with loaded(studio.name, "champion") as model:
        assert model.write_texts(1, 0, 1.0, num_tokens=5)


@pytest.mark.slow
def test_a_check_does_not_look_through_all_installed_packages(
    studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow warns of packages that a version does not name: a second, and nobody reads it."""
    looked: list[object] = []
    monkeypatch.setattr(mlflow.pyfunc, "warn_dependency_requirement_mismatches", looked.append)
    request = {
        "tracking_uri": tracking_uri(),
        "folder": str(studio.package(2)),
        "params": load_check.REQUESTS["text"],
        "ours": [],
    }

    answered = load_worker.answer(request)

    assert len(answered["samples"]) == 64
    assert looked == []
    mlflow.pyfunc.load_model(str(studio.package(2)))
    assert len(looked) == 1  # it is asked where warnings are wanted: the name is still MLflow's
