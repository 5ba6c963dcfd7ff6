"""Homes whose names mean something in an address, in a shell, or in a page."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from atelier.__main__ import main
from atelier.diagnostics import installation
from atelier.services import background_processes, local_servers
from atelier.services.server_records import Server
from tasks.store.files import sqlite_address
from tasks.tracking.runs import open_run

NAMES = [
    *("a%20b", "a#b", "a?b", "a b", "a&b", "a'b\"c", "é書", "a:b", "a%2Fb", "a@b", "a;b", "a+b"),
    *("a=b", "a[b]", "%", "a%zz", "a\\b", "$HOME", "~", "`id`", "<b>", "a|b", "{x}", "%3F"),
]
NASTIEST = "né %20 a#b?c&d+'\"`$HOME` 書:x;[y] <b> %3Fmode=ro"


def noted(given: list[dict[str, str]]) -> Callable[..., Server]:
    """In place of `start`: only keeps the environment of what it is asked to start."""

    def start(name: str, _: list[str], url: str, port: int, environment: dict[str, str]) -> Server:
        given.append(environment)
        return Server(name, url, port, os.getpid())

    return start


@pytest.mark.parametrize("name", NAMES)
def test_the_address_of_a_database_names_its_file_and_no_other(name: str, tmp_path: Path) -> None:
    home = tmp_path / name
    home.mkdir()
    engine = create_engine(sqlite_address(home / "x.db"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
    engine.dispose()

    with sqlite3.connect(home / "x.db") as found:
        assert found.execute("SELECT name FROM sqlite_master").fetchall() == [("numbers",)]
    found.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("name", [*NAMES, NASTIEST])
def test_the_doctor_looks_at_that_very_database(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "x.db"
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    assert installation.database(path).state == "failed"

    path.unlink()
    sqlite3.connect(path).close()
    path.touch()
    assert installation.database(path).state == "ok"
    assert sorted(each.name for each in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("name", [*NAMES, NASTIEST])
def test_the_servers_are_given_addresses_inside_the_home(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from sqlalchemy.engine import make_url

    given: list[dict[str, str]] = []
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / name))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / name / "prefect"))
    monkeypatch.setattr(background_processes, "start", noted(given))
    for server in ("prefect", "mlflow"):
        local_servers._start(server, 1)

    for environment in given:
        mlflow = make_url(environment["MLFLOW_BACKEND_STORE_URI"])
        assert mlflow.database == str(tmp_path / name / "mlflow.db")
        prefect = make_url(environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"])
        assert prefect.drivername == "sqlite+aiosqlite"
        assert prefect.database == str(tmp_path / name / "prefect" / "prefect.db")
        files = LocalArtifactRepository(environment["MLFLOW_ARTIFACTS_DESTINATION"])
        assert files.artifact_dir == str(tmp_path / name / "mlartifacts")


IMPOSSIBLE = {
    "{tmp}/loop/x": "Symlink loop",
    "~nobody-of-this-name/x": "home directory",
    "{tmp}/" + 300 * "a": "File name too long",
    "{tmp}/" + 600 * "abcdefgh/": "File name too long",
    "{tmp}/\udcff": "not UTF-8",
}


@pytest.mark.parametrize("command", ["status", "up", "doctor"])
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_home_that_cannot_be_is_told_in_one_line(
    name: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv("ATELIER_HOME", name.format(tmp=tmp_path))

    assert main([command]) == 2

    said = capsys.readouterr().err
    assert said.startswith("atelier: ATELIER_HOME is '")
    assert IMPOSSIBLE[name] in said
    assert "set ATELIER_HOME to a folder that you may write to" in said
    assert len(said.splitlines()) == 1
    assert len(said) < 400
    assert [each.name for each in tmp_path.iterdir()] == ["loop"]


@pytest.mark.parametrize(
    "variable",
    [
        "PREFECT_SERVER_DATABASE_CONNECTION_URL",
        "PREFECT_API_DATABASE_CONNECTION_URL",
        "PREFECT_SERVER_DATABASE_HOST",
    ],
)
def test_a_database_of_ones_own_stays(
    variable: str, atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []
    monkeypatch.setenv(variable, "postgresql+asyncpg://somebody@host/prefect")
    monkeypatch.setattr(background_processes, "start", noted(given))

    local_servers._start("prefect", 1)

    connection = {k: v for k, v in given[0].items() if "_DATABASE_" in k}
    assert connection == {variable: "postgresql+asyncpg://somebody@host/prefect"}


def test_runs_without_a_server_are_kept_in_the_nastiest_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow makes the folder of a database as its address is spelled."""
    home = tmp_path / NASTIEST / "home"
    monkeypatch.setenv("ATELIER_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home.mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    with open_run("some"):
        pass

    assert (home / "mlflow.db").stat().st_size > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["here", NASTIEST])


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_run_in_the_nastiest_home_writes_nowhere_else(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    home, temporary = tmp_path / NASTIEST / "home", tmp_path / "%41 #temporary"
    temporary.mkdir()
    settings = {"TMPDIR": str(temporary)}
    try:
        done = command(home, "run", "--preset", "quick", "--models", "vae,ngram", **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        sampled = command(home, "sample", **settings)
        assert sampled.returncode == 0, sampled.stdout + sampled.stderr
        looked = command(home, "doctor", "--verbose", **settings)
        assert "database mlflow.db: " in looked.stdout
        for name in ("MLflow experiment", "MLflow runs", "Prefect runs", "slots", "servers"):
            assert f"ok         {name}: " in looked.stdout, looked.stdout
        assert "not made, for the servers" not in looked.stdout
        assert "FAILED" not in looked.stdout, looked.stdout
    finally:
        command(home, "down", **settings)

    assert (home / "gallery" / "index.html").is_file()
    for name in ("mlflow.db", "prefect/prefect.db"):
        with sqlite3.connect(home / name) as database:
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        database.close()
        assert tables[0] > 10
    assert list((home / "mlartifacts").rglob("*.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([NASTIEST, temporary.name])
    assert [path.name for path in home.parent.iterdir()] == ["home"]
