"""What Prefect's server forgets, by the setting of this project: a real server, a day later."""

import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]
TABLES = ("flow_run", "task_run", "flow_run_state", "log")
SECONDS_TO_FORGET = 240


def counts(database: Path) -> dict[str, int]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        return {
            table: int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
            for table in TABLES
        }


@pytest.mark.slow
def test_old_flow_runs_go_with_all_that_belongs_to_them(command: Command, tmp_path: Path) -> None:
    home, text = tmp_path / "home", tmp_path / "short.txt"
    text.write_text("one line\nand another\n")
    run = ("run", "--models", "ngram", "--text", f"file:{text}")
    assert command(home, *run).returncode == 2  # a run that ends at once, with one inside
    database = home / "prefect" / "prefect.db"
    deadline = time.monotonic() + 60
    while counts(database)["task_run"] < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert command(home, "down").returncode == 0
    before = counts(database)
    assert before["flow_run"] == 2
    assert min(before.values()) > 0
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE flow_run SET end_time = datetime(end_time, '-2 days')")

    settings = {
        "ATELIER_KEEP_DAYS": "1",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "2",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ORPHAN_CLEANUP_LOOP_SECONDS": "2",
    }
    try:
        assert command(home, "sample", **settings).returncode == 2  # starts the servers
        deadline = time.monotonic() + SECONDS_TO_FORGET
        while any(counts(database).values()) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert counts(database) == dict.fromkeys(TABLES, 0)
    finally:
        command(home, "down")
