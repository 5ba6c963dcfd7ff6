"""Backups of two moments put back together: it is told, and nobody becomes champion by accident."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.packaging.files import PackageUnknown
from tasks.registry import audit_log, promotion
from tasks.registry.consistency import Problem, problems_of
from tasks.registry.loading import loaded
from tasks.registry.repair import repair
from tasks.registry.versions import champion_of, contents_of
from tasks.tracking.mlflow_client import client

pytestmark = pytest.mark.slow

DATABASE = "mlflow.db"
OWN, SHARED = "a log of its own", "a shared log"


@dataclass(frozen=True)
class Backup:
    """The database, the home's other files and the shared store, as they were at one moment."""

    studio: Any
    store: Path
    kept: Path

    def make(self) -> None:
        shutil.copytree(self.studio.home, self.kept / "home")
        if self.store.exists():
            shutil.copytree(self.store, self.kept / "store")

    def put_back_database(self) -> None:
        shutil.copy(self.kept / "home" / DATABASE, self.studio.home / DATABASE)

    def put_back_home(self) -> None:
        """All but the database, whose file MLflow has open."""
        for path in self.studio.home.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        for path in (self.kept / "home").iterdir():
            if path.is_dir():
                shutil.copytree(path, self.studio.home / path.name)

    def put_back_store(self) -> None:
        shutil.rmtree(self.store)
        shutil.copytree(self.kept / "store", self.store)


@pytest.fixture
def backup(
    studio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Backup:
    """A backup that was made while version 2 was champion; the parameter: who has the log."""
    store = tmp_path / "store"
    if request.param == SHARED:
        store.mkdir()
        monkeypatch.setenv("ATELIER_STORE", f"file://{store}")
    monkeypatch.setattr(promotion, "check_loads", lambda *_, **__: None)
    assert len(promotion.history(studio.name)) == 2  # with which the home joins the store
    made = Backup(studio, store, tmp_path / "backup")
    made.make()
    return made


def champion(studio: Any) -> int | None:
    found = champion_of(studio.name)
    return None if found is None else found.version


def problem_of(studio: Any) -> Problem:
    (problem,) = problems_of(studio.name)
    assert "\n" not in problem.what
    assert studio.name in problem.what
    return problem


@pytest.mark.parametrize("backup", [SHARED], indirect=True)  # of one home: test_consistency.py
def test_an_older_database_beside_a_newer_store(studio: Any, backup: Backup) -> None:
    content = studio.admitted(4).digest
    assert champion(studio) == 3

    backup.put_back_database()

    lost = "the registry does not know the last 3 lines of the audit log: its database was"
    assert lost in problem_of(studio).what
    assert promotion.history(studio.name)[-1].action == "lost"
    assert champion(studio) == 2  # as when the backup was made: nobody named another one
    assert "replaced by an older one" in problem_of(studio).what  # looking settles nothing
    with loaded(studio.name) as model:
        assert model.family == "ngram"

    again = studio.admitted(4)  # the command by which it became champion

    assert (again.version, again.digest, again.alias) == (3, content, "champion")
    assert problems_of(studio.name) == []


@pytest.mark.parametrize("backup", [OWN, SHARED], indirect=True)
def test_a_champion_of_an_older_database_whom_a_person_left_stays_left(
    studio: Any, backup: Backup
) -> None:
    promotion.rollback(studio.name, reason="it swears")
    left = contents_of(studio.name)[2]

    backup.put_back_database()

    told = "the champion is version 2, left by hand: it swears"
    assert told in problem_of(studio).what
    last = promotion.history(studio.name)[-1]
    assert (last.action, last.from_version, last.to_version) == ("lost", 1, 2)
    assert promotion.withdrawal_reason(studio.name, left) == "it swears"
    assert told in problem_of(studio).what
    assert problem_of(studio).ways == ("accept", "restore")

    assert repair(studio.name, "restore") == f"{studio.name}: version 1 is champion again"
    assert promotion.withdrawal_reason(studio.name, left) == "it swears"

    assert studio.admitted(3).digest == left  # better than the champion, and nevertheless
    assert champion(studio) == 1
    assert problems_of(studio.name) == []


@pytest.mark.parametrize("backup", [SHARED], indirect=True)
def test_a_backup_of_one_moment_beside_homes_that_went_on(studio: Any, backup: Backup) -> None:
    """As docs/production.md restores one: each home's copy of the shared log is put aside."""
    studio.admitted(4)
    backup.put_back_database()
    backup.put_back_store()
    assert "the store has 6 lines, and this home has read 9 lines of it" in problem_of(studio).what

    (studio.home / "ledger" / "shared").rename(studio.home / "ledger" / "shared.before")

    assert problems_of(studio.name) == []
    assert champion(studio) == 2
    with loaded(studio.name) as model:
        assert model.family == "ngram"


@pytest.mark.parametrize("backup", [OWN, SHARED], indirect=True)
def test_who_accepts_an_older_database_takes_its_champion(studio: Any, backup: Backup) -> None:
    promotion.rollback(studio.name, reason="it swears")
    accepted = contents_of(studio.name)[2]
    backup.put_back_database()
    assert "left by hand: it swears" in problem_of(studio).what

    repair(studio.name, "accept")

    assert champion(studio) == 2
    assert promotion.withdrawal_reason(studio.name, accepted) == ""
    assert problems_of(studio.name) == []


@pytest.mark.parametrize(
    ("backup", "is_home_older", "what"),
    [
        (OWN, True, "the registry is anchored to line 9: its end was cut off"),
        (SHARED, True, "the registry is anchored to line 9: its end was cut off"),
        (SHARED, False, "the store has 6 lines, and this home has read 9 lines of it"),
    ],
    indirect=["backup"],
)
def test_older_files_beside_a_newer_database(
    studio: Any, backup: Backup, is_home_older: bool, what: str
) -> None:
    studio.admitted(4)
    if is_home_older:
        backup.put_back_home()
    if backup.store.exists():
        backup.put_back_store()
    before = client().get_registered_model(studio.name)

    assert what in problem_of(studio).what
    deeds: list[Callable[[], Any]] = [
        lambda: promotion.history(studio.name),
        lambda: promotion.promote(studio.name, 1, "nevertheless"),
        lambda: studio.admitted(5),
    ]
    for deed in deeds:
        with pytest.raises(audit_log.AuditLogDamaged, match="back from a copy, or `atelier doctor"):
            deed()
    with pytest.raises(audit_log.AuditLogDamaged), loaded(studio.name):
        pass
    after = client().get_registered_model(studio.name)
    assert (after.aliases, after.tags) == (before.aliases, before.tags)

    assert "a new audit log begins" in repair(studio.name, "begin")  # where there is no copy

    assert champion(studio) == 3
    with pytest.raises(PackageUnknown, match="nothing of it is loaded"), loaded(studio.name):
        pass
    for number in (1, 2, 3):
        repair(studio.name, f"adopt:{number}")
    with loaded(studio.name) as model:
        assert model.family == "ngram"
    assert problems_of(studio.name) == []
