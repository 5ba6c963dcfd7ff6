"""What the entries of a log say: moves, what a person left, and what is unsettled."""

from collections.abc import Callable
from pathlib import Path

from tasks.registry import audit_history, audit_log


def test_moves_are_read_in_order_with_who_when_and_why(
    move: Callable[..., None], atelier_home: Path
) -> None:
    move("m", None, 1)
    move("m", 1, 2)

    first, second = audit_history.moves(audit_log.entries_of("m"))

    assert (first.from_version, first.to_version, first.why) == (None, 1, "for 1")
    assert (second.from_version, second.to_version) == (1, 2)
    assert "@" in first.who
    assert first.at.endswith("+00:00")
    assert audit_history.champion_by(audit_log.entries_of("m")) == 2


def test_an_intent_without_an_outcome_is_no_move(
    move: Callable[..., None], atelier_home: Path
) -> None:
    move("m", None, 1)
    intent = audit_log.append("m", "intent", action="promote", from_version=1, to_version=2)

    entries = audit_log.entries_of("m")

    assert audit_history.unsettled(entries) == intent
    assert audit_history.champion_by(entries) == 1
    audit_log.append("m", "void", settles=intent.number)
    assert audit_history.unsettled(audit_log.entries_of("m")) is None
    assert audit_history.champion_by(audit_log.entries_of("m")) == 1


def test_what_a_person_left_stays_withdrawn_until_it_is_champion_again(
    move: Callable[..., None], atelier_home: Path
) -> None:
    move("m", None, 1)
    move("m", 1, 2)
    move("m", 2, 1, "rollback")
    assert audit_history.withdrawal_reason(audit_log.entries_of("m"), "content 2") == "for 1"
    assert audit_history.withdrawal_reason(audit_log.entries_of("m"), "content 1") == ""

    move("m", 1, 2, "override")

    assert audit_history.withdrawal_reason(audit_log.entries_of("m"), "content 2") == ""
    assert audit_history.withdrawal_reason(audit_log.entries_of("m"), "content 1") == "for 2"
    assert audit_history.withdrawn_contents(audit_log.entries_of("m")) == {"content 1": "for 2"}


def test_a_version_that_a_person_declined_is_withdrawn_and_one_the_gate_refused_is_not(
    move: Callable[..., None],
    atelier_home: Path,
) -> None:
    move("m", None, 1)
    for action, number in (("refuse", 2), ("decline", 3)):
        digests = {"content": f"content {number}"}
        audit_log.append(
            "m", "refused", action=action, to_version=number, why="ugly", digests=digests
        )

    entries = audit_log.entries_of("m")

    assert audit_history.withdrawal_reason(entries, "content 2") == ""
    assert audit_history.withdrawal_reason(entries, "content 3") == "ugly"
    assert audit_history.champion_by(entries) == 1


def test_a_withdrawal_is_of_the_content_and_not_of_the_number(
    move: Callable[..., None], atelier_home: Path
) -> None:
    """Numbers begin again when a database is lost."""
    move("m", None, 1)
    move("m", 1, 2)
    move("m", 2, 1, "rollback")
    audit_log.append("m", "outside", action="lost", from_version=1, evidence={"gone": [1, 2]})
    move("m", None, 1, content="another 1")
    move("m", 1, 2, content="another 2")

    entries = audit_log.entries_of("m")

    assert audit_history.withdrawn_contents(entries) == {"content 2": "for 1"}
    assert audit_history.live_versions(entries) == {1: "another 1", 2: "another 2"}
    move("m", 2, 1, "rollback", content="another 1")
    assert set(audit_history.withdrawn_contents(audit_log.entries_of("m"))) == {
        "content 2",
        "another 2",
    }


def test_what_an_older_database_names_champion_stays_withdrawn_until_somebody_names_it(
    move: Callable[..., None], atelier_home: Path
) -> None:
    move("m", None, 1)
    move("m", 1, 2)
    move("m", 2, 1, "rollback")
    lost = {"action": "lost", "from_version": 1, "to_version": 2}
    audit_log.append("m", "outside", **lost, digests={"content": "content 2"})

    assert audit_history.withdrawn_contents(audit_log.entries_of("m")) == {"content 2": "for 1"}

    move("m", 2, 1, "restore")
    move("m", 1, 2, "override")
    assert audit_history.withdrawal_reason(audit_log.entries_of("m"), "content 2") == ""


def test_who_restores_the_champion_of_the_log_after_a_loss_has_left_nothing(
    move: Callable[..., None], atelier_home: Path
) -> None:
    """An older database names version 1 again, which was beaten and left by nobody."""
    move("m", None, 1)
    move("m", 1, 2)
    lost = {"action": "lost", "from_version": 2, "to_version": 1}
    audit_log.append("m", "outside", **lost, digests={"content": "content 1"})
    audit_log.append("m", "refused", action="refuse", to_version=3, why="worse")
    move("m", 1, 2, "restore")

    assert audit_history.withdrawn_contents(audit_log.entries_of("m")) == {}

    move("m", 2, 1)
    move("m", 1, 2, "restore")  # not of a loss: somebody took the name from it
    assert audit_history.withdrawn_contents(audit_log.entries_of("m")) == {"content 1": "for 2"}


def test_who_accepts_what_an_older_database_names_has_made_it_champion(
    move: Callable[..., None], atelier_home: Path
) -> None:
    for number in (1, 2, 3):
        move("m", number - 1 or None, number)
    move("m", 3, 2, "rollback")
    move("m", 2, 1, "rollback")
    lost = {"action": "lost", "from_version": 1, "to_version": 3}
    audit_log.append("m", "outside", **lost, digests={"content": "content 3"})
    audit_log.append("m", "repair", action="accept", why="by hand")

    assert audit_history.withdrawn_contents(audit_log.entries_of("m")) == {"content 2": "for 1"}


def test_what_a_log_never_told_of_a_version_comes_from_the_registry(
    move: Callable[..., None], atelier_home: Path
) -> None:
    """An older program wrote no content where an alias was moved elsewhere."""
    audit_log.append("m", "outside", action="outside", to_version=3)
    move("m", 3, 1, "rollback")

    entries = audit_log.entries_of("m")

    assert audit_history.withdrawal_reason(entries, "content 3") == ""
    assert audit_history.withdrawal_reason(entries, "content 3", {3: "content 3"}) == "for 1"
