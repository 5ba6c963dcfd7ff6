"""The doctor finds what is really broken, and says what to do."""

import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import ViewType

from atelier.__main__ import main
from atelier.cli import doctor
from atelier.diagnostics import installation, server_checks
from atelier.services.finding import Finding
from atelier.services.server_records import Server
from tasks.runtime.processes import name_of, this_process
from tasks.tracking.mlflow_client import client, set_tags, tracking_experiment
from tasks.tracking.runs import OWNER, close_dead_runs, open_run

ROOT = Path(__file__).resolve().parents[3]


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.slow
def test_a_home_that_cannot_be_made_is_named_and_the_rest_is_still_checked(
    tmp_path: Path, command: Command
) -> None:
    (tmp_path / "file").write_text("")

    done = command(tmp_path / "file" / "home", "doctor", "--verbose", OMP_WAIT_POLICY="active")

    assert done.returncode == 1
    assert done.stderr == ""
    assert (
        f"FAILED     home: {tmp_path / 'file' / 'home'}: {tmp_path / 'file'} is no" in done.stdout
    )
    assert "set ATELIER_HOME to a folder that you may write to" in done.stdout
    assert "attention  threads: OMP_WAIT_POLICY is active" in done.stdout
    assert "ok         versions: " in done.stdout


@pytest.mark.slow
def test_with_no_server_up_all_is_well_once_the_lock_is_followed(
    tmp_path: Path, command: Command
) -> None:
    done = command(tmp_path / "home", "doctor", "--verbose")

    findings = {line.split(": ")[0][11:]: line[:9].strip() for line in done.stdout.splitlines()}
    del findings["lock file"]  # a developer's environment may differ from it
    number = len(done.stdout.splitlines())
    last = done.stdout.splitlines()[-1]
    assert "not made, for the servers do not answer: MLflow experiment, " in last
    assert not (tmp_path / "home").exists()  # it makes nothing
    assert "servers: none is up" in done.stdout
    assert not [name for name, state in findings.items() if state in ("attention", "FAILED")]
    assert done.returncode == (1 if "attention  lock file" in done.stdout else 0)
    assert number > 10


def test_a_version_out_of_bounds_is_reported_with_the_reason_of_the_bound(tmp_path: Path) -> None:
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(
        '[project]\ndependencies = [\n    "psutil>=99",  # older ones count wrongly\n'
        '    "packaging>=1",\n    "no-such-library>=1",\n]\n'
    )

    finding = installation.version_bounds(pyproject)

    assert finding.state == "failed"
    assert f"psutil {psutil.__version__}, not psutil>=99 (older ones count wrongly)" in finding.what
    assert "no-such-library missing" in finding.what
    assert "packaging" not in finding.what


def test_our_own_bounds_are_all_read() -> None:
    finding = installation.version_bounds(ROOT / "pyproject.toml")

    assert finding.state == "ok", finding.what
    assert int(finding.what.split()[0]) >= 15


def test_a_library_that_is_not_as_locked_is_drift_and_markers_are_heeded(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        f"psutil=={psutil.__version__} \\\n    --hash=sha256:00\n"
        "numpy==0.1 ; python_full_version >= '3' \\\n    --hash=sha256:00\n"
        "never-there==1.0 ; sys_platform == 'emscripten' \\\n    --hash=sha256:00\n"
    )

    finding = installation.lock_drift(lock)

    assert finding.state == "attention"
    assert finding.what.startswith("1 of 2 differ: numpy ")
    assert finding.what.endswith("locked 0.1")


def test_an_old_interpreter_fails() -> None:
    assert installation.python_version((3, 10, 4)).state == "failed"
    assert installation.python_version().state == "ok"


def test_too_little_disk_space_is_told_in_two_degrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installation.disk_space(tmp_path / "not" / "yet", comfortable_bytes=1).state == "ok"
    assert installation.disk_space(tmp_path, comfortable_bytes=10**18).state == "attention"
    monkeypatch.setattr(installation, "SPACE_FOR_A_RUN_BYTES", 10**18)
    assert installation.disk_space(tmp_path).state == "failed"


def test_more_threads_than_a_container_has_cores_are_noticed(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("50000 100000\n")
    cores = installation.usable_cores(quota)

    assert cores == 0.5
    assert installation.threads({"OMP_NUM_THREADS": "2"}, cores).state == "attention"
    unseen = installation.threads({}, cores)
    assert unseen.to_do.startswith("set OMP_NUM_THREADS=1")
    quota.write_text("max 100000\n")
    assert installation.threads({}, installation.usable_cores(quota)).state == "ok"


def test_a_gpu_that_torch_does_not_use_is_noticed(tmp_path: Path) -> None:
    assert installation.device("cpu", tmp_path).state == "ok"
    (tmp_path / "nvidia0").touch()
    assert installation.device("cpu", tmp_path).state == "attention"
    assert installation.device("cuda", tmp_path).state == "ok"


def test_whoever_holds_a_port_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        number = listener.getsockname()[1]
        assert f"taken by process {os.getpid()}" in installation.port(number, "Prefect", []).what
        assert installation.port(number, "Prefect", [os.getpid()]).what == "our Prefect server"


def test_a_locked_database_is_found_with_the_process_that_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with sqlite3.connect(path) as owner:
        owner.execute("CREATE TABLE numbers (n INTEGER)")
    assert installation.database(path).state == "ok"

    owner.execute("BEGIN IMMEDIATE")
    locked = installation.database(path, seconds=0.05)
    owner.close()

    assert locked.state == "attention"
    assert "locked" in locked.what
    assert str(os.getpid()) in locked.what
    assert installation.database(path).state == "ok"


def test_a_file_that_is_no_database_fails(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"not a database at all" * 100)

    assert installation.database(tmp_path / "broken.db").state == "failed"
    assert installation.database(tmp_path / "none.db").what == "not made yet"


def test_only_temporary_files_that_nobody_writes_any_more_are_reported(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left = tmp_path / "data" / f".partial-{name_of(child.pid)}-abc.npy"
    left.parent.mkdir()
    left.touch()
    os.utime(left, (0, 0))  # however old it looks

    assert installation.orphaned_temp_files(tmp_path).state == "ok"
    child.communicate(b"\n")
    old = installation.orphaned_temp_files(tmp_path)
    assert old.state == "attention"
    assert str(left) in old.what


def test_a_server_that_lives_but_does_not_answer_fails() -> None:
    server = Server("mlflow", "http://127.0.0.1:1", 1, os.getpid())

    finding = server_checks.servers([(server, False)], "/home")

    assert finding.state == "failed"
    assert "logs/mlflow-server.log" in finding.to_do
    assert server_checks.servers([], "/home").state == "ok"


def mlflow(path: str, body: Any) -> Any:
    """Answers as MLflow's server does, from the database of a test."""
    if path == "experiments/search":
        found = client().search_experiments(ViewType.ALL, filter_string=body["filter"])
        return {"experiments": [dict(each) for each in found]} if found else {}
    assert path == "runs/search"
    runs = client().search_runs(body["experiment_ids"], body["filter"])
    return {
        "runs": [
            {
                "info": {"run_id": run.info.run_id, "run_name": run.info.run_name},
                "data": {"tags": [{"key": k, "value": v} for k, v in run.data.tags.items()]},
            }
            for run in runs
        ]
    }


def test_an_open_run_whose_process_died_is_reported_until_it_is_closed(
    tracking_database: str,
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = name_of(child.pid)
    run = client().create_run(tracking_experiment(), tags={"mlflow.runName": "left behind"})
    set_tags(run.info.run_id, {OWNER: name})
    with open_run("at work"):
        assert server_checks.dead_tracking_runs(mlflow).state == "ok"
        child.communicate(b"\n")
        finding = server_checks.dead_tracking_runs(mlflow)

    assert finding.state == "attention"
    assert finding.what.endswith(": left behind")
    close_dead_runs()
    assert server_checks.dead_tracking_runs(mlflow).state == "ok"
    assert server_checks.OWNER_TAG == OWNER


def test_a_deleted_experiment_is_reported_until_it_is_restored(tracking_database: str) -> None:
    assert server_checks.experiment(mlflow).what == "not made yet"
    number = tracking_experiment()
    assert server_checks.experiment(mlflow).state == "ok"

    client().delete_experiment(number)

    finding = server_checks.experiment(mlflow)
    assert finding.state == "attention"
    assert f"--experiment-id {number}" in finding.to_do
    tracking_experiment()
    assert server_checks.experiment(mlflow).state == "ok"


@pytest.mark.slow
def test_a_running_flow_run_without_a_sign_of_life_is_stuck(prefect: Any) -> None:
    from prefect import flow
    from prefect.states import Running

    run = prefect.create_flow_run(flow(_nothing), name="left behind")
    prefect.set_flow_run_state(run.id, Running(), force=True)

    def ask(path: str, body: Any) -> Any:
        return prefect.request("POST", f"/{path}", json=body).json()

    assert server_checks.stuck_flow_runs(ask).state == "ok"
    stuck = server_checks.stuck_flow_runs(ask, silence=timedelta(0))
    assert stuck.state == "attention"
    assert f"left behind ({run.id})" in stuck.what
    prefect.update_flow_run_labels(run.id, {"atelier.process": this_process()})
    assert server_checks.stuck_flow_runs(ask, silence=timedelta(0)).state == "ok"  # it can be seen
    prefect.delete_flow_run(run.id)
    assert server_checks.stuck_flow_runs(ask, silence=timedelta(0)).state == "ok"


@pytest.mark.slow
def test_a_slot_that_no_run_can_hold_is_an_orphan(prefect: Any) -> None:
    limit = {"name": "gpu", "limit": 1, "active_slots": 1, "slot_decay_per_second": 0}
    prefect.request("POST", "/v2/concurrency_limits/", json=limit)

    def ask(path: str, body: Any) -> Any:
        return prefect.request("POST", f"/{path}", json=body).json()

    finding = server_checks.orphan_slots(ask)

    assert finding.state == "attention"
    assert finding.what == "gpu: 1 held, 0 runs"
    prefect.request("PATCH", "/v2/concurrency_limits/gpu", json={"active_slots": 0})
    assert server_checks.orphan_slots(ask).state == "ok"


def _nothing() -> None:
    """A flow that does nothing."""


def test_the_last_line_says_that_nobody_is_needed_only_where_all_was_looked_at() -> None:
    assert doctor._last_line(23, 0, []) == "23 checks, none needs attention"
    assert doctor._last_line(23, 1, []) == "23 checks, 1 needs attention"
    assert doctor._last_line(23, 2, []) == "23 checks, 2 need attention"
    left_out = doctor._last_line(21, 0, ["MLflow runs", "slots"])
    assert left_out.endswith("; not made, for the servers do not answer: MLflow runs, slots")


def test_checks_are_made_side_by_side_and_told_in_their_order() -> None:
    both = threading.Barrier(2, timeout=30)  # each waits for the other

    def meets(name: str) -> Finding:
        both.wait()
        return Finding(name=name, state="ok", what="")

    def breaks() -> Finding:
        raise RuntimeError("no")

    checks: list[doctor.Check] = [
        ("one", lambda: meets("one")),
        ("broken", breaks),
        ("two", lambda: meets("two")),
        ("left out", lambda: None),
    ]
    found = list(doctor._made(checks))

    assert [name for name, _ in found] == ["one", "broken", "two", "left out"]
    states = [each and [finding.state for finding in each] for _, each in found]
    assert states == [["ok"], ["attention"], ["ok"], None]


def test_a_setting_that_cannot_be_is_told_and_no_secret_is_made(
    atelier_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATELIER_AUTH", "perhaps")
    assert main(["doctor"]) == 1
    assert "FAILED     values: ATELIER_AUTH is 'perhaps'; wanted 1 or 0" in capsys.readouterr().out

    monkeypatch.setenv("ATELIER_AUTH", "1")
    main(["doctor"])
    assert "values" not in capsys.readouterr().out
    assert not (atelier_home / "secret").exists()


def test_the_doctor_imports_neither_prefect_nor_mlflow_nor_torch(tmp_path: Path) -> None:
    """Each takes seconds, and Prefect's client starts a server where it knows of none."""
    script = (
        "import sys\nfrom atelier.__main__ import main\nmain(['doctor'])\n"
        "print(sorted({'prefect', 'mlflow', 'torch'} & set(sys.modules)))"
    )
    environment = {**os.environ, "ATELIER_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[]"
    assert list(tmp_path.iterdir()) == []
