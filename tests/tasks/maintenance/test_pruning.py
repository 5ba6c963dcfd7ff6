"""What leaves MLflow and the home, what stays, and that a home of many nights is bounded."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow.utils.file_utils import local_file_uri_to_path

from tasks.evaluation.scorecard import PromotionDecision
from tasks.maintenance import disk_watch, garbage_collection, log_trimming, pruning
from tasks.maintenance.log_trimming import trim_home
from tasks.maintenance.pruning import delete, find_surplus, kept_contents
from tasks.maintenance.sweeping import collect_garbage, remove_surplus
from tasks.packaging.files import digest_of_files, files_of
from tasks.registry import audit_anchor, audit_history, audit_log, promotion
from tasks.registry.consistency import problems_of
from tasks.registry.registration import note_package
from tasks.registry.verdicts import apply_decision
from tasks.registry.verification import PACKAGE_TAG
from tasks.registry.versions import Version, every_version
from tasks.store.artifacts import opened
from tasks.store.files import BadInput
from tasks.store.locks import file_lock, remove_unused_lock
from tasks.store.retention import days_to_keep, versions_to_keep
from tasks.store.steps import forget_older, history, recorded
from tasks.tracking.mlflow_client import client, log_metrics, tracking_experiment
from tasks.tracking.runs import open_run

NAME, DAY = "tale-ngram", 86_400.0
TABLES = ("runs", "logged_models", "tags", "model_version_tags")


@dataclass
class Years:
    """A home, its registry, and a clock that can be put forward."""

    home: Path
    database: Path
    days: float = 0.0
    number: int = 0
    real_time: Callable[[], float] = field(default=time.time)

    def now(self) -> float:
        return self.real_time() + self.days * DAY

    def package(self, run_id: str, content: bytes = b"weights" * 100) -> str:
        """A logged model with a file, as a run makes it before it registers it."""
        made = client().create_logged_model(tracking_experiment(), "model", source_run_id=run_id)
        folder = self.folder_of(str(made.model_id))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_bytes(content)
        return str(made.model_id)

    def folder_of(self, model_id: str) -> Path:
        return Path(local_file_uri_to_path(client().get_logged_model(model_id).artifact_location))

    def version(self, *, accepted: bool = False, decided_by: str = "") -> Version:
        """One night: a run, a fit, a package, a version, and what the gate said."""
        self.number += 1
        digest = hashlib.sha256(b"%d" % self.number).hexdigest()
        champion = (
            audit_history.champion_by(audit_log.entries_of(NAME)) if self.number > 1 else None
        )
        parts = {"settings": {"night": self.number}, "inputs": ["text"]}
        with open_run("night", key=digest) as run_id:
            log_metrics(run_id, {"loss": 1 / self.number})
            with opened("models", NAME, parts) as place:
                place.commit({"run_id": run_id}, digest=digest)
            with opened("evaluations", NAME, {"model": digest}, inputs=[digest]) as place:
                place.commit({})
            model_id = self.package(run_id)
        if self.number == 1:
            client().create_registered_model(NAME, tags={"family": "ngram"})
        tags = {"content_digest": digest, "family": "ngram", "state": "complete"}
        tags |= {"main_metric": "m", "main_value": "1", "main_low": "0", "main_high": "2"}
        made = client().create_model_version(
            NAME, f"models:/{model_id}", run_id, tags, model_id=model_id, await_creation_for=0
        )
        files = files_of(self.folder_of(model_id))
        with file_lock(f"registry-{NAME}"):
            note_package(made, files, "register", "")
        client().set_model_version_tag(NAME, made.version, PACKAGE_TAG, digest_of_files(files))
        version = Version(
            name=NAME,
            version=int(made.version),
            alias="",
            run_id=run_id,
            digest=digest,
            main_metric="m",
            main_value=1.0,
            seconds=0.0,
            is_new=True,
        )
        verdict = PromotionDecision(
            accepted=accepted,
            reason=f"night {self.number}",
            decided_by=decided_by,
            champion_version=champion,
        )
        settled = apply_decision.fn(version, verdict)
        assert settled is not None
        return settled

    def numbers(self) -> set[int]:
        return {int(version.version) for version in every_version()}

    def clean(self) -> None:
        remove_surplus.fn()
        collect_garbage.fn()
        trim_home.fn()

    def age_files(self) -> None:
        """Give what was written tonight the time of the clock."""
        for path in self.home.rglob("*"):
            if path.stat().st_mtime < self.real_time() + 3600:
                os.utime(path, (self.now(), self.now()))

    def count(self, table: str) -> int:
        with sqlite3.connect(self.database) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def years(migrated_database: Path, atelier_home: Path, monkeypatch: pytest.MonkeyPatch) -> Years:
    """A home whose database is its own, as with the servers that `atelier` starts."""
    atelier_home.mkdir()
    database = atelier_home / "mlflow.db"
    database.write_bytes(migrated_database.read_bytes())
    monkeypatch.chdir(atelier_home)
    made = Years(atelier_home, database)
    monkeypatch.setattr(time, "time", made.now)
    for module in (
        garbage_collection,
        pruning,
        log_trimming,
    ):  # they do not believe a clock that jumps
        monkeypatch.setattr(module, "steady_now", made.now)
    return made


@pytest.mark.slow
def test_of_versions_that_were_never_champion_the_latest_ten_stay(years: Years) -> None:
    first = years.version(accepted=True)
    for _ in range(3):
        years.version()
    second = years.version(accepted=True)
    declined = years.version(decided_by="the Prefect UI")
    for _ in range(14):
        years.version()
    spare = years.version()
    client().set_registered_model_alias(NAME, "mine", "3")
    latest = [years.version() for _ in range(11)]  # the last is the challenger
    assert find_surplus() == []  # they are too young
    years.days = 2
    log = audit_log.log_path(NAME).read_bytes()

    assert delete(find_surplus()) == 2 * 17  # versions and their packages

    kept = {first.version, second.version, declined.version, 3}
    kept |= {each.version for each in latest}
    assert years.numbers() == kept
    assert audit_log.log_path(NAME).read_bytes().startswith(log)
    told = audit_log.entries_of(NAME)[-1]
    assert told.action == "prune"
    assert len(told.evidence["gone"]) == 17
    assert told not in audit_history.told(audit_log.entries_of(NAME))
    assert not list(problems_of(NAME, with_packages=False))
    assert kept_contents([]) >= {first.digest, second.digest, declined.digest}
    assert spare.digest not in kept_contents([])


def test_a_package_that_no_version_is_made_of_goes_after_a_day_with_its_files(
    years: Years,
) -> None:
    """A crash between packaging and registering leaves one."""
    kept = years.version(accepted=True)
    with open_run("crashed") as run_id:
        orphan = years.package(run_id)
    folder = years.folder_of(orphan)
    assert find_surplus() == []
    years.days = 1.1

    (found,) = find_surplus()
    assert (found.kind, found.key) == ("package", orphan)
    assert delete([found]) == 1

    assert not (folder / "weights").exists()
    assert years.count("logged_models") == 1
    assert find_surplus() == []
    assert years.numbers() == {kept.version}


def test_runs_that_nothing_refers_to_go_after_a_month(
    years: Years, monkeypatch: pytest.MonkeyPatch
) -> None:
    years.version(accepted=True)
    for _ in range(3):
        with open_run("gallery") as gallery, open_run("unchanged night"):
            pass
    with open_run("at work") as at_work:
        years.days = 31
        gone = {each.key for each in find_surplus()}
        names = sorted(client().get_run(key).data.tags["mlflow.runName"] for key in gone)
        assert names == ["gallery", "gallery", *["unchanged night"] * 3]
        assert gallery not in gone
        assert at_work not in gone
        monkeypatch.setenv("ATELIER_KEEP_DAYS", "32")
        assert find_surplus() == []
        monkeypatch.delenv("ATELIER_KEEP_DAYS")
        assert delete(find_surplus()) == 5
        assert years.count("runs") == 3
        assert find_surplus() == []


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "99999999", "٣"])
def test_a_setting_that_is_no_number_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_KEEP_DAYS", value)
    monkeypatch.setenv("ATELIER_KEEP_VERSIONS", value)
    for ask in (days_to_keep, versions_to_keep):
        with pytest.raises(BadInput, match="wanted a whole number from 1"):
            ask()


def test_old_times_of_a_step_are_forgotten_but_for_the_latest_and_those_of_fits(
    atelier_home: Path,
) -> None:
    keys = []
    for number in range(8):
        with recorded("tale-ngram", {"settings": number}) as record:
            keys.append(record.key)

    now = time.time()
    assert forget_older("tale-ngram", now - 60, 2, set()) == 0
    assert forget_older("tale-ngram", now + 60, 2, {keys[1][:16]}) == 5
    assert [each.key for each in history("tale-ngram")] == [keys[1], keys[6], keys[7]]
    assert {each.state for each in history("tale-ngram")} == {"made"}


def test_a_lock_that_is_held_stays_and_one_that_is_not_goes(atelier_home: Path) -> None:
    path = atelier_home / "locks" / "a.lock"
    with file_lock("a"):
        assert not remove_unused_lock(path)
    assert remove_unused_lock(path)
    assert not path.exists()
    assert not remove_unused_lock(path)


def test_who_waits_for_a_lock_whose_file_is_removed_still_works_alone(atelier_home: Path) -> None:
    from threading import Event, Thread

    path, waits, inside = atelier_home / "locks" / "a.lock", Event(), Event()

    def wait() -> None:
        with file_lock("a", waits.set):
            inside.set()

    with file_lock("a"):
        waiter = Thread(target=wait)
        waiter.start()
        assert waits.wait(10)
        path.unlink()  # as another process does that holds it for a moment
        path.write_text("")
        held = file_lock("a")
        with held:
            pass
        assert not inside.is_set()
    waiter.join(10)
    assert inside.is_set()


def test_refusals_in_a_row_are_told_once_in_so_many(
    years: Years, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []

    def hear(what: str, version: object, payload: dict[str, object]) -> None:
        told.append((what, int(str(payload.get("in_a_row", 0)))))

    monkeypatch.setattr(promotion, "_emit", hear)
    monkeypatch.setenv("ATELIER_TELL_AFTER_REFUSALS", "3")
    years.version(accepted=True)
    for _ in range(4):
        years.version()
    years.version(accepted=True)
    for _ in range(3):
        years.version()

    assert [number for what, number in told if what == promotion.STALLED] == [3, 3]
    assert [what for what, _ in told].count(promotion.PROMOTED) == 2
    assert [number for what, number in told if what == promotion.REFUSED] == [1, 2, 3, 4, 1, 2, 3]


def test_a_full_disk_is_told_once_a_day_until_it_has_space_again(
    years: Years, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(disk_watch, "emit_event", lambda event, **_: told.append(event))
    everything = 1 << 62

    assert not disk_watch.watch_disk.fn(0)
    assert disk_watch.watch_disk.fn(everything)
    assert not disk_watch.watch_disk.fn(everything)
    years.days = 1.1
    assert disk_watch.watch_disk.fn(everything)
    assert not disk_watch.watch_disk.fn(0)
    assert disk_watch.watch_disk.fn(everything)
    assert told == ["atelier.disk.low"] * 3


def sizes_of(years: Years) -> dict[str, int]:
    """How much a home holds and its database, but for the audit logs, which are never cut."""
    files = [path for path in years.home.rglob("*") if path.is_file()]
    others = [path for path in files if "ledger" not in path.parts]
    return {
        "files": len(others),
        "bytes": sum(path.stat().st_size for path in others),
        "model_versions": len(years.numbers()),  # MLflow keeps an emptied row of each
        **{table: years.count(table) for table in TABLES},
    }


def live(
    years: Years, nights: range, champions: set[int], cleans_every: int = 7, days_a_night: int = 1
) -> dict[str, int]:
    """Let nights go by, and clean at the end; returns how much there is.

    Each night one version, which is refused but for those of `champions`, and an unchanged run.
    """
    for night in nights:
        years.days = float(night * days_a_night)
        years.version(accepted=night in champions)
        with open_run("unchanged night"), file_lock(f"task-{night}"):
            pass
        years.age_files()
        if night % cleans_every == cleans_every - 1:
            years.clean()
    years.clean()
    return sizes_of(years)


@pytest.mark.slow
def test_after_enough_nights_a_home_holds_as_much_as_it_did_before(
    years: Years, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The year below in small: less is kept, and a night is three days after the last.

    Everything that may go has gone by the fifteenth night, and both looks come right after a
    cleaning; so what is kept of a night for ever adds fifteen, of a cleaning five.
    """
    monkeypatch.setenv("ATELIER_KEEP_DAYS", "12")
    monkeypatch.setenv("ATELIER_KEEP_VERSIONS", "3")
    monkeypatch.setattr(log_trimming, "RECORDS_TO_KEEP", 10)  # or fifteen nights reach no bound
    champions = {0, 3}

    before = live(years, range(15), champions, 3, 3)
    after = live(years, range(15, 30), champions, 3, 3)

    assert after["model_versions"] == len(champions) + 3 + 1  # the last is the challenger
    assert after["logged_models"] == after["model_versions"]
    for name, number in after.items():
        assert number <= 1.02 * before[name] + 2, (name, before, after)
    assert len(audit_history.moves(audit_log.entries_of(NAME))) == 30  # the log is whole


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_a_home_that_trains_every_night_for_a_year_stays_bounded(years: Years) -> None:
    """With what is kept by default; champions come now and then.

    Housekeeping every week is enough: the bound below allows for what a week adds.
    """
    champions = {0, 100, 200, 300}
    half = live(years, range(181), champions)
    whole = live(years, range(181, 365), champions)

    assert whole["model_versions"] <= len(champions) + versions_to_keep() + 2
    assert whole["logged_models"] == whole["model_versions"]
    assert whole["runs"] <= 2 * (days_to_keep() + 7) + len(champions)
    for name, number in whole.items():
        assert number <= 1.25 * half[name] + 5, (name, half, whole)
    assert len(audit_history.moves(audit_log.entries_of(NAME))) == 365  # the log is whole


@pytest.mark.slow
def test_versions_of_another_home_stay(
    years: Years, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two homes on one registry: the other one's log alone tells who was champion there."""
    for night in range(14):
        years.version(accepted=night < 2)
    before = years.numbers()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{years.database}")
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "another"))
    years.days = 2

    assert [each for each in find_surplus() if each.kind == "version"] == []

    monkeypatch.setenv("ATELIER_HOME", str(years.home))
    assert delete(each for each in find_surplus() if each.kind == "version") == 1
    assert before - years.numbers() == {3}


@pytest.mark.slow
def test_versions_whose_end_was_written_before_a_kill_go_the_next_time(years: Years) -> None:
    for night in range(13):
        years.version(accepted=night == 0)
    years.days = 2
    (spare,) = [each for each in find_surplus() if each.kind == "version"]
    with file_lock(f"registry-{NAME}"):
        audit_anchor.note_gone(NAME, [int(spare.key)], "never champion", "prune")

    assert [each.key for each in find_surplus() if each.kind == "version"] == [spare.key]


@pytest.mark.slow
@pytest.mark.parametrize("num_removed", [0, 1, 3, 100], ids=lambda number: f"{number}-tags-gone")
def test_a_version_that_a_kill_left_half_removed_goes_the_next_time(
    num_removed: int, years: Years, monkeypatch: pytest.MonkeyPatch
) -> None:
    for night in range(13):
        years.version(accepted=night == 0)
    years.days = 2
    (spare,) = [each for each in find_surplus() if each.kind == "version"]

    class Killed(BaseException):
        pass

    def until_then(*told: str) -> None:
        removed.append(told[-1])
        if len(removed) > num_removed:
            raise Killed
        remove_tag(*told)

    def killed(*_: str) -> None:
        raise Killed

    removed: list[str] = []
    remove_tag = client().delete_model_version_tag
    with monkeypatch.context() as patch:
        patch.setattr(
            type(client()), "delete_model_version_tag", lambda _, *told: until_then(*told)
        )
        patch.setattr(type(client()), "delete_model_version", killed)
        with pytest.raises(Killed):
            delete([spare])
    assert int(spare.key) in years.numbers()

    remove_surplus.fn()

    assert int(spare.key) not in years.numbers()
    assert problems_of(NAME, with_packages=False) == []
    told = [entry for entry in audit_log.entries_of(NAME) if entry.action == "prune"]
    assert [entry.evidence["gone"] for entry in told] == [[int(spare.key)]]
