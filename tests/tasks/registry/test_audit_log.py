"""The ledger: appended to, chained, settled after a kill."""

import json
import os
from pathlib import Path

import pytest

from tasks.registry import audit_log


def move(
    model: str, before: int | None, after: int, action: str = "promote", content: str = ""
) -> None:
    intent = audit_log.append(
        model,
        "intent",
        action=action,
        from_version=before,
        to_version=after,
        why=f"for {after}",
        digests={"content": content or f"content {after}"},
    )
    audit_log.append(model, "done", settles=intent.number)


def test_moves_are_read_in_order_with_who_when_and_why(atelier_home: Path) -> None:
    move("m", None, 1)
    move("m", 1, 2)

    first, second = audit_log.moves(audit_log.entries_of("m"))

    assert (first.from_version, first.to_version, first.why) == (None, 1, "for 1")
    assert (second.from_version, second.to_version) == (1, 2)
    assert "@" in first.who
    assert first.at.endswith("+00:00")
    assert audit_log.champion_by(audit_log.entries_of("m")) == 2


def test_an_altered_line_is_noticed(atelier_home: Path) -> None:
    move("m", None, 1)
    path = audit_log.ledger_path("m")
    path.write_text(path.read_text().replace("for 1", "for 7"))

    with pytest.raises(audit_log.LedgerDamaged, match="line 1 or the one after it was altered"):
        audit_log.entries_of("m")


def test_a_removed_line_is_noticed(atelier_home: Path) -> None:
    move("m", None, 1)
    move("m", 1, 2)
    path = audit_log.ledger_path("m")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))

    with pytest.raises(audit_log.LedgerDamaged, match="altered"):
        audit_log.entries_of("m")


def test_a_line_cut_off_by_a_kill_does_not_count_and_is_replaced(atelier_home: Path) -> None:
    move("m", None, 1)
    with audit_log.ledger_path("m").open("a") as file:
        file.write('{"number": 3, "kind": "int')

    assert len(audit_log.entries_of("m")) == 2
    move("m", 1, 2)

    assert audit_log.champion_by(audit_log.entries_of("m")) == 2
    for line in audit_log.ledger_path("m").read_text().splitlines():
        json.loads(line)


def test_an_intent_without_an_outcome_is_no_move(atelier_home: Path) -> None:
    move("m", None, 1)
    intent = audit_log.append("m", "intent", action="promote", from_version=1, to_version=2)

    entries = audit_log.entries_of("m")

    assert audit_log.unsettled(entries) == intent
    assert audit_log.champion_by(entries) == 1
    audit_log.append("m", "void", settles=intent.number)
    assert audit_log.unsettled(audit_log.entries_of("m")) is None
    assert audit_log.champion_by(audit_log.entries_of("m")) == 1


def test_what_a_person_left_stays_withdrawn_until_it_is_champion_again(atelier_home: Path) -> None:
    move("m", None, 1)
    move("m", 1, 2)
    move("m", 2, 1, "rollback")
    assert audit_log.withdrawn(audit_log.entries_of("m"), "content 2") == "for 1"
    assert audit_log.withdrawn(audit_log.entries_of("m"), "content 1") == ""

    move("m", 1, 2, "override")

    assert audit_log.withdrawn(audit_log.entries_of("m"), "content 2") == ""
    assert audit_log.withdrawn(audit_log.entries_of("m"), "content 1") == "for 2"
    assert audit_log.withdrawn_contents(audit_log.entries_of("m")) == {"content 1": "for 2"}


def test_a_version_that_a_person_declined_is_withdrawn_and_one_the_gate_refused_is_not(
    atelier_home: Path,
) -> None:
    move("m", None, 1)
    for action, number in (("refuse", 2), ("decline", 3)):
        digests = {"content": f"content {number}"}
        audit_log.append(
            "m", "refused", action=action, to_version=number, why="ugly", digests=digests
        )

    entries = audit_log.entries_of("m")

    assert audit_log.withdrawn(entries, "content 2") == ""
    assert audit_log.withdrawn(entries, "content 3") == "ugly"
    assert audit_log.champion_by(entries) == 1


def test_a_withdrawal_is_of_the_content_and_not_of_the_number(atelier_home: Path) -> None:
    """Numbers begin again when a database is lost."""
    move("m", None, 1)
    move("m", 1, 2)
    move("m", 2, 1, "rollback")
    audit_log.append("m", "outside", action="lost", from_version=1, evidence={"gone": [1, 2]})
    move("m", None, 1, content="another 1")
    move("m", 1, 2, content="another 2")

    entries = audit_log.entries_of("m")

    assert audit_log.withdrawn_contents(entries) == {"content 2": "for 1"}
    assert audit_log.live_versions(entries) == {1: "another 1", 2: "another 2"}
    move("m", 2, 1, "rollback", content="another 1")
    assert set(audit_log.withdrawn_contents(audit_log.entries_of("m"))) == {
        "content 2",
        "another 2",
    }


def test_what_a_log_never_told_of_a_version_comes_from_the_registry(atelier_home: Path) -> None:
    """An older program wrote no content where an alias was moved elsewhere."""
    audit_log.append("m", "outside", action="outside", to_version=3)
    move("m", 3, 1, "rollback")

    entries = audit_log.entries_of("m")

    assert audit_log.withdrawn(entries, "content 3") == ""
    assert audit_log.withdrawn(entries, "content 3", {3: "content 3"}) == "for 1"


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
    atelier_home: Path, evidence: dict[str, object]
) -> None:
    move("m", None, 1)
    audit_log.append("m", "repair", action="accept", evidence=evidence)

    with pytest.raises(audit_log.LedgerDamaged, match="line 3 cannot be read"):
        audit_log.entries_of("m")


def test_copies_beside_a_log_are_no_logs(atelier_home: Path) -> None:
    move("m", None, 1)
    path = audit_log.ledger_path("m")
    for name in ("m (copy).jsonl", "m.bak.jsonl", "Copy of m.jsonl", "m.jsonl~"):
        path.with_name(name).write_bytes(path.read_bytes())

    assert audit_log.known_models() == ["m"]
    assert audit_log.lasting_contents() == {"content 1"}
