"""A registry on disk, two homes that write to it, and a store in which their audit log lies."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tasks.evaluation.scorecard import PromotionDecision
from tasks.registry import audit_anchor, audit_log, promotion, registration, verdicts
from tasks.registry.consistency import Problem, problems_of
from tasks.registry.loading import loaded
from tasks.registry.repair import repair
from tasks.registry.versions import champion_of, contents_of, versions_of
from tasks.store.shared import SharedStore, StoreAway
from tasks.tracking.mlflow_client import client

pytestmark = pytest.mark.slow

Use = Callable[..., None]


@pytest.fixture
def use(studio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Go to the home of the studio, or to another one; both use the studio's registry."""
    (tmp_path / "store").mkdir()
    monkeypatch.setattr(promotion, "check_loads", lambda *_, **__: None)
    monkeypatch.setattr(audit_log, "SECONDS_OF_A_MOVE", 0.0)

    def go(which: str, *, with_store: bool = True) -> None:
        monkeypatch.setenv("ATELIER_HOME", str(studio.home if which == "a" else tmp_path / which))
        monkeypatch.delenv("ATELIER_STORE", raising=False)
        if with_store:
            monkeypatch.setenv("ATELIER_STORE", f"file://{tmp_path / 'store'}")

    return go


def champion(name: str) -> int | None:
    found = champion_of(name)
    return None if found is None else int(found.version)


def only_problem(name: str) -> Problem:
    (problem,) = problems_of(name)
    assert "\n" not in problem.what
    return problem


def test_a_home_joins_with_its_log_and_another_goes_on_with_it(studio: Any, use: Use) -> None:
    own = studio.log.read_bytes()
    use("a")
    assert problems_of(studio.name) == []
    assert promotion.promote(studio.name, 1, "by hand") == (2, 1)

    use("b")
    assert problems_of(studio.name) == []
    assert [(e.action, e.to_version) for e in promotion.history(studio.name)] == [
        *[("promote", 1), ("promote", 2)],
        ("override", 1),
    ]
    with loaded(studio.name) as model:  # what the other home registered is known here
        assert model.family == "ngram"
    assert promotion.rollback(studio.name, reason="back") == (1, 2)

    use("a")
    assert promotion.history(studio.name)[-1].why == "back"
    assert problems_of(studio.name) == []
    assert not studio.log.exists()
    (aside,) = studio.log.parent.glob("*.aside-*")
    assert aside.read_bytes() == own
    tags = audit_anchor.model_tags(studio.name) or {}
    assert audit_anchor.anchors(tags).keys() == {audit_log.read(studio.name).name}


def test_a_home_that_is_asked_for_its_history_joins(studio: Any, use: Use) -> None:
    use("b")
    problem = next(iter(problems_of(studio.name)))
    assert "another home's that has not used the shared store yet" in problem.what
    use("a")
    assert problems_of(studio.name) == []
    assert studio.log.exists()  # to look changes nothing

    promotion.history(studio.name)

    assert not studio.log.exists()
    use("b")
    assert problems_of(studio.name) == []


def test_a_run_of_another_home_is_judged_and_told_in_the_one_log(studio: Any, use: Use) -> None:
    use("a")
    promotion.promote(studio.name, 1, "by hand")

    use("b")
    version = studio.admitted(5)

    use("a")
    last = promotion.history(studio.name)[-1]
    assert (last.to_version, last.action) == (version.version, "promote")
    assert champion(studio.name) == version.version
    assert problems_of(studio.name) == []


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("by", ["a", "b"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(MlflowClient, "set_registered_model_alias"), (promotion, "_publish_move")],
    ids=["before the alias", "after the alias"],
)
def test_a_move_that_a_kill_cut_off_is_finished_by_either_home(
    studio: Any, use: Use, owner: Any, name: str, by: str
) -> None:
    use("a")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, name, killed)
        promotion.promote(studio.name, 1, "for a test")

    use(by)
    last = promotion.history(studio.name)[-1]

    assert (last.from_version, last.to_version, last.why) == (2, 1, "for a test")
    assert champion(studio.name) == 1
    assert problems_of(studio.name) == []


def test_a_version_that_is_gone_is_not_made_champion_by_the_other_home(
    studio: Any, use: Use
) -> None:
    use("a")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, "set_registered_model_alias", killed)
        promotion.promote(studio.name, 1, "for a test")
    client().delete_model_version(studio.name, "1")

    use("b")
    promotion.history(studio.name)

    assert champion(studio.name) == 2
    assert audit_log.entries_of(studio.name)[-1].kind == "void"


def objects(tmp_path: Path, name: str) -> list[Path]:
    return sorted((tmp_path / "store" / "audit" / name).glob("*.json"))


def cut_end(paths: list[Path]) -> None:
    for path in paths[-2:]:
        path.unlink()


def lose_the_middle(paths: list[Path]) -> None:
    paths[3].unlink()


def forge(paths: list[Path]) -> None:
    """Alter the first line, and make the chain fit again, as somebody who knows how would."""
    previous = "0" * 64
    for path in paths:
        entry = json.loads(path.read_bytes().partition(b"\n")[2])
        entry |= {"previous": previous, "who": "nobody"}
        line = json.dumps(entry, sort_keys=True).encode()
        previous = hashlib.sha256(line).hexdigest()
        head = {"sha256": hashlib.sha256(line + b"\n").hexdigest(), "token": "theirs"}
        path.write_bytes(json.dumps(head).encode() + b"\n" + line + b"\n")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (cut_end, "it has 6 lines, and the registry is anchored to line 8: its end was cut off"),
        (lose_the_middle, "it has 3 lines, and the registry is anchored to line 8"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_home_that_has_read_nothing_is_told_of_lost_objects_by_the_registry(
    studio: Any, use: Use, tmp_path: Path, damage: Callable[[list[Path]], None], what: str
) -> None:
    use("a")
    promotion.promote(studio.name, 1, "by hand")
    damage(objects(tmp_path, studio.name))

    use("new")

    assert what in only_problem(studio.name).what


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (cut_end, "the store has 6 lines, and this home has read 8 lines of it"),
        (lose_the_middle, "the store has 3 lines, and this home has read 8 lines of it"),
        (forge, "it is not the one that the registry is anchored to (of 8 lines)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_objects_that_were_lost_or_forged_are_told_in_both_homes_and_have_a_way_out(
    studio: Any, use: Use, tmp_path: Path, damage: Callable[[list[Path]], None], what: str
) -> None:
    use("a")
    promotion.promote(studio.name, 1, "by hand")
    for home in "ba":
        use(home)
        assert len(audit_log.entries_of(studio.name)) == 8
    damage(objects(tmp_path, studio.name))

    for home in "ab":
        use(home)
        problem = only_problem(studio.name)
        assert what in problem.what
        assert problem.ways == ("begin",)
    with pytest.raises(audit_log.AuditLogDamaged):  # in a home that has not read it before
        promotion.promote(studio.name, 2, "nevertheless")
    before = {path: path.read_bytes() for path in objects(tmp_path, studio.name)}

    assert "a new audit log begins" in repair(studio.name, "begin")

    repair(studio.name, "adopt:1")
    repair(studio.name, "adopt:2")
    for home in "ab":
        use(home)
        assert problems_of(studio.name) == []
        with loaded(studio.name) as model:
            assert model.family == "ngram"
    assert {path: path.read_bytes() for path in before} == before


def test_a_home_that_had_a_log_of_its_own_is_told_what_only_that_one_says(
    studio: Any, use: Use, tmp_path: Path
) -> None:
    use("b", with_store=False)
    for number in (1, 2):
        repair(studio.name, f"adopt:{number}")
    repair(studio.name, "accept")
    promotion.promote(studio.name, 1, "version 2 swears")
    content = contents_of(studio.name)[2]
    own = audit_log.log_path(studio.name).read_bytes()
    use("a")  # the log of this one comes first
    promotion.promote(studio.name, 2, "it does not") if champion(studio.name) == 1 else None

    use("b")
    problem = next(p for p in problems_of(studio.name) if "join" in p.ways)
    assert "this home has an audit log of its own, of which the shared one" in problem.what
    assert f"--repair {studio.name}=join" in problem.to_do()
    assert audit_log.log_path(studio.name).read_bytes() == own
    assert promotion.withdrawal_reason(studio.name, content) == ""

    assert "the shared audit log counts" in repair(studio.name, "join")

    assert promotion.withdrawal_reason(studio.name, content) == "version 2 swears"
    assert problems_of(studio.name) == []
    (aside,) = audit_log.log_path(studio.name).parent.glob("*.aside-*")
    assert aside.read_bytes() == own
    use("a")
    assert problems_of(studio.name) == []


def away(*_: Any, **__: Any) -> Any:
    raise StoreAway("the shared store does not answer")


def make_away(patch: pytest.MonkeyPatch) -> None:
    for name in ("create", "read", "names"):
        patch.setattr(SharedStore, name, away)


def test_while_the_store_is_away_versions_load_and_none_is_named_champion(
    studio: Any, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("a")
    promotion.promote(studio.name, 1, "by hand")
    monkeypatch.setattr(audit_log, "SECONDS_TO_WAIT_FOR_THE_STORE", 0.0)
    with monkeypatch.context() as patch:
        make_away(patch)

        with loaded(studio.name) as model:
            assert model.family == "ngram"
        assert len(promotion.history(studio.name)) == 3
        with pytest.raises(StoreAway, match="nobody is named champion"):
            studio.admitted(5)
        assert champion(studio.name) == 1
        use("b")  # whose copy of the log, which it never read, lacks what is anchored
        with pytest.raises(StoreAway, match="wait until it answers"), loaded(studio.name):
            pass

    use("a")
    version = studio.admitted(5)  # the same command again
    assert champion(studio.name) == version.version
    assert problems_of(studio.name) == []


def test_a_new_home_begins_no_log_in_a_folder_that_is_not_mounted(
    studio: Any, use: Use, tmp_path: Path
) -> None:
    use("a")
    promotion.promote(studio.name, 1, "by hand")
    before, anchored = champion(studio.name), audit_anchor.model_tags(studio.name)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()

    use("new")
    with pytest.raises(audit_log.AuditLogDamaged, match="mount the right one, or correct ATELIER"):
        promotion.promote(studio.name, 2, "nevertheless")
    with pytest.raises(audit_log.AuditLogDamaged, match="the store here has nothing of it"):
        audit_anchor.append(studio.name, "registered", to_version=3)
    problem = only_problem(studio.name)
    assert "the registry knows it in the store" in problem.what
    assert problem.ways == ("begin",)

    assert not list((tmp_path / "store").rglob("*.json"))
    assert champion(studio.name) == before
    assert audit_anchor.model_tags(studio.name) == anchored

    assert "a new audit log begins" in repair(studio.name, "begin")  # the store was lost
    assert audit_log.entries_of(studio.name)[0].action == "begin"
    use("newer")
    assert audit_log.entries_of(studio.name)[0].action == "begin"


def test_a_homes_own_log_does_not_go_into_a_folder_that_is_not_mounted(
    studio: Any, use: Use, tmp_path: Path
) -> None:
    use("a")
    promotion.promote(studio.name, 1, "by hand")
    anchored = audit_anchor.model_tags(studio.name)
    use("late", with_store=False)
    audit_log.append(studio.name, "registered", to_version=9)  # before it shared a store
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()

    use("late")
    for deed in (
        lambda: promotion.promote(studio.name, 2, "nevertheless"),
        lambda: audit_anchor.append(studio.name, "registered", to_version=3),
        lambda: promotion.history(studio.name),
    ):
        with pytest.raises(audit_log.AuditLogDamaged):
            deed()

    assert not list((tmp_path / "store").rglob("*.json"))
    assert audit_log.log_path(studio.name).exists()
    assert audit_anchor.model_tags(studio.name) == anchored


def test_a_stale_copy_of_the_log_takes_no_anchor_back(
    studio: Any, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("a")
    promotion.promote(studio.name, 1, "by hand")
    use("b")
    promotion.promote(studio.name, 2, "by hand")  # which home a has not read
    before = audit_anchor.model_tags(studio.name)

    use("a")
    with monkeypatch.context() as patch:
        make_away(patch)
        audit_anchor.anchor(studio.name)
    assert audit_anchor.model_tags(studio.name) == before

    whole = audit_log.latest(studio.name)
    for length in (3, len(whole.entries)):  # a shorter one, and an altered one
        heads = (*whole.heads[: length - 1], whole.heads[length - 1] if length == 3 else "0" * 64)
        stale = replace(whole, entries=whole.entries[:length], heads=heads)
        with monkeypatch.context() as patch:
            patch.setattr(audit_log, "latest", lambda *_, stale=stale, **__: stale)
            audit_anchor.anchor(studio.name)
        assert audit_anchor.model_tags(studio.name) == before
    longer = (*whole.heads[:-1], "0" * 64, "1" * 64)
    altered = replace(whole, entries=(*whole.entries, whole.entries[-1]), heads=longer)
    with monkeypatch.context() as patch:
        patch.setattr(audit_log, "latest", lambda *_, **__: altered)
        audit_anchor.anchor(studio.name)
    assert audit_anchor.model_tags(studio.name) == before
    assert problems_of(studio.name) == []


def test_a_model_that_is_registered_anew_is_anchored_to_no_stale_copy(
    studio: Any, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("a")
    promotion.promote(studio.name, 1, "by hand")
    client().delete_registered_model(studio.name)
    copy = replace(audit_log.latest(studio.name), is_current=False)
    monkeypatch.setattr(audit_anchor, "note_lost_model", lambda _: None)
    monkeypatch.setattr(audit_log, "SECONDS_TO_WAIT_FOR_THE_STORE", 0.0)
    monkeypatch.setattr(registration.audit_log, "read", lambda _: copy)
    fitted = SimpleNamespace(name=studio.name, family="ngram")

    with monkeypatch.context() as patch:
        make_away(patch)
        with pytest.raises(StoreAway, match="nobody is named champion"):
            registration._ensure_registered_model(fitted, None)  # type: ignore[arg-type]
    assert audit_anchor.model_tags(studio.name) is None
    assert registration._ensure_registered_model(fitted, None)  # type: ignore[arg-type]
    assert audit_anchor.anchors(audit_anchor.model_tags(studio.name) or {})


def test_a_store_that_goes_away_in_the_middle_of_a_move_is_waited_for(
    studio: Any, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("a")
    version = studio.registered(5)
    outage = pytest.MonkeyPatch()
    real = MlflowClient.set_registered_model_alias

    def moved(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        make_away(outage)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", moved)
    monkeypatch.setattr("time.sleep", lambda _: outage.undo())
    before = champion(studio.name)
    verdict = PromotionDecision(accepted=True, reason="x", champion_version=before)

    settled = verdicts.apply_decision.fn(version, verdict)

    assert settled.alias == "champion"
    assert champion(studio.name) == version.version
    assert problems_of(studio.name) == []


def test_of_two_homes_that_register_one_content_the_first_ones_version_stays(
    studio: Any, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one does so while this one packs its own."""
    real = MlflowClient.create_model_version
    use("a")
    made: list[Any] = []

    def create(self: Any, *arguments: Any, **named: Any) -> Any:
        if not made:
            made.append(None)
            use("b")
            made[0] = studio.admitted(5)
            use("a")
        return real(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "create_model_version", create)

    version = studio.admitted(5)

    assert (version.version, version.is_new) == (made[0].version, False)
    assert [int(v.version) for v in versions_of(studio.name)] == [1, 2, 3]
    assert problems_of(studio.name) == []
