"""The audit log: appended to, chained, settled after a kill."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.registry import audit_history, audit_log
from tasks.registry.log_storage import known_models


def test_an_altered_line_is_noticed(move: Callable[..., None], atelier_home: Path) -> None:
    move("m", None, 1)
    path = audit_log.log_path("m")
    path.write_text(path.read_text().replace("for 1", "for 7"))

    with pytest.raises(audit_log.AuditLogDamaged, match="line 1 or the one after it was altered"):
        audit_log.entries_of("m")


def test_a_removed_line_is_noticed(move: Callable[..., None], atelier_home: Path) -> None:
    move("m", None, 1)
    move("m", 1, 2)
    path = audit_log.log_path("m")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))

    with pytest.raises(audit_log.AuditLogDamaged, match="altered"):
        audit_log.entries_of("m")


def test_a_line_cut_off_by_a_kill_does_not_count_and_is_replaced(
    move: Callable[..., None], atelier_home: Path
) -> None:
    move("m", None, 1)
    with audit_log.log_path("m").open("a") as file:
        file.write('{"number": 3, "kind": "int')

    assert len(audit_log.entries_of("m")) == 2
    move("m", 1, 2)

    assert audit_history.champion_by(audit_log.entries_of("m")) == 2
    for line in audit_log.log_path("m").read_text().splitlines():
        json.loads(line)


def test_entries_are_on_the_disk_before_append_returns(
    atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)

    audit_log.append("m", "intent", to_version=1)

    assert len(synced) == 2  # the file, and the folder that names it


@pytest.mark.parametrize(
    "evidence",
    [{"gone": 5}, {"gone": [[1]]}, {"gone": ["x"]}, {"anchors": 5}, {"withdrawn": {"a": 5}}],
)
def test_notes_of_another_shape_are_told_with_their_line(
    move: Callable[..., None], atelier_home: Path, evidence: dict[str, object]
) -> None:
    move("m", None, 1)
    audit_log.append("m", "repair", action="accept", evidence=evidence)

    with pytest.raises(audit_log.AuditLogDamaged, match="line 3 cannot be read"):
        audit_log.entries_of("m")


def test_copies_beside_a_log_are_no_logs(move: Callable[..., None], atelier_home: Path) -> None:
    move("m", None, 1)
    path = audit_log.log_path("m")
    for name in ("m (copy).jsonl", "m.bak.jsonl", "Copy of m.jsonl", "m.jsonl~"):
        path.with_name(name).write_bytes(path.read_bytes())

    assert known_models() == ["m"]
    assert audit_history.lasting_contents() == {"content 1"}
