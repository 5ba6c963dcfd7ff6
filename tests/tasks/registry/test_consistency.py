"""Audit log, registry and packages that disagree: each is explained, and has a way out."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tasks.packaging.bundled_code import package_name
from tasks.packaging.files import digest_of_brought, files_of
from tasks.registry import audit_anchor, audit_log, log_storage, promotion
from tasks.registry.consistency import Problem, all_models, misnamed_models, problems_of
from tasks.registry.loading import loaded
from tasks.registry.repair import repair
from tasks.registry.verdicts import verify_champion
from tasks.registry.versions import champion_of, champions, contents_of
from tasks.samples.plan import plan_gallery
from tasks.store.files import BadInput
from tasks.tracking.mlflow_client import client

pytestmark = pytest.mark.slow


CODE = package_name()


def problem_of(studio: Any) -> Problem:
    (problem,) = problems_of(studio.name)
    assert "\n" not in problem.what
    assert studio.name in problem.what
    return problem


def champion(studio: Any) -> int | None:
    found = champion_of(studio.name)
    return None if found is None else int(found.version)


def back_up(studio: Any) -> Path:
    return Path(shutil.copy(studio.home / "mlflow.db", studio.home / "backup.db"))


def put_back(studio: Any, backup: Path) -> None:
    shutil.copy(backup, studio.home / "mlflow.db")


def of_an_older_program(studio: Any) -> None:
    """Let log and registry be as they were before packages and anchors were kept."""
    previous, lines = "0" * 64, []
    for line in studio.log_lines():
        entry = json.loads(line)
        if entry["kind"] == "registered":
            continue
        del entry["files"]
        entry["digests"].pop("package", None)
        lines.append(entry)
    renumbered = {}
    text = b""
    for number, entry in enumerate(lines, 1):
        renumbered[entry["number"]] = number
        entry |= {"number": number, "previous": previous}
        entry["settles"] = renumbered.get(entry["settles"])
        line = json.dumps(entry, sort_keys=True).encode()
        previous = hashlib.sha256(line).hexdigest()
        text += line + b"\n"
    studio.log.write_bytes(text)
    for tag in audit_anchor.model_tags(studio.name) or {}:
        if tag.startswith(audit_anchor.ANCHOR_TAG):
            client().delete_registered_model_tag(studio.name, tag)
    for number in (1, 2):
        digest = digest_of_brought(files_of(studio.package(number)))
        client().set_model_version_tag(studio.name, str(number), "package_digest", digest)


def test_a_sound_home_has_no_problem(studio: Any) -> None:
    assert all_models() == [studio.name]
    assert problems_of(studio.name) == []


def alter_last_line(studio: Any) -> None:
    lines = studio.log_lines()
    lines[-1] = lines[-1].replace(b'"kind": "done"', b'"kind": "void"')
    studio.log.write_bytes(b"".join(lines))


def alter_first_line(studio: Any) -> None:
    """And make the chain fit again, as somebody who knows how would."""
    previous, text = "0" * 64, b""
    for line in studio.log_lines():
        entry = json.loads(line.replace(b"loads in a clean process", b"loads in any process"))
        entry["previous"] = previous
        altered = json.dumps(entry, sort_keys=True).encode()
        previous = hashlib.sha256(altered).hexdigest()
        text += altered + b"\n"
    studio.log.write_bytes(text)


def alter_middle_line(studio: Any) -> None:
    studio.log.write_bytes(studio.log.read_bytes().replace(b"better: ", b"bettar: "))


def cut_end(studio: Any) -> None:
    studio.log.write_bytes(b"".join(studio.log_lines()[:-2]))


def tear_end(studio: Any) -> None:
    studio.log.write_bytes(studio.log.read_bytes()[:-30])


def empty(studio: Any) -> None:
    studio.log.write_bytes(b"")


def lose_log(studio: Any) -> None:
    studio.log.unlink()


def take_another_log(studio: Any) -> None:
    """As one that was copied from another home, of the same model."""
    studio.log.unlink()
    for number in (1, 2):
        audit_log.append(studio.name, "refused", action="refuse", to_version=number, why="other")


def take_the_log_of_another_model(studio: Any) -> None:
    audit_log.append("other-ngram", "refused", action="refuse", to_version=1, why="other")
    shutil.move(audit_log.log_path("other-ngram"), studio.log)


DAMAGES: list[tuple[Callable[[Any], None], str]] = [
    (alter_last_line, "line 6, or one before it, is not what was written: it was altered"),
    (alter_first_line, "it is not the one that the registry is anchored to (of 6 lines)"),
    (alter_middle_line, "line 5 or the one after it was altered"),
    (cut_end, "it has 4 lines, and the registry is anchored to line 6: its end was cut off"),
    (tear_end, "it has 5 lines, and the registry is anchored to line 6: its end was cut off"),
    (empty, "the registry is anchored to an audit log of 6 lines that is not here: it was lost"),
    (lose_log, "the registry is anchored to an audit log of 6 lines that is not here: it was lost"),
    (take_another_log, "it is not the one that the registry is anchored to (of 6 lines)"),
    (take_the_log_of_another_model, "it is the log of 'other-ngram'"),
]


@pytest.mark.parametrize(
    ("damage", "what"), DAMAGES, ids=lambda value: getattr(value, "__name__", str(value))[:30]
)
def test_a_damaged_log_is_explained_and_a_new_one_begins_when_a_person_says_so(
    studio: Any, damage: Callable[[Any], None], what: str
) -> None:
    damage(studio)
    is_there = studio.log.exists() and studio.log.stat().st_size > 0
    before = studio.log.read_bytes() if is_there else b""

    problem = problems_of(studio.name)[0]

    assert what in problem.what
    assert "\n" not in problem.what
    assert problem.ways == ("begin",)
    assert f"--repair {studio.name}=begin" in problem.to_do()
    assert verify_champion.fn(studio.name)  # nothing is executed on the word of such a log
    if is_there:
        with pytest.raises(audit_log.AuditLogDamaged):
            promotion.history(studio.name)
        assert studio.log.read_bytes() == before

    told = repair(studio.name, "begin")

    assert "a new audit log begins" in told
    if is_there:
        (aside,) = studio.log.parent.glob("*.aside-*")
        assert aside.read_bytes() == before
        assert aside.name in told
    assert [p.ways for p in problems_of(studio.name)] == [("adopt",), ("adopt:1", "discard:1")]
    repair(studio.name, "adopt")
    repair(studio.name, "adopt:1")
    assert problems_of(studio.name) == []
    assert [(e.action, e.to_version) for e in promotion.history(studio.name)] == [
        ("begin", None),
        ("accept", 2),
        ("adopt", 2),
        ("adopt", 1),
    ]
    with loaded(studio.name) as model:
        assert model.family == "ngram"


def test_what_a_person_withdrew_stays_withdrawn_in_a_new_log(studio: Any) -> None:
    content = contents_of(studio.name)[2]
    promotion.rollback(studio.name, reason="it swears")
    alter_first_line(studio)

    repair(studio.name, "begin")

    assert promotion.withdrawal_reason(studio.name, content) == "it swears"
    repair(studio.name, "adopt:2")
    promotion.promote(studio.name, 2, "it does not, after all")
    assert promotion.withdrawal_reason(studio.name, content) == ""


def test_an_alias_that_was_moved_is_told_until_a_person_answers(studio: Any) -> None:
    client().set_registered_model_alias(studio.name, "champion", "1")

    problem = problem_of(studio)

    assert "the alias was moved without this program: the champion is version 1, and by the" in (
        problem.what
    )
    assert problem.what.endswith("log version 2")
    assert problem.ways == ("restore", "accept")
    promotion.history(studio.name)  # notes it, which is no answer
    assert "the alias was moved without this program (noted" in problem_of(studio).what

    assert repair(studio.name, "restore") == f"{studio.name}: version 2 is champion again"

    assert champion(studio) == 2
    assert problems_of(studio.name) == []
    assert promotion.withdrawal_reason(studio.name, contents_of(studio.name)[2]) == ""
    client().set_registered_model_alias(studio.name, "champion", "1")
    repair(studio.name, "accept")
    assert champion(studio) == 1
    assert problems_of(studio.name) == []
    assert [e.action for e in promotion.history(studio.name)][-4:] == [
        *("outside", "restore", "outside", "accept"),
    ]
    client().delete_registered_model_alias(studio.name, "champion")
    assert "the alias was taken away" in problem_of(studio).what
    repair(studio.name, "restore")
    assert champion(studio) == 1  # what was accepted counts


def test_a_model_that_lost_its_family_is_told(studio: Any) -> None:
    client().delete_registered_model_tag(studio.name, "family")

    assert "its tag family is 'missing'" in problem_of(studio).what
    assert all_models() == [studio.name]

    repair(studio.name, "restore")

    assert problems_of(studio.name) == []
    assert promotion.history(studio.name)[-1].why == "its tag family is ngram again, by hand"


def test_versions_that_were_deleted_are_told(studio: Any) -> None:
    client().delete_model_version(studio.name, "1")

    problem = problem_of(studio)

    assert "the registry lacks version 1 of the audit log: deleted in MLflow" in problem.what
    repair(studio.name, "accept")
    assert problems_of(studio.name) == []
    with pytest.raises(BadInput, match="first champion of tale-ngram: there is none before"):
        promotion.rollback(studio.name)


def test_a_deleted_champion_is_told_and_does_not_come_back_by_itself(studio: Any) -> None:
    content = contents_of(studio.name)[2]
    client().delete_model_version(studio.name, "2")

    whats = [problem.what for problem in problems_of(studio.name)]

    assert "the alias was taken away without this program" in whats[0]
    assert "the registry lacks version 2" in whats[1]
    assert "taken away" in promotion.withdrawal_reason(studio.name, content)
    with pytest.raises(BadInput, match="the registry does not have the champion of the log, 2"):
        repair(studio.name, "restore")


def lose_database(studio: Any, empty: Path) -> None:
    shutil.copy(empty, studio.home / "mlflow.db")


def delete_model(studio: Any, _: Path) -> None:
    client().delete_registered_model(studio.name)


@pytest.mark.parametrize("lose", [lose_database, delete_model])
def test_a_lost_registry_is_told_and_the_same_command_works_again(
    studio: Any, migrated_database: Path, lose: Callable[[Any, Path], None]
) -> None:
    promotion.rollback(studio.name, reason="it swears")
    contents = contents_of(studio.name)
    lose(studio, migrated_database)

    problem = problem_of(studio)

    assert "the registry has no such model any more: its database was lost or replaced" in (
        problem.what
    )
    assert problem.ways == ("accept",)
    assert all_models() == [studio.name]

    kept = studio.admitted(1)  # champion when the database was lost: nobody left it by hand

    assert (kept.version, kept.alias) == (1, "champion")
    lost = [e for e in promotion.history(studio.name) if e.action == "lost"]
    assert [(e.from_version, e.to_version, e.evidence["gone"]) for e in lost] == [(1, None, [1, 2])]
    left = studio.admitted(3)  # the same content as the version 2 that a person left
    assert (left.version, left.alias) == (2, "challenger")
    assert promotion.history(studio.name)[-1].why == "withdrawn by hand: it swears"
    new = studio.admitted(2)  # the third version 2 or later of this name, and of another content
    assert new.digest not in contents.values()
    assert (new.version, new.alias) == (3, "champion")
    assert problems_of(studio.name) == []
    assert promotion.rollback(studio.name) == (3, 1)


def test_a_rerun_killed_between_registering_and_naming_goes_on_after_a_loss(
    studio: Any, migrated_database: Path
) -> None:
    """New content that gets the number of an old version is not withdrawn because that one was."""
    promotion.rollback(studio.name, reason="it swears")
    promotion.promote(studio.name, 2, "no")  # now version 1 is withdrawn
    lose_database(studio, migrated_database)
    assert studio.registered(2).version == 1

    again = studio.admitted(2)

    assert (again.version, again.is_new, again.alias) == (1, False, "champion")
    assert problems_of(studio.name) == []


def test_an_older_database_is_told_and_withdraws_nothing(studio: Any) -> None:
    backup = back_up(studio)
    content = studio.admitted(4).digest
    assert champion(studio) == 3
    put_back(studio, backup)

    problem = problem_of(studio)

    assert "the registry does not know the last 3 lines of the audit log: its database was" in (
        problem.what
    )
    assert promotion.withdrawal_reason(studio.name, content) == ""
    assert (
        "its database was replaced by an older one, or by another (noted" in problem_of(studio).what
    )
    again = studio.admitted(4)
    assert (again.version, again.digest, again.alias) == (3, content, "champion")
    assert problems_of(studio.name) == []


def test_a_newer_backup_of_another_registry_is_told(studio: Any) -> None:
    """The same name, versions of other contents: version 2 is not that of the log."""
    studio.sql("UPDATE model_version_tags SET value = ? WHERE key = ? AND version = 2",
               "0" * 64, "content_digest")  # fmt: skip

    whats = [problem.what for problem in problems_of(studio.name)]

    assert "version 2 is another than the log tells of: the champion is version 2" in whats[0]
    assert "version 2 has another content than the audit log tells" in whats[1]
    assert "its tag content_digest is 000000000000" in whats[2]


@pytest.mark.parametrize("lines", [1, 2])
def test_a_kill_before_the_anchor_is_settled_and_a_registry_further_behind_is_told(
    studio: Any, lines: int
) -> None:
    for number in range(lines):
        audit_log.append(studio.name, "refused", action="refuse", to_version=1, why=f"{number}")

    problems = problems_of(studio.name)

    assert len(problems) == lines - 1
    promotion.history(studio.name)
    found = audit_log.read(studio.name)
    tags = audit_anchor.model_tags(studio.name) or {}
    assert audit_anchor.anchors(tags)[found.name].length == len(found.entries)
    if problems:
        assert "does not know the last 2 lines" in problems[0].what
        repair(studio.name, "accept")
    assert problems_of(studio.name) == []


def test_an_anchor_of_another_home_is_told_until_it_is_accepted(studio: Any) -> None:
    client().set_registered_model_tag(studio.name, f"{audit_anchor.ANCHOR_TAG}abc", f"7 {'0' * 64}")

    assert "anchored to another audit log, too (7 lines)" in problem_of(studio).what

    repair(studio.name, "accept")
    assert problems_of(studio.name) == []


@pytest.mark.parametrize(
    "value",
    [
        *("", "x", "7", f"-1 {'0' * 64}", f"6 {'0' * 64}", f"9999 {'0'}"),
        *(f"\N{SUPERSCRIPT TWO} {'0' * 64}", f"{'9' * 4800} x"),  # digits, and no numbers
    ],
    ids=lambda value: value[:9],
)
def test_an_altered_anchor_is_told(studio: Any, value: str) -> None:
    name, _ = audit_anchor.anchor_tag(audit_log.read(studio.name))
    studio.sql("UPDATE registered_model_tags SET value = ? WHERE key = ?", value, name)

    assert problems_of(studio.name)


def test_a_deleted_anchor_is_told(studio: Any) -> None:
    name, _ = audit_anchor.anchor_tag(audit_log.read(studio.name))
    client().delete_registered_model_tag(studio.name, name)

    assert "does not know the last 6 lines of the audit log" in problem_of(studio).what


def test_an_older_programs_log_works_and_its_versions_are_adopted_once(studio: Any) -> None:
    of_an_older_program(studio)

    problem = problem_of(studio)

    assert problem.ways == ("adopt",)
    assert "does not say what the package of versions 1, 2 is, for an older program" in problem.what
    assert [e.to_version for e in promotion.history(studio.name)] == [1, 2]
    assert "atelier doctor --repair tale-ngram=adopt" in verify_champion.fn(studio.name)

    repair(studio.name, "adopt")

    assert problems_of(studio.name) == []
    adopted = [e for e in audit_log.entries_of(studio.name) if e.action == "adopt"]
    assert [(e.kind, e.to_version) for e in adopted] == [("registered", 1), ("registered", 2)]
    assert verify_champion.fn(studio.name) == ""
    with pytest.raises(BadInput, match="has no version to adopt"):
        repair(studio.name, "adopt")
    (studio.package(2) / "served_model.py").write_text("raise SystemExit")
    assert "served_model.py was changed" in verify_champion.fn(studio.name)


@pytest.mark.parametrize(
    "file",
    ["served_model.py", f"code/{CODE}/vae/model.py", "artifacts/config.json", "code/evil.py"],
)
def test_a_version_whose_files_were_changed_is_not_adopted(studio: Any, file: str) -> None:
    of_an_older_program(studio)
    with (studio.package(2) / file).open("a") as opened:
        opened.write("\n")

    with pytest.raises(ValueError, match=r"version 2 is not what was registered"):
        repair(studio.name, "adopt:2")

    assert "adopt" in verify_champion.fn(studio.name)


def test_a_changed_champion_is_given_up_and_registered_anew(studio: Any) -> None:
    content = contents_of(studio.name)[2]
    (studio.package(2) / "served_model.py").write_text("raise SystemExit")

    problem = problem_of(studio)

    assert "version 2 is not what was registered" in problem.what
    assert problem.ways == ("discard",)
    repair(studio.name, "discard")
    assert champion(studio) is None
    assert problems_of(studio.name) == []
    assert promotion.withdrawal_reason(studio.name, content) == ""
    again = studio.admitted(3)
    assert (again.version, again.digest, again.alias) == (3, content, "champion")
    assert problems_of(studio.name) == []


def test_nothing_happens_unless_it_is_named(studio: Any) -> None:
    alter_last_line(studio)
    before = studio.log.read_bytes(), champion(studio), sorted(contents_of(studio.name))

    problems_of(studio.name)
    odd = (f"adopt:{'9' * 5000}", "discard:\N{SUPERSCRIPT TWO}")
    for way in ("", "begin:1", "beginning", "adopt:x", "accept:2", *odd):
        with pytest.raises(BadInput, match="no way is called"):
            repair(studio.name, way)
    with pytest.raises(BadInput, match="no model is named 'other'"):
        repair("other", "begin")

    assert (studio.log.read_bytes(), champion(studio), sorted(contents_of(studio.name))) == before


@pytest.mark.parametrize(
    "line",
    [
        '{"number": "x", "digests": null, "evidence": []}',
        '{"number": 7, "kind": "registered", "at": "", "model": "m", "digests": [1]}',
        '{"number": 7, "kind": "repair", "at": "", "model": "m", "evidence": {"withdrawn": 5}}',
        "[" * 20_000,
    ],
)
def test_a_new_log_begins_whatever_stands_in_the_old_one(studio: Any, line: str) -> None:
    content = contents_of(studio.name)[2]
    client().set_registered_model_alias(studio.name, "champion", "1")
    promotion.history(studio.name)  # a person left version 2
    with studio.log.open("a") as file:
        file.write(f"{line}\n")
    assert problem_of(studio).ways == ("begin",)

    repair(studio.name, "begin")

    assert champion(studio) == 1
    assert (
        promotion.withdrawal_reason(studio.name, content)
        == "the alias was moved without this program"
    )


def test_a_folder_in_the_place_of_a_log_is_kept_aside_too(studio: Any) -> None:
    studio.log.unlink()
    studio.log.mkdir()
    assert "it cannot be read (Is a directory)" in problem_of(studio).what

    assert "kept as tale-ngram.jsonl.aside-" in repair(studio.name, "begin")
    repair(studio.name, "adopt")

    assert champion(studio) == 2
    assert verify_champion.fn(studio.name) == ""


@pytest.mark.parametrize("name", ["Tale N-gram's", "tale ngram (new)", "x" * 200, "a\nb"])
def test_a_renamed_model_stops_no_other(studio: Any, name: str, capsys: Any) -> None:
    client().create_registered_model("other-ngram", tags={"family": "ngram"})
    client().create_registered_model(name, tags={"family": "vae"})
    client().create_model_version(name, "file:///nowhere", await_creation_for=0)
    client().set_registered_model_alias(name, "champion", "1")

    assert all_models() == ["other-ngram", studio.name]
    assert champions() == [studio.name]
    assert [piece.name for piece in plan_gallery.fn(None, 0)] == [studio.name]
    (problem,) = misnamed_models()
    assert problem.what.startswith(f"{name!r} bears a family of ours and a name")
    assert "MLflow" in problem.to_do()


def test_a_champion_whose_files_mlflow_deleted_is_told_without_a_look_into_them(
    studio: Any,
) -> None:
    assert problems_of(studio.name, with_packages=False) == []
    studio.sql("DELETE FROM logged_models WHERE model_id LIKE 'm-%'")

    for with_packages in (False, True):
        (problem,) = problems_of(studio.name, with_packages=with_packages)
        assert "version 2" in problem.what
        assert "it has no files any more: MLflow deleted its package" in problem.what
        assert problem.ways == ("discard",)

    repair(studio.name, "discard")
    assert studio.admitted(3).alias == "champion"
    assert problems_of(studio.name) == []


def test_a_champion_whose_folder_is_gone_is_told_without_a_look_into_it(studio: Any) -> None:
    shutil.rmtree(studio.package(2))

    (problem,) = problems_of(studio.name, with_packages=False)

    assert "it has no files" in problem.what


def test_a_move_that_a_kill_cut_off_is_not_taken_for_anothers(
    studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(promotion, "check_loads", lambda *_, **__: None)
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "_publish_move", killed)
        with pytest.raises(KeyboardInterrupt):
            promotion.promote(studio.name, 1, "for a test")
    assert champion(studio) == 1

    assert problems_of(studio.name) == []
    assert promotion.history(studio.name)[-1].why == "for a test"
    assert problems_of(studio.name) == []


@pytest.mark.parametrize("told", ["\N{SUPERSCRIPT TWO}", "9" * 4900])
def test_a_page_that_tells_no_version_is_written_again(studio: Any, told: str) -> None:
    client().set_registered_model_tag(studio.name, "champion_version", told)
    client().set_registered_model_alias(studio.name, "champion", "1")

    promotion.history(studio.name)

    assert client().get_registered_model(studio.name).tags["champion_version"] == "1"


class Killed(BaseException):
    """The process ends here."""


def killed_at(number: int, patch: pytest.MonkeyPatch) -> None:
    """End the process before its write of a number: a line, a tag, a deletion, a file."""
    writes = iter(range(1, 100))

    def counted(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def write(*arguments: Any, **named: Any) -> Any:
            if next(writes) == number:
                raise Killed
            return real(*arguments, **named)

        patch.setattr(owner, name, write)

    counted(audit_log, "append")
    counted(log_storage, "write_bytes")
    for name in ("delete_model_version", "set_registered_model_tag"):
        counted(MlflowClient, name)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_was_discarded_comes_back_by_itself_whenever_a_kill_came(
    studio: Any, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = contents_of(studio.name)[2]
    with monkeypatch.context() as patch:
        killed_at(number, patch)
        with pytest.raises(Killed):
            repair(studio.name, "discard")

    promotion.history(studio.name)
    if champion(studio) is not None:
        repair(studio.name, "discard")

    assert champion(studio) is None
    assert promotion.withdrawal_reason(studio.name, content) == ""
    assert problems_of(studio.name) == []
    assert studio.admitted(3).alias == "champion"


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_new_log_that_a_kill_cut_off_still_knows_what_was_withdrawn(
    studio: Any, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = contents_of(studio.name)[2]
    client().set_registered_model_alias(studio.name, "champion", "1")
    promotion.history(studio.name)  # a person left version 2
    alter_middle_line(studio)
    with monkeypatch.context() as patch:
        killed_at(number, patch)
        with pytest.raises(Killed):
            repair(studio.name, "begin")

    if ("begin",) in [problem.ways for problem in problems_of(studio.name)]:
        repair(studio.name, "begin")

    assert (
        promotion.withdrawal_reason(studio.name, content)
        == "the alias was moved without this program"
    )
