"""Two homes with one registry and one shared log: whoever acts when, and is killed where.

The registry is played here, so that thousands of orders can be tried: each home is a thread, and
only one of them runs at a time. Before each write, and while it waits, a thread asks who is next.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.evaluation.scorecard import PromotionDecision
from tasks.registry import audit_anchor, audit_history, audit_log, promotion, verdicts
from tasks.registry.versions import Version
from tasks.store.shared import shared

NAME = "tale-ngram"
Act = Callable[[], Any]


class Killed(BaseException):
    """The process of a home ends here, as far as the others can tell."""


class Registry:
    """As much of MLflow as a move of an alias needs."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}
        self.tags = {"family": "ngram"}
        self.on_write: Callable[[], None] = lambda: None

    def get_registered_model(self, name: str) -> Any:
        return SimpleNamespace(name=name, aliases=dict(self.aliases), tags=dict(self.tags))

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.on_write()
        self.aliases[alias] = version

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self.aliases.pop(alias, None)

    def set_registered_model_tag(self, name: str, tag: str, value: str) -> None:
        self.on_write()
        self.tags[tag] = value

    def version(self, name: str, number: int) -> Any:
        tags = {"content_digest": f"content {number}", "family": "ngram", "main_metric": "bits"}
        tags |= {"samples_digest": "drawn"}
        measured = dict.fromkeys(("main_value", "main_low", "main_high"), "1.0")
        return SimpleNamespace(name=name, version=number, tags={**tags, **measured})

    def champion(self, name: str) -> Any:
        number = self.aliases.get("champion")
        return None if number is None else self.version(name, int(number))


class Turns:
    """Lets one of two threads run at a time, in the home of its own, by a plan."""

    def __init__(self, homes: Sequence[Path], plan: Sequence[int], *, alternates: bool) -> None:
        self._homes, self._plan, self._alternates = homes, list(plan), alternates
        self._next, self._alive = threading.Condition(), {0, 1}
        self._running = 0
        self._me = threading.local()
        self.now = 0.0
        self.killed_at: dict[int, int] = {}
        self._points = [0, 0]

    def point(self) -> None:
        """Another home may act now, before what comes next."""
        me = getattr(self._me, "number", None)
        if me is None:
            return
        self._points[me] += 1
        if self._points[me] == self.killed_at.get(me):
            raise Killed
        self._hand_over(self._plan.pop(0) if self._plan else (1 - me if self._alternates else me))

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.point()

    def monotonic(self) -> float:
        return self.now

    def _hand_over(self, wanted: int) -> None:
        with self._next:
            if wanted in self._alive:
                self._running = wanted
                self._next.notify_all()
            self._wait(self._me.number)

    def _wait(self, me: int) -> None:
        assert self._next.wait_for(lambda: self._running == me, timeout=30)
        os.environ["ATELIER_HOME"] = str(self._homes[me])

    def run(self, acts: Sequence[Act]) -> list[Any]:
        """What each act returned, or raised."""
        results: list[Any] = [None, None]

        def play(me: int) -> None:
            self._me.number = me
            with self._next:
                self._wait(me)
            try:
                results[me] = acts[me]()
            except BaseException as error:
                results[me] = error
            with self._next:
                self._alive.discard(me)
                self._running = 1 - me
                self._next.notify_all()

        threads = [threading.Thread(target=play, args=(number,), daemon=True) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
            assert not thread.is_alive()
        return results


@contextmanager
def two_homes(
    folder: Path, plan: Sequence[int], *, alternates: bool = False
) -> Iterator[tuple[Registry, Turns]]:
    """Versions 1 to 4 of a model, of which 1 and then 2 were made champion; two homes that know."""
    registry = Registry()
    turns = Turns([folder / "a", folder / "b"], plan, alternates=alternates)
    with pytest.MonkeyPatch.context() as patch:
        (folder / "store").mkdir(parents=True)
        patch.setenv("ATELIER_STORE", f"file://{folder / 'store'}")
        patch.setenv("ATELIER_HOME", str(folder / "a"))
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.setattr(os, "fsync", lambda _: None)  # nobody pulls a plug here
        for module in (audit_anchor, promotion):
            patch.setattr(module, "client", lambda: registry)
        for module in (audit_log, promotion):
            patch.setattr(module, "time", turns)
        patch.setattr(audit_anchor, "model_tags", lambda _: dict(registry.tags))
        patch.setattr(promotion, "champion_of", registry.champion)
        patch.setattr(promotion, "get_version", registry.version)
        patch.setattr(promotion, "project_models", lambda: [NAME])
        patch.setattr(promotion, "contents_of", lambda _: {n: f"content {n}" for n in range(1, 5)})
        patch.setattr(promotion, "check_loads", lambda *_, **__: None)
        patch.setattr(promotion, "_update_model_page", lambda *_: None)
        patch.setattr(promotion, "verified_copy", nothing_to_verify)
        for number in (1, 2):
            promotion.promote(NAME, number, "at first")
        registry.on_write = turns.point
        patch.setattr(type(shared()), "create", with_point(type(shared()).create, turns.point))
        yield registry, turns


@contextmanager
def nothing_to_verify(name: str, which: str) -> Iterator[tuple[Path, Any]]:
    yield Path(), None


def with_point(create: Callable[..., bool], point: Callable[[], None]) -> Callable[..., bool]:
    def created(self: Any, name: str, content: bytes, **how: bool) -> bool:
        point()
        return create(self, name, content, **how)

    return created


def by_gate(number: int) -> Act:
    """What a run does whose candidate was found better than version 2."""
    version = Version(
        **{"name": NAME, "version": number, "alias": "", "run_id": "", "digest": ""},
        **{"main_metric": "bits", "main_value": 1.0, "seconds": 1.0, "is_new": True},
    )
    verdict = PromotionDecision(accepted=True, reason="better", champion_version=2)
    return lambda: verdicts.apply_decision.fn(version, verdict)


def by_person(number: int) -> Act:
    return lambda: promotion.promote(NAME, number, "by hand")


def checked_history(registry: Registry) -> list[tuple[int | None, int | None]]:
    """The moves, once log and registry agree and no home has done what it was not told to."""
    promotion.history(NAME)
    found = audit_log.latest(NAME, anew=True)
    entries = list(found.entries)
    moves = [(e.from_version, e.to_version) for e in audit_history.moves(entries)]
    assert registry.aliases["champion"] == str(audit_history.champion_by(entries))
    assert all(before == after for (before, _), (_, after) in zip(moves[1:], moves, strict=False))
    assert not [e for e in entries if e.kind == "outside"]
    intents = [e.number for e in entries if e.kind == "intent"]
    assert [e.settles for e in entries if e.kind in ("done", "void")] == intents
    name, value = audit_anchor.anchor_tag(found)
    assert registry.tags[name] == value
    return moves


ORDERS = list(product((0, 1), repeat=6))


@pytest.mark.parametrize("alternates", [False, True])
def test_of_two_verdicts_on_one_champion_one_moves_the_alias_in_every_order(
    tmp_path: Path, alternates: bool
) -> None:
    winners = set()
    for number, plan in enumerate(ORDERS):
        with two_homes(tmp_path / str(number), plan, alternates=alternates) as (registry, turns):
            results = turns.run([by_gate(3), by_gate(4)])

            won = [result for result in results if result is not None]
            assert [type(result) for result in won] == [Version], (plan, results)
            (winner,) = won
            assert checked_history(registry)[2:] == [(2, winner.version)], plan
            winners.add(winner.version)
    assert winners == {3, 4}


@pytest.mark.parametrize("alternates", [False, True])
def test_a_person_and_a_run_leave_one_history_in_every_order(
    tmp_path: Path, alternates: bool
) -> None:
    seen = set()
    for number, plan in enumerate(ORDERS):
        with two_homes(tmp_path / str(number), plan, alternates=alternates) as (registry, turns):
            by_run, by_hand = turns.run([by_gate(3), by_person(1)])

            moves = tuple(checked_history(registry)[2:])
            was_overtaken = isinstance(by_hand, audit_log.Overtaken)
            assert was_overtaken or isinstance(by_hand, tuple), (plan, by_hand)
            assert by_run is None or isinstance(by_run, Version), (plan, by_run)
            assert moves == (
                *([] if by_run is None else [(2, 3)]),
                *([] if was_overtaken else [by_hand]),
            ), plan
            seen.add(moves)
    assert {((2, 3), (3, 1)), ((2, 1),)} <= seen


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("at", range(1, 7))
def test_what_a_killed_home_began_is_finished_by_the_other_or_by_itself(
    tmp_path: Path, killed: int, at: int
) -> None:
    for number, plan in enumerate(product((0, 1), repeat=4)):
        with two_homes(tmp_path / str(number), plan) as (registry, turns):
            turns.killed_at[killed] = at
            results = turns.run([by_gate(3), by_gate(4)])

            assert all(r is None or isinstance(r, Version | Killed) for r in results), results
            for name in "ab":  # each may be the one that looks next
                os.environ["ATELIER_HOME"] = str(tmp_path / str(number) / name)
                moves = checked_history(registry)
                assert len(moves) == 3, (plan, moves)


def test_a_home_that_slept_before_the_alias_moves_nothing_back(tmp_path: Path) -> None:
    """The other has finished its move, and has moved on by hand, when it goes on at last."""
    for sleeps in range(1, 8):
        with two_homes(tmp_path / str(sleeps), []) as (registry, turns):
            turns._plan = [*[0] * sleeps, *[1] * 100]
            by_run, by_hand = turns.run([by_gate(3), by_person(1)])

            assert isinstance(by_run, Version) or by_run is None, by_run
            assert isinstance(by_hand, tuple | audit_log.Overtaken), by_hand
            assert checked_history(registry)[-1][1] == int(registry.aliases["champion"])
            if isinstance(by_hand, tuple):
                assert registry.aliases["champion"] == "1"
