"""The same project on PostgreSQL: by environment variables only, with a real cluster."""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy

DEBIAN_BINARIES = Path("/usr/lib/postgresql")
USERS_WITHOUT_PRIVILEGES = ("postgres", "nobody")


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL of the test's own."""

    port: int

    def address(self, database: str, driver: str) -> str:
        return f"postgresql+{driver}://atelier:a-secret@127.0.0.1:{self.port}/{database}"

    def count(self, database: str, table: str) -> int:
        engine = sqlalchemy.create_engine(self.address(database, "psycopg2"))
        with engine.connect() as connection:
            found = connection.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}"))
            number = int(found.scalar_one())
        engine.dispose()
        return number


def binaries() -> Path:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else []
    places += sorted(DEBIAN_BINARIES.glob("*/bin"), reverse=True)
    usable = [place for place in places if (place / "initdb").exists()]
    if not usable:
        pytest.skip("PostgreSQL's programs are not installed")
    return usable[0]


def run_as(user: str | None, *command: str | Path) -> None:
    subprocess.run(
        [str(part) for part in command],
        check=True,
        capture_output=True,
        cwd="/",
        user=user,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        timeout=120,
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster in a temporary folder; initdb refuses to run as root."""
    if importlib.util.find_spec("psycopg2") is None:
        pytest.skip("psycopg2 is not installed; it is the optional extra `postgresql`")
    programs, user = binaries(), None
    folder = Path(tempfile.mkdtemp(prefix="atelier-pg-"))  # a socket's path must be short
    if os.geteuid() == 0:
        import pwd

        known = {entry.pw_name for entry in pwd.getpwall()}
        user = next((name for name in USERS_WITHOUT_PRIVILEGES if name in known), None)
        if user is None:
            pytest.skip("root cannot run PostgreSQL, and there is no other user to run it as")
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secret = folder / "secret"
    secret.write_text("a-secret")
    data = folder / "data"
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -F -c max_connections=100"
    pg_ctl = (programs / "pg_ctl", "-D", data, "-w", "-t", "100", "-l", folder / "log")
    try:
        secret.chmod(0o644)
        initdb = (programs / "initdb", "-D", data, "-U", "atelier", "-A", "scram-sha-256")
        run_as(user, *initdb, f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync")
        run_as(user, *pg_ctl, "-o", options, "start")
        try:
            found = Cluster(port)
            engine = sqlalchemy.create_engine(found.address("postgres", "psycopg2"))
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                for name in ("prefect", "mlflow"):
                    connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
            engine.dispose()
            yield found
        finally:
            run_as(user, *pg_ctl, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.soak
def test_a_run_leaves_everything_in_postgresql_and_no_sqlite_file(
    cluster: Cluster, command: Command, tmp_path: Path
) -> None:
    home, shared, text = tmp_path / "home", tmp_path / "shared-artifacts", tmp_path / "tale.txt"
    lines = [f"line {n} tells of {n * 7} birds and {n * 13} cats." for n in range(600)]
    text.write_text("\n".join(lines) + "\n")
    settings = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": cluster.address("prefect", "asyncpg"),
        "MLFLOW_BACKEND_STORE_URI": cluster.address("mlflow", "psycopg2"),
        "MLFLOW_ARTIFACTS_DESTINATION": shared.as_uri(),
    }
    arguments = ("run", "--preset", "quick", "--models", "ngram", "--text", f"file:{text}")
    try:
        done = command(home, *arguments, **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"^tale-ngram +1 +champion ", done.stdout, re.MULTILINE)
    finally:
        command(home, "down", **settings)

    assert cluster.count("prefect", "flow_run") >= 4  # the whole, its data, its model, the gallery
    assert cluster.count("prefect", "artifact") >= 1
    assert cluster.count("mlflow", "runs") >= 2
    assert cluster.count("mlflow", "model_versions") == 1
    assert list(shared.rglob("*.safetensors"))
    assert not list(home.rglob("*.db"))
    logs = "".join(path.read_text() for path in (home / "logs").iterdir())
    assert "a-secret" not in logs + done.stdout
