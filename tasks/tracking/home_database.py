"""What MLflow's database of this home tells, read in a tenth of a second: MLflow takes seconds.

Tables are read as they are, in one transaction for each question, and nothing is changed in them.
They are asked where runs are kept in this home's own database, be it behind its own server
(`is_served_at`). Every other registry, a database of another shape (another version of MLflow), one
that is busy and one that is damaged is asked through MLflow's client, which says what is wrong.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from tasks.store.files import home, sqlite_address

Answer = TypeVar("Answer")

_SECONDS_FOR_A_LOCK = 5.0
_WORKSPACE = "default"
_PROMPT = "mlflow.prompt.is_prompt"
"""MLflow keeps prompts among the registered models, and tells of them when asked for prompts."""

_served: dict[Path, str] = {}
"""By home: the address of the server of ours that keeps its database and its files there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredVersion:
    """A version of the registry, with its tags."""

    name: str
    """Its model's."""
    version: int
    """Its number."""
    source: str
    """Where its files are, `models:/m-...`."""
    run_id: str
    """The run that trained it."""
    description: str
    """Its card, in Markdown."""
    creation_timestamp: int
    """When it was registered, in milliseconds since 1970."""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredModel:
    """A row of registered models, with its tags and the version's number of each alias."""

    name: str
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPackage:
    """A logged model: the files of a version, or of one that was never registered."""

    model_id: str
    creation_timestamp: int
    """In milliseconds since 1970."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRun:
    """A run, as far as housekeeping asks."""

    run_id: str
    name: str
    status: str
    parent: str
    """The run that it is filed under; empty for none."""


class HomeDatabase:
    """The tables, behind an open connection; each question is one or two statements."""

    def __init__(self, opened: sqlite3.Connection) -> None:
        self._opened = opened

    def models(self, name: str | None = None) -> list[StoredModel]:
        """All registered models in the order of their names, or the one of a name."""
        chosen, values = _where("name", name)
        found = {
            each: StoredModel(name=each)
            for (each,) in self._rows(f"SELECT name FROM registered_models{chosen}", values)
        }
        tags = f"SELECT name, key, value FROM registered_model_tags{chosen}"
        for each, key, value in self._rows(tags, values):
            if each in found:
                found[each].tags[key] = value or ""
        aliases = f"SELECT name, alias, version FROM registered_model_aliases{chosen}"
        for each, alias, number in self._rows(aliases, values):
            if each in found:
                found[each].aliases[alias] = int(number)
        return [found[each] for each in sorted(found) if found[each].tags.get(_PROMPT) != "true"]

    def versions(
        self, name: str | None = None, number: int | None = None
    ) -> list[RegisteredVersion]:
        """All versions of all models or of one, by model and number, or the one of a number."""
        chosen, values = _where("name", name, "version", number)
        told = (
            "SELECT name, version, source, run_id, description, creation_time FROM model_versions"
            f"{chosen} AND current_stage != 'Deleted_Internal' ORDER BY name, version"
        )
        found = {
            (of, each): RegisteredVersion(
                name=of,
                version=int(each),
                source=source or "",
                run_id=run_id or "",
                description=description or "",
                creation_timestamp=created or 0,
            )
            for of, each, source, run_id, description, created in self._rows(told, values)
        }
        tags = f"SELECT name, version, key, value FROM model_version_tags{chosen}"
        for of, each, key, value in self._rows(tags, values):
            if (version := found.get((of, each))) is not None:
                version.tags[key] = value or ""
        return [each for each in found.values() if each.tags.get(_PROMPT) != "true"]

    def versions_with(self, name: str, tag: str, value: str) -> list[RegisteredVersion]:
        """The versions of a model that have a tag of a value."""
        rows = self._rows(
            "SELECT version FROM model_version_tags"
            " WHERE workspace = ? AND name = ? AND key = ? AND value = ?",
            [_WORKSPACE, name, tag, value],
        )
        return [each for (number,) in rows for each in self.versions(name, int(number))]

    def version_called(self, name: str, alias: str) -> RegisteredVersion | None:
        """The version of a model that has an alias, if there is one."""
        rows = self._rows(
            "SELECT version FROM registered_model_aliases"
            " WHERE workspace = ? AND name = ? AND alias = ?",
            [_WORKSPACE, name, alias],
        )
        number = next((int(number) for (number,) in rows), None)
        return None if number is None else next(iter(self.versions(name, number)), None)

    def place_of(self, model_id: str) -> str | None:
        """The address of a logged model's files; None where there is no such model."""
        rows = self._opened.execute(
            "SELECT artifact_location FROM logged_models"
            " WHERE model_id = ? AND lifecycle_stage = 'active'",
            [model_id],
        )
        return next((str(place) for (place,) in rows), None)

    def experiment(self, name: str) -> tuple[int, dict[str, str]] | None:
        """The id and the tags of an experiment that nobody has deleted; None without one."""
        rows = self._rows(
            "SELECT experiment_id FROM experiments WHERE workspace = ? AND name = ?"
            " AND lifecycle_stage = 'active'",
            [_WORKSPACE, name],
        )
        number = next((int(number) for (number,) in rows), None)
        if number is None:
            return None
        tags = self._rows(
            "SELECT key, value FROM experiment_tags WHERE experiment_id = ?", [number]
        )
        return number, dict(tags)

    def packages(self, experiment: int) -> list[StoredPackage]:
        """The logged models of an experiment, and those that its runs left in others."""
        rows = self._rows(
            "SELECT model_id, creation_timestamp_ms FROM logged_models AS package"
            " JOIN experiments USING (experiment_id)"
            " LEFT JOIN runs ON run_uuid = source_run_id"
            " WHERE package.lifecycle_stage = 'active' AND experiments.workspace = ?"
            " AND experiments.lifecycle_stage = 'active'"
            " AND (package.experiment_id = ? OR runs.experiment_id = ?)",
            [_WORKSPACE, experiment, experiment],
        )
        return [StoredPackage(model_id=each, creation_timestamp=at) for each, at in rows]

    def runs_before(self, experiment: int, moment: int) -> list[StoredRun]:
        """The runs of an experiment that began before a moment, in milliseconds since 1970."""
        rows = self._rows(
            "SELECT runs.run_uuid, name, status, value FROM runs"
            " LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND key = 'mlflow.parentRunId'"
            " WHERE experiment_id = ? AND lifecycle_stage = 'active' AND start_time < ?"
            " ORDER BY start_time DESC, runs.run_uuid",
            [experiment, moment],
        )
        return [
            StoredRun(run_id=each, name=name or "", status=status or "", parent=parent or "")
            for each, name, status, parent in rows
        ]

    def latest_run(self, experiment: int, name: str) -> str:
        """The id of the run of a name that began last; empty without one."""
        rows = self._rows(
            "SELECT runs.run_uuid FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid"
            " WHERE experiment_id = ? AND lifecycle_stage = 'active'"
            " AND key = 'mlflow.runName' AND value = ? ORDER BY start_time DESC LIMIT 1",
            [experiment, name],
        )
        return next((str(each) for (each,) in rows), "")

    def _rows(self, statement: str, values: Sequence[Any]) -> list[Any]:
        return self._opened.execute(statement, values).fetchall()


def _where(*pairs: Any) -> tuple[str, list[Any]]:
    """The condition of a statement, from columns and their values; None chooses all."""
    columns, values = pairs[::2], pairs[1::2]
    told = [
        (column, value) for column, value in zip(columns, values, strict=True) if value is not None
    ]
    words = " AND ".join(["workspace = ?", *(f"{column} = ?" for column, _ in told)])
    return f" WHERE {words}", [_WORKSPACE, *(value for _, value in told)]


def tracking_uri() -> str:
    """Where runs are kept: $MLFLOW_TRACKING_URI, or the database in the home folder."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if named.startswith(("http://", "https://")):
        return named.rstrip("/")
    return named or sqlite_address(home() / "mlflow.db")


def is_served_at(url: str) -> None:
    """Note that the server at an address keeps this home's own database and files."""
    _served[home()] = url.rstrip("/")


def is_at_hand() -> bool:
    """Whether runs are kept in this home's own database."""
    database = home() / "mlflow.db"
    own = (sqlite_address(database), f"sqlite:///{database}", _served.get(home()))
    return tracking_uri() in own and database.is_file()


def asked(question: Callable[[HomeDatabase], Answer], by_client: Callable[[], Answer]) -> Answer:
    """What this home's database answers; where it cannot be asked, what MLflow's client does."""
    if is_at_hand():
        with suppress(sqlite3.Error), closing(opened()) as connection:
            return question(HomeDatabase(connection))
    return by_client()


def opened() -> sqlite3.Connection:
    """This home's database, to be read as it is at one moment; raises sqlite3.Error."""
    address = f"file:{quote(str(home() / 'mlflow.db'))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=_SECONDS_FOR_A_LOCK)
    connection.execute("BEGIN")  # what one question tells is of one moment
    return connection
