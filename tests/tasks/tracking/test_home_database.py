"""This home's own database, read without MLflow: the same as MLflow's client tells."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.entities import PagedList

from tasks.registry import versions
from tasks.store.files import home, sqlite_address
from tasks.tracking import home_database, mlflow_client, registry_queries
from tasks.tracking.home_database import asked, is_at_hand, is_served_at
from tasks.tracking.mlflow_client import client, old_runs, our_packages, tracking_experiment
from tests.imports import HEAVY, imported_by
from tests.tasks.conftest import Studio


@pytest.fixture
def registry(studio: Studio) -> Studio:
    """Two versions of our model, another's model, a prompt, and a version that was deleted."""
    client().create_registered_model("somebody-elses", tags={"note": "hands off"})
    client().create_registered_model("empty")
    client().register_prompt("a-prompt", template="Say {{what}}")
    for _ in range(2):
        client().create_model_version("somebody-elses", "s3://nowhere/1", tags={"a": "b"})
    client().delete_model_version("somebody-elses", "1")
    client().set_registered_model_alias("somebody-elses", "best", "2")
    client().set_registered_model_alias(studio.name, "second", "1")
    return studio


def told(version: Any) -> Any:
    if version is None:
        return None
    fields = ("name", "source", "run_id", "description", "creation_timestamp", "tags")
    return int(version.version), *(getattr(version, name) or None for name in fields)


def content_of(name: str, number: int) -> str:
    return versions.contents_of(name)[number]


QUESTIONS: dict[str, Callable[[str], Any]] = {
    "models": lambda _: sorted(registry_queries.models(), key=lambda each: each.name),
    "model": registry_queries.model,
    "no model": lambda _: registry_queries.model("nobody"),
    "versions": lambda name: sorted(map(told, registry_queries.versions(name))),
    "all versions": lambda _: sorted(map(told, registry_queries.versions()), key=str),
    "number": lambda name: told(registry_queries.version_of_number(name, 2)),
    "deleted": lambda _: told(registry_queries.version_of_number("somebody-elses", 1)),
    "no number": lambda name: told(registry_queries.version_of_number(name, 9)),
    "huge number": lambda name: told(registry_queries.version_of_number(name, 2**31)),
    "alias": lambda name: told(registry_queries.version_of_alias(name, "champion")),
    "no alias": lambda name: told(registry_queries.version_of_alias(name, "best")),
    "alias of nobody": lambda _: told(registry_queries.version_of_alias("nobody", "champion")),
    "MLflow's alias": lambda name: told(registry_queries.version_of_alias(name, "latest")),
    "content": lambda name: told(versions.find_version(name, content_of(name, 2))),
    "no content": lambda name: told(versions.find_version(name, "0" * 64)),
    "aliases": versions.aliases_of,
    "aliases of ours": lambda _: versions.aliases_by_model(),
    "experiment": lambda _: tracking_experiment(),
    "packages": lambda _: sorted(our_packages(), key=lambda each: each.model_id),
    "runs": lambda _: old_runs(4e9),
    "no runs yet": lambda _: old_runs(0),
}


@pytest.mark.parametrize("what", QUESTIONS)
def test_the_database_tells_what_the_client_tells(
    registry: Studio, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    found = QUESTIONS[what](registry.name)
    monkeypatch.setattr(home_database, "is_at_hand", lambda: False)

    by_client = QUESTIONS[what](registry.name)

    assert found == by_client


@pytest.mark.parametrize("what", [each for each in QUESTIONS if each != "MLflow's alias"])
def test_the_client_is_not_asked_where_the_database_is_at_hand(
    registry: Studio, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail() -> None:
        raise AssertionError("the client was asked")

    monkeypatch.setattr(mlflow_client, "client", fail)
    monkeypatch.setattr(registry_queries, "client", fail)
    monkeypatch.setattr(versions, "client", fail)

    QUESTIONS[what](registry.name)


def test_a_number_is_one_whoever_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One question may fall back on the client, and the next not; numbers are compared."""
    by_server = ModelVersion("digits-vae", "3", 0, tags=[], run_id="r", source="models:/m-1")
    server = SimpleNamespace(
        get_model_version=lambda *_: by_server,
        get_model_version_by_alias=lambda *_: by_server,
        search_model_versions=lambda *_, **__: PagedList([by_server], None),
    )
    for module in (registry_queries, versions):
        monkeypatch.setattr(module, "client", lambda: server)

    for found in (
        registry_queries.version_of_number("digits-vae", 3),
        registry_queries.version_of_alias("digits-vae", "champion"),
        *registry_queries.versions("digits-vae"),
        versions.find_version("digits-vae", "0" * 64),
    ):
        assert found is not None
        assert found.version == 3


def test_what_is_read_is_of_one_moment(registry: Studio) -> None:
    with closing(home_database.opened()) as connection:
        assert connection.in_transaction


def test_prompts_and_deleted_versions_are_no_versions(registry: Studio) -> None:
    assert [each.name for each in registry_queries.models()] == [
        *("empty", "somebody-elses", registry.name)
    ]
    assert [each.version for each in registry_queries.versions("somebody-elses")] == [2]
    assert not registry_queries.versions("a-prompt")


def test_a_run_that_somebody_deleted_is_not_told_of(registry: Studio) -> None:
    known, _ = old_runs(4e9)
    client().delete_run(known[0].run_id)

    assert known[0] not in old_runs(4e9)[0]
    assert old_runs(4e9)[0] == known[1:]


def test_a_deleted_experiment_is_restored_by_whoever_asks_for_it(registry: Studio) -> None:
    number = tracking_experiment()
    client().delete_experiment(number)

    assert tracking_experiment() == number
    assert client().get_experiment(number).lifecycle_stage == "active"


def test_what_is_told_is_what_stands_there_now(registry: Studio) -> None:
    assert registry_queries.version_of_alias(registry.name, "champion").version == 2
    client().set_registered_model_alias(registry.name, "champion", "1")
    assert registry_queries.version_of_alias(registry.name, "champion").version == 1


def test_only_the_own_database_of_a_home_is_at_hand(
    atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = atelier_home / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert not is_at_hand()
    atelier_home.mkdir()
    database.write_bytes(b"")
    assert is_at_hand()

    for address in ("http://127.0.0.1:5", "sqlite:////elsewhere.db", "postgresql://me@there/db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert not is_at_hand()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_address(database))
    assert is_at_hand()


def test_a_server_that_keeps_this_home_is_this_homes_alone(
    atelier_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (atelier_home, tmp_path / "other"):
        place.mkdir()
        (place / "mlflow.db").write_bytes(b"")
    is_served_at("http://127.0.0.1:5/")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5")
    assert is_at_hand()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:6")
    assert not is_at_hand()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5")
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "other"))
    assert not is_at_hand()


def damage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def rename(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE registered_model_tags RENAME TO otherwise")
    database.close()


@pytest.mark.parametrize("spoil", [damage, rename])
def test_a_database_that_cannot_be_read_so_is_the_clients_matter(
    registry: Studio, spoil: Callable[[Path], None]
) -> None:
    spoil(home() / "mlflow.db")

    assert asked(lambda tables: [each.name for each in tables.models()], lambda: ["asked"]) == [
        "asked"
    ]


def test_reading_changes_nothing(registry: Studio) -> None:
    def write(tables: Any) -> str:
        tables._rows("DELETE FROM registered_models", [])
        return "written"

    assert asked(write, lambda: "the client's way") == "the client's way"
    assert registry_queries.models()


def test_a_writer_is_waited_for(registry: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so long, and then the client waits in its own way."""
    monkeypatch.setattr(home_database, "_SECONDS_FOR_A_LOCK", 0.05)
    writer = sqlite3.connect(home() / "mlflow.db", isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")

    assert asked(lambda tables: tables.models(), lambda: []) == []

    writer.execute("ROLLBACK")
    writer.close()
    assert registry_queries.models()


@pytest.mark.parametrize(
    "module",
    [
        *("tasks.registry.consistency", "tasks.registry.promotion", "tasks.packaging.load_check"),
        *("tasks.maintenance.pruning", "tasks.maintenance.garbage_collection"),
    ],
)
def test_what_commands_read_with_imports_no_library_that_takes_seconds(module: str) -> None:
    imported, _ = imported_by(f"import {module}", [*HEAVY, "numpy"])

    assert imported == []
