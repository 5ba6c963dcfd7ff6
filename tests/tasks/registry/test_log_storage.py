"""One audit log for homes that share a store: numbered objects, created once, read by all."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tasks.registry import audit_history, audit_log, log_storage
from tasks.runtime.processes import name_of
from tasks.store.shared import StoreAway, shared

ROOT = Path(__file__).resolve().parents[3]

Homes = Callable[..., Path]


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Homes:
    """Makes this process work in the home of a name, with a shared store or without."""

    def use(name: str, *, with_store: bool = True) -> Path:
        monkeypatch.setenv("ATELIER_HOME", str(tmp_path / name))
        monkeypatch.delenv("ATELIER_STORE", raising=False)
        if with_store:
            monkeypatch.setenv("ATELIER_STORE", f"file://{tmp_path / 'store'}")
        (tmp_path / "store").mkdir(exist_ok=True)
        return tmp_path / name

    return use


def elsewhere(act: Callable[..., Any], *arguments: Any) -> Any:
    """Act as another process would, which knows nothing of a decision that is made here."""
    return Context().run(act, *arguments)


def promoted(model: str, version: int, before: int | None = None) -> None:
    digests = {"content": f"content {version}"}
    intent = audit_log.append(
        model,
        "intent",
        action="promote",
        from_version=before,
        to_version=version,
        why="better",
        digests=digests,
    )
    audit_log.append(model, "done", settles=intent.number)


def objects(tmp_path: Path) -> list[str]:
    store = tmp_path / "store"
    return sorted(p.relative_to(store).as_posix() for p in store.rglob("*.json"))


def make_away(patch: pytest.MonkeyPatch) -> None:
    """Let the shared store be away from now on."""

    def away(*_: Any) -> Any:
        raise StoreAway("the shared store does not answer")

    for name in ("create", "read", "names"):
        patch.setattr(type(shared()), name, away)


def test_without_a_store_a_line_is_what_it_always_was(homes: Homes) -> None:
    folder = homes("a", with_store=False)

    at = audit_log.append("m", "intent", to_version=1, who="ann").at

    line = (folder / "ledger" / "m.jsonl").read_bytes()
    wanted = {
        **{"number": 1, "kind": "intent", "at": at, "model": "m", "action": ""},
        **{"settles": None, "who": "ann", "from_version": None, "to_version": 1, "why": ""},
        **{"evidence": {}, "digests": {}, "files": {}, "previous": "0" * 64},
    }
    assert line == json.dumps(wanted, sort_keys=True).encode() + b"\n"


def test_two_homes_see_one_log_of_numbered_objects(homes: Homes, tmp_path: Path) -> None:
    homes("a")
    promoted("m", 1)
    homes("b")
    promoted("m", 2, 1)
    promoted("other", 1)

    for name in "ab":
        homes(name)
        assert audit_history.champion_by(audit_log.entries_of("m")) == 2
        assert log_storage.known_models() == ["m", "other"]
        assert audit_history.lasting_contents() == {"content 1", "content 2"}
    assert objects(tmp_path)[:4] == [f"audit/m/{number:08d}.json" for number in (1, 2, 3, 4)]
    assert not list(tmp_path.glob("?/ledger/*.jsonl"))


RIVAL = """
import sys
from tasks.registry import audit_log
for _ in range(int(sys.argv[1])):
    audit_log.append("m", "refused", action="refuse", to_version=1, why=sys.argv[2])
"""


@pytest.mark.slow
def test_rivals_of_several_homes_write_every_line_once(homes: Homes) -> None:
    names, number, rivals = "abc", 8, []
    for name in names:
        homes(name)
        command = [sys.executable, "-c", RIVAL, str(number), name]
        rivals.append(subprocess.Popen(command, cwd=ROOT))
    assert [rival.wait(120) for rival in rivals] == [0, 0, 0]

    entries = audit_log.entries_of("m")

    assert [e.number for e in entries] == list(range(1, 1 + len(names) * number))
    assert Counter(e.why for e in entries) == dict.fromkeys(names, number)


def test_a_decision_sees_one_log_and_is_overtaken_by_another_homes_line(homes: Homes) -> None:
    homes("a")
    promoted("m", 1)
    with audit_log.one_decision("m"):
        assert len(audit_log.entries_of("m")) == 2
        homes("b")
        elsewhere(promoted, "m", 2, 1)
        homes("a")

        assert len(audit_log.entries_of("m")) == 2
        with pytest.raises(audit_log.Overtaken, match="another home wrote line 3 of the audit log"):
            audit_log.append("m", "intent", to_version=3, from_version=1)
    assert len(audit_log.entries_of("m")) == 4


def test_an_overtaken_decision_is_made_again_on_what_was_written(homes: Homes) -> None:
    homes("a")
    promoted("m", 1)
    seen = []

    def decide() -> int | None:
        champion = audit_history.champion_by(audit_log.entries_of("m"))
        seen.append(champion)
        if len(seen) == 1:
            homes("b")
            elsewhere(promoted, "m", 2, 1)
            homes("a")
        promoted("m", 3, champion)
        return champion

    assert audit_log.decided("m", decide) == 2
    assert seen == [1, 2]
    moves = audit_history.moves(audit_log.entries_of("m"))
    assert [(e.from_version, e.to_version) for e in moves] == [(None, 1), (1, 2), (2, 3)]


def test_an_intent_of_another_process_of_the_same_home_is_not_waited_for(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold the lock that the caller holds."""
    homes("a")
    with monkeypatch.context() as patch:
        patch.setattr(audit_log, "this_process", lambda: name_of(os.getppid()))
        intent = audit_log.append("m", "intent", to_version=1)
    slept: list[float] = []
    now = iter(range(1000))
    monkeypatch.setattr(audit_log.time, "sleep", slept.append)
    monkeypatch.setattr(audit_log.time, "monotonic", lambda: float(next(now)))

    assert not audit_log.is_under_way("m", intent)
    assert slept == []

    homes("b")  # the same process, seen from another home
    assert not audit_log.is_under_way("m", intent)
    assert len(slept) >= audit_log.SECONDS_OF_A_MOVE - 2
    machine = replace(intent, writer=f"other{intent.writer}")  # a home of that path elsewhere
    homes("a")
    slept.clear()
    assert not audit_log.is_under_way("m", machine)
    assert slept


def test_who_waits_for_another_decision_on_a_model_says_so(
    homes: Homes, caplog: pytest.LogCaptureFixture
) -> None:
    homes("a")
    caplog.set_level("INFO")
    entered = threading.Event()
    waiting = threading.Thread(target=lambda: enter(entered))
    with log_storage.registry_lock("m"):
        waiting.start()
        until = time.monotonic() + 60
        while "m: another process of this home is deciding about it" not in caplog.text:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert not entered.is_set()
    waiting.join(60)
    assert entered.is_set()


def enter(entered: threading.Event) -> None:
    with log_storage.registry_lock("m"):
        entered.set()


def line_of(path: Path) -> bytes:
    """The line in an object, without what the store puts before it."""
    return path.read_bytes().partition(b"\n")[2]


def rewrite(path: Path, line: bytes) -> None:
    """Give an object another line, as somebody would who knows how the store writes."""
    head = {"sha256": sha256(line).hexdigest(), "token": "theirs"}
    path.write_bytes(json.dumps(head).encode() + b"\n" + line)


def alter(store: Path) -> None:
    path = store / "00000003.json"
    rewrite(path, line_of(path).replace(b"better", b"bettar"))


def alter_first(store: Path) -> None:
    path = store / "00000001.json"
    rewrite(path, line_of(path).replace(b"better", b"bettar"))


def cut_a_line(store: Path) -> None:
    path = store / "00000003.json"
    rewrite(path, line_of(path)[:-9])


def flip_a_bit(store: Path) -> None:
    path = store / "00000002.json"
    path.write_bytes(path.read_bytes().replace(b"done", b"dome"))


def join_two(store: Path) -> None:
    first, second = store / "00000001.json", store / "00000002.json"
    rewrite(first, line_of(first) + line_of(second))


def swap(store: Path) -> None:
    first, second = store / "00000002.json", store / "00000003.json"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def take_another_models(store: Path) -> None:
    for path in store.glob("*.json"):
        path.write_bytes((store.parent / "other" / path.name).read_bytes())


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (alter, "line 3 or the one after it was altered"),
        (alter_first, "line 1 or the one after it was altered"),
        (cut_a_line, "line 3 cannot be read"),
        (flip_a_bit, "line 2 cannot be read"),
        (join_two, "line 1 cannot be read"),
        (swap, "line 1 or the one after it was altered"),
        (take_another_models, "it is the log of 'other'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_objects_that_were_altered_are_noticed_by_a_home_that_has_not_read_them(
    homes: Homes, tmp_path: Path, damage: Callable[[Path], None], what: str
) -> None:
    homes("a")
    for model in ("m", "other"):
        promoted(model, 1)
        promoted(model, 2, 1)
    damage(tmp_path / "store" / "audit" / "m")

    homes("b")
    with pytest.raises(audit_log.AuditLogDamaged, match=what) as told:
        audit_log.entries_of("m")
    assert f"{os.environ['ATELIER_STORE']}/audit/m" in str(told.value)
    homes("a")  # which has read them, and looks into the store only when it is asked to
    if damage is not take_another_models:
        assert audit_history.champion_by(audit_log.entries_of("m")) == 2
    with pytest.raises(audit_log.AuditLogDamaged, match=what):
        audit_log.latest("m", anew=True)


def test_no_line_is_written_behind_a_missing_one(homes: Homes, tmp_path: Path) -> None:
    homes("a")
    promoted("m", 1)
    promoted("m", 2, 1)

    with audit_log.one_decision("m"), pytest.raises(audit_log.Overtaken):
        assert len(audit_log.entries_of("m")) == 4
        (tmp_path / "store" / "audit" / "m" / "00000004.json").unlink()
        audit_log.append("m", "void", settles=3)


def test_while_the_store_is_away_the_copy_tells_and_nothing_is_written(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes("a")
    promoted("m", 1)
    monkeypatch.setattr(audit_log, "SECONDS_TO_WAIT_FOR_THE_STORE", 0.0)
    make_away(monkeypatch)

    found = audit_log.read("m")

    assert (len(found.entries), found.is_current) == (2, False)
    assert log_storage.known_models() == ["m"]
    with pytest.raises(StoreAway):
        audit_history.lasting_contents()  # what may be thrown away must be known
    with pytest.raises(StoreAway, match="nobody is named champion of m without its audit log"):
        promoted("m", 2, 1)
    homes("b")
    assert audit_log.read("m").entries == ()


def test_a_line_waits_for_a_store_that_is_away_and_says_so(
    homes: Homes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    homes("a")
    promoted("m", 1)
    outage = pytest.MonkeyPatch()
    make_away(outage)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            outage.undo()

    monkeypatch.setattr("time.sleep", sleep)

    promoted("m", 2, 1)

    assert audit_history.champion_by(audit_log.entries_of("m")) == 2
    assert caplog.text.count("the audit log of m is in it: waiting") == 1


@pytest.mark.parametrize("damage", [b"x", b'{"number": 1}\n', b""])
def test_a_damaged_copy_is_read_from_the_store_again(homes: Homes, damage: bytes) -> None:
    folder = homes("a")
    promoted("m", 1)
    (copy,) = (folder / "ledger" / "shared").rglob("*.jsonl")
    good = copy.read_bytes()
    copy.write_bytes(good.replace(b"better", b"bettar") if damage == b"x" else damage)
    log_storage_known = audit_log._known.copy()
    audit_log._known.clear()

    assert audit_history.champion_by(audit_log.entries_of("m")) == 1
    assert copy.read_bytes() == good
    audit_log._known.update(log_storage_known)


def test_a_decision_on_a_log_that_began_anew_meanwhile_writes_nothing(homes: Homes) -> None:
    homes("a")
    promoted("m", 1)
    with audit_log.one_decision("m"):
        assert len(audit_log.entries_of("m")) == 2
        homes("b")
        elsewhere(audit_log.begin_anew, "m", "repair")
        elsewhere(audit_log.append, "m", "refused")  # as long as the one that was read
        homes("a")
        with pytest.raises(audit_log.Overtaken):
            audit_log.append("m", "intent", to_version=2)
    assert [e.kind for e in audit_log.entries_of("m")] == ["repair", "refused"]


@pytest.fixture
def emptied(homes: Homes, tmp_path: Path) -> Path:
    """Home a has a log in the store, which is empty then: gone, or not mounted."""
    homes("a")
    promoted("m", 1)
    (tmp_path / "store" / "audit").rename(tmp_path / "unmounted")
    return tmp_path / "unmounted"


def copies(home: Path) -> dict[str, bytes]:
    """What a home keeps of shared logs, by name."""
    paths = sorted((home / "ledger" / "shared").rglob("m.*"))
    return {path.name: path.read_bytes() for path in paths}


def test_a_store_that_lacks_lines_that_were_read_is_not_believed(
    homes: Homes, emptied: Path, tmp_path: Path
) -> None:
    known = copies(tmp_path / "a")
    assert known["m.1.jsonl"].count(b"\n") == 2

    for act in (audit_log.entries_of, audit_log.read_again, lambda name: promoted(name, 2, 1)):
        with pytest.raises(audit_log.AuditLogDamaged, match="0 lines, and this home has read 2"):
            act("m")
    assert copies(tmp_path / "a") == known
    assert not objects(tmp_path)

    emptied.rename(tmp_path / "store" / "audit")
    assert audit_history.champion_by(audit_log.entries_of("m")) == 1


def test_a_log_that_a_store_lost_goes_on_anew_and_what_was_read_of_it_stays(
    homes: Homes, emptied: Path, tmp_path: Path
) -> None:
    known = copies(tmp_path / "a")["m.1.jsonl"]
    assert [e.to_version for e in audit_log.readable_entries("m")] == [1, None]

    audit_log.set_aside("m")
    audit_log.begin_anew("m", "repair", action="begin")

    assert [e.kind for e in audit_log.entries_of("m")] == ["repair"]
    aside = {name: text for name, text in copies(tmp_path / "a").items() if ".aside-" in name}
    assert list(aside.values()) == [known]


def test_the_log_of_another_store_takes_no_copys_place(
    homes: Homes, emptied: Path, tmp_path: Path
) -> None:
    known = copies(tmp_path / "a")["m.1.jsonl"]
    homes("b")
    promoted("m", 7)

    homes("a")

    assert audit_history.champion_by(audit_log.entries_of("m")) == 7
    aside = {name: text for name, text in copies(tmp_path / "a").items() if ".aside-" in name}
    assert list(aside.values()) == [known]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("number", range(1, 8))
def test_a_home_brings_its_own_log_into_an_empty_store_whenever_a_kill_came(
    homes: Homes, tmp_path: Path, number: int
) -> None:
    folder = homes("a", with_store=False)
    promoted("m", 1)
    promoted("m", 2, 1)
    own = (folder / "ledger" / "m.jsonl").read_bytes()
    homes("a")
    assert audit_history.champion_by(audit_log.entries_of("m")) == 2
    assert not objects(tmp_path)  # reading writes nothing
    calls = iter(range(1, 100))
    real = type(shared()).create

    def create(self: Any, name: str, content: bytes) -> bool:
        if next(calls) == number:
            raise Killed
        return bool(real(self, name, content))

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(type(shared()), "create", create)
        promoted("m", 3, 2)
    homes("a")
    entries = audit_log.entries_of("m")
    if audit_history.unsettled(entries) is None and len(entries) == 4:
        promoted("m", 3, 2)

    lines = [line_of(tmp_path / "store" / name) for name in objects(tmp_path)]
    assert b"".join(lines[:4]) == own
    homes("b")
    assert audit_log.entries_of("m")[-1].to_version in (3, None)
    assert len(audit_log.entries_of("m")) == len(lines)
    homes("a")
    assert audit_log.lines_of_its_own("m") == []


def test_where_both_have_a_log_the_shared_one_counts_and_the_own_one_stays(
    homes: Homes, tmp_path: Path
) -> None:
    homes("b")
    promoted("m", 1)
    folder = homes("a", with_store=False)
    promoted("m", 5)
    own = (folder / "ledger" / "m.jsonl").read_bytes()
    homes("a")

    assert audit_history.champion_by(audit_log.entries_of("m")) == 1
    assert [e.to_version for e in audit_log.lines_of_its_own("m")] == [5, None]
    promoted("m", 2, 1)

    assert (folder / "ledger" / "m.jsonl").read_bytes() == own
    assert [e.to_version for e in audit_log.lines_of_its_own("m")] == [5, None]
    assert len(objects(tmp_path)) == 4


def test_a_home_that_brings_its_log_second_writes_over_nothing(
    homes: Homes, tmp_path: Path
) -> None:
    """Both decide on a log of their own, and one of them is in the store first."""
    for name in "ab":
        homes(name, with_store=False)
        promoted("m", ord(name))
    homes("a")
    with audit_log.one_decision("m"):
        assert audit_history.champion_by(audit_log.entries_of("m")) == ord("a")
        homes("b")
        elsewhere(promoted, "m", 1, ord("b"))
        homes("a")
        with pytest.raises(audit_log.Overtaken):
            audit_log.append("m", "intent", to_version=2, from_version=ord("a"))

    assert audit_history.champion_by(audit_log.entries_of("m")) == 1
    assert len(objects(tmp_path)) == 4


def test_a_new_log_lies_beside_the_damaged_one_and_counts_in_every_home(
    homes: Homes, tmp_path: Path
) -> None:
    homes("a")
    promoted("m", 1)
    alter_first(tmp_path / "store" / "audit" / "m")
    before = {name: (tmp_path / "store" / name).read_bytes() for name in objects(tmp_path)}
    homes("b")
    assert len(audit_log.readable_entries("m")) == 2

    assert audit_log.set_aside("m") == "audit/m"
    audit_log.begin_anew("m", "repair", action="begin", why="a test")
    promoted("m", 2)

    for name in "abc":
        homes(name)
        assert [e.kind for e in audit_log.entries_of("m")] == ["repair", "intent", "done"]
    assert {name: (tmp_path / "store" / name).read_bytes() for name in before} == before
    homes("a")
    with audit_log.one_decision("m"):
        audit_log.read("m")
        homes("b")
        elsewhere(audit_log.begin_anew, "m", "repair")
        homes("a")
        assert len(audit_log.entries_of("m")) == 3
        with pytest.raises(audit_log.Overtaken):
            audit_log.append("m", "intent", to_version=3)
    assert len(audit_log.entries_of("m")) == 1
    assert log_storage.known_models() == ["m"]
