"""What the registry holds, read for a person who waits: in a tenth of a second where it is a file.

MLflow takes seconds to import. Where the registry is the database of this home, its tables are read
(`tasks/tracking/home_database.py`), and one that cannot be read is named at once; a registry
elsewhere is asked through MLflow's client.
Nothing is verified here: that is for whoever loads a version (`tasks/registry/verification.py`).
"""

import math
import os
import re
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tasks.families.table import FAMILIES
from tasks.runtime.suggestions import did_you_mean
from tasks.store.files import BadInput, home
from tasks.store.names import is_name
from tasks.store.records import DamagedRecord, parsed
from tasks.tracking.home_database import HomeDatabase, opened

CHAMPION = "champion"


@dataclass(kw_only=True, slots=True)
class ListedVersion:
    """A version as the registry's tables tell it."""

    number: int
    description: str = ""
    """Its card, in Markdown."""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def main_value(self) -> float | None:
        """Its main metric; None where the tag is missing or is no finite number."""
        with suppress(ValueError):
            value = float(self.tags.get("main_value", ""))
            return value if math.isfinite(value) else None
        return None

    @property
    def metrics(self) -> dict[str, float]:
        """All that was measured, by name; none where the tag holds no such thing."""
        with suppress(DamagedRecord):
            told: dict[str, float] = parsed(self.tags.get("metrics", ""), dict[str, float], "")
            return told
        return {}


@dataclass(kw_only=True, slots=True)
class ListedModel:
    """A registered model as the registry's tables tell it."""

    name: str
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    versions: dict[int, ListedVersion] = field(default_factory=dict)
    """By number, oldest first; those being made are left out."""

    @property
    def family(self) -> str:
        """Which family it is of."""
        return self.tags.get("family", "")

    @property
    def champion(self) -> ListedVersion | None:
        """The version that is called champion, if there is one."""
        return self.versions.get(self.aliases.get(CHAMPION, 0))

    def champion_since(self) -> str:
        """Since when the champion is champion, UTC, ISO 8601; nothing where nobody noted it."""
        number = self.champion.number if self.champion else 0
        is_noted = self.tags.get("champion_version") == str(number)
        return self.tags.get("champion_since", "") if is_noted else ""

    def version(self, which: str) -> ListedVersion:
        """A version by its alias or number; raises BadInput, which names those that are there."""
        is_number = re.fullmatch("[0-9]{1,9}", which) is not None
        number = int(which) if is_number else self.aliases.get(which, 0)
        if (found := self.versions.get(number)) is not None:
            return found
        there = [
            *(f"@{alias}" for alias in sorted(self.aliases)),
            *(f"/{n}" for n in self.versions),
        ]
        raise BadInput(
            f"{self.name} has no version {which!r}; there are: {', '.join(there) or 'none'}"
        )


def listed_models() -> dict[str, ListedModel]:
    """Our registered models by name, in order."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    found = _found_by_client() if named else _found_in(home() / "mlflow.db")
    return {
        name: model
        for name, model in sorted(found.items())
        if model.family in FAMILIES and is_name(name)
    }


def listed_model(name: str) -> ListedModel:
    """One of them; raises BadInput, which says what may have been meant."""
    known = listed_models()
    if name not in known:
        raise BadInput(f"no model is named {name!r}{did_you_mean(name, known)}")
    return known[name]


def _found_in(database: Path) -> dict[str, ListedModel]:
    """From MLflow's tables; raises BadInput where there are none of it."""
    if not database.is_file():
        return {}
    try:
        with closing(opened()) as connection:
            return _read(connection)
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):  # a lock, or a disk
            raise BadInput(f"{database} cannot be read now: {error}") from error
        return _found_by_client()  # another version's tables: slower, and it knows them
    except sqlite3.DatabaseError as error:
        raise BadInput(f"{database} is no registry that can be read: {error}") from error


def _read(database: sqlite3.Connection) -> dict[str, ListedModel]:
    tables = HomeDatabase(database)
    found = {
        each.name: ListedModel(name=each.name, tags=each.tags, aliases=each.aliases)
        for each in tables.models()
    }
    for version in tables.versions():
        if version.name in found:
            found[version.name].versions[version.version] = ListedVersion(
                number=version.version, description=version.description, tags=version.tags
            )
    for model in found.values():
        model.versions = _complete(model.versions)
    return found


def _found_by_client() -> dict[str, ListedModel]:
    from tasks.registry.versions import all_versions
    from tasks.tracking.mlflow_client import outages_named
    from tasks.tracking.registry_queries import models

    found = {}
    with outages_named():
        for each in models():
            if not is_name(each.name):
                continue
            versions = {
                v.version: ListedVersion(
                    number=v.version, description=v.description, tags=dict(v.tags)
                )
                for v in all_versions(each.name)
            }
            found[each.name] = ListedModel(
                name=each.name,
                tags=dict(each.tags),
                aliases=dict(each.aliases),
                versions=_complete(versions),
            )
    return found


def _complete(versions: dict[int, ListedVersion]) -> dict[int, ListedVersion]:
    return {n: each for n, each in versions.items() if each.tags.get("state") == "complete"}
