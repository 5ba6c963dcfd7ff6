"""`atelier verify`, `history` and `doctor --repair`, on a registry that was damaged."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atelier.__main__ import main
from atelier.cli.repair import disagreements
from tasks.registry import audit_anchor, audit_log
from tasks.registry.log_storage import known_models
from tasks.registry.versions import champion_of
from tasks.tracking.mlflow_client import client
from tests.imports import imported_by

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]


def findings() -> list[tuple[str, str]]:
    return [(finding.state, finding.what) for finding in disagreements()]


def test_verify_tells_the_digest_or_the_file(studio: Any, capsys: Any) -> None:
    name = studio.name
    for address, number in ((name, 2), (f"{name}@champion", 2), (f"models:/{name}/1", 1)):
        assert main(["verify", address]) == 0
        digest = client().get_model_version(name, str(number)).tags["package_digest"]
        printed = capsys.readouterr().out
        assert printed.startswith(f"{name} version {number}: all ")
        assert printed.endswith(f"sha256 {digest}\n")

    (studio.package(2) / "served_model.py").write_text("raise SystemExit")

    assert main(["verify", name]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"atelier: {name} version 2 is not what was registered")
    assert "served_model.py was changed" in complaint
    assert complaint.count("\n") == 1
    assert main(["verify", f"{name}/1"]) == 0
    for wrong, message in (
        (f"{name}/9", "has no version '9'"),
        (f"{name}@nobody", "has no version 'nobody'"),
        ("a/b/c", "names no version"),
    ):
        assert main(["verify", wrong]) == 2
        assert message in capsys.readouterr().err


def test_doctor_finds_each_disagreement_and_goes_only_the_ways_that_are_named(
    studio: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = studio.name
    assert findings() == [
        ("ok", "1 agree with the registry; the champions are what was registered")
    ]
    assert main(["doctor", "--repair"]) == 0
    assert "nothing to repair" in capsys.readouterr().out
    client().set_registered_model_alias(name, "champion", "1")

    ((state, what),) = findings()
    assert (state, "the alias was moved without this program" in what) == ("failed", True)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))  # no terminal: nothing is asked
    assert main(["doctor", "--repair"]) == 1
    printed = capsys.readouterr().out
    assert f"--repair {name}=restore" in printed
    assert f"--repair {name}=accept" in printed
    assert champion_of(name).version == 1
    assert main(["doctor", "--repair", name]) == 2
    assert main(["doctor", "--repair", f"{name}=burn"]) == 2
    assert "no way is called 'burn'" in capsys.readouterr().err

    assert main(["doctor", "--repair", f"{name}=restore"]) == 0

    assert champion_of(name).version == 2
    assert findings()[0][0] == "ok"


def test_a_person_at_a_terminal_is_asked(
    studio: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    client().set_registered_model_alias(studio.name, "champion", "1")
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    assert main(["doctor", "--repair"]) == 0
    assert champion_of(studio.name).version == 1
    monkeypatch.setattr("sys.stdin", Terminal("restore\n"))
    assert main(["doctor", "--repair"]) == 0
    assert champion_of(studio.name).version == 2


def test_history_explains_what_was_lost_and_what_was_damaged(
    studio: Any, capsys: Any, migrated_database: Path
) -> None:
    shutil.copy(migrated_database, studio.home / "mlflow.db")
    assert main(["history"]) == 0
    printed = capsys.readouterr().out
    assert "! tale-ngram: the registry has no such model any more" in printed
    assert "promote" in printed
    assert "2 -> none" in printed

    studio.log.write_bytes(studio.log.read_bytes().replace(b"better: ", b"bettar: "))
    assert main(["history"]) == 2
    printed = capsys.readouterr().out
    assert "or the one after it was altered" in printed
    assert f"--repair {studio.name}=begin" in printed


def test_a_database_that_is_gone_is_told_and_none_is_made(
    studio: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (studio.home / "mlflow.db").unlink()

    assert main(["history"]) == 1

    told = capsys.readouterr()
    assert "promote" in told.out
    assert "mlflow.db is not there, or empty, while the audit logs of tale-ngram stand" in told.err
    ((state, what),) = findings()
    assert state == "failed"
    assert what.endswith("mlflow.db was lost; audit logs stand of tale-ngram")
    assert main(["doctor", "--repair"]) == 2
    assert main(["verify", studio.name]) == 2
    assert not (studio.home / "mlflow.db").exists()
    assert known_models() == [studio.name]


def test_copies_of_logs_and_strange_models_stop_no_command(studio: Any, capsys: Any) -> None:
    for copy in ("tale-ngram (copy).jsonl", "tale-ngram.bak.jsonl"):
        shutil.copy(studio.log, studio.log.with_name(copy))
    client().create_registered_model("Tale of another", tags={"family": "vae"})

    assert main(["history"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("! 'Tale of another' bears a family of ours and a name that no model")
    assert "\ntale-ngram\n" in printed
    assert main(["gc"]) == 0
    ((state, what),) = findings()
    assert (state, "'Tale of another'" in what) == ("failed", True)
    assert main(["doctor", "--repair"]) == 1
    assert "rename or delete it in MLflow" in capsys.readouterr().out


def test_a_champion_without_files_is_told_by_every_command(studio: Any, capsys: Any) -> None:
    studio.sql("DELETE FROM logged_models WHERE model_id LIKE 'm-%'")

    for command in (["history"], ["verify", studio.name], ["doctor", "--repair"]):
        main(command)
        said = capsys.readouterr()
        assert "version 2" in said.out + said.err
        assert "it has no files any more: MLflow deleted its package" in said.out + said.err


def test_what_a_command_finds_out_is_said_without_prefect_too(studio: Any) -> None:
    anchor, _ = audit_anchor.anchor_tag(audit_log.read(studio.name))
    client().delete_registered_model_tag(studio.name, anchor)
    done = subprocess.run(
        [sys.executable, "-m", "atelier", "history"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert done.returncode == 0, done.stderr
    said = rf"^\d\d:\d\d:\d\d  WARNING: {studio.name}: the registry does not know the last \d lines"
    assert len(re.findall(said, done.stdout, re.MULTILINE)) == 1, done.stdout


@pytest.mark.parametrize("command", ["history", "gc", "doctor", "doctor --repair", "verify {name}"])
def test_commands_that_only_look_import_no_library_that_takes_seconds(
    studio: Any, command: str
) -> None:
    """On a sound registry; what has to be written, or told as MLflow tells it, may take longer."""
    words = command.format(name=studio.name).split()
    imported, done = imported_by(
        f"from atelier.__main__ import main; print('returned', main({words!r}))"
    )

    returned = int(done.stdout.split()[-1])
    assert imported == []
    assert returned == 0 or words == ["doctor"], done.stdout  # which looks at this machine, too
    assert "could not be checked" not in done.stdout
