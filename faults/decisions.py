"""Decisions about champions, killed half way and made by two at once: one state, one log.

What a person does by hand (promote, roll back, accept, restore) and what housekeeping removes, each
killed at random moments and done again; then two such decisions at the same moment.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from faults.fits import enter, spawner
from faults.registries import NAME, admitted, done_in, load, make_registry, problems
from faults.tally import Tally

KILLS_EACH, SECONDS_TO_DECIDE = 5, 120.0

Deed = Callable[[], Any]


def decide_under_kills(
    num_kills: int, dice: random.Random, scratch: Path, empty: Path, tally: Tally
) -> None:
    """Kill each decision so many times and compare with one that was not; then let two meet."""
    at = _Homes(scratch / "decisions" / "home", scratch / "decisions" / "kept")
    make_registry(at.home, empty)
    for order in (6, 2, 4, 5):  # the first is better than all, so the others are refused
        done_in(at.home, partial(admitted, order))
    shutil.copytree(at.home, at.kept)
    for deeds in _DEEDS:
        _kill(deeds, num_kills, dice, at, tally)
    for pair in combinations((promote_1, promote_2, roll_back), 2):
        _let_meet(pair, at, tally)
    print(f"  decisions: {len(_DEEDS)} kinds killed, {num_kills} times each", flush=True)


@dataclass(frozen=True)
class _Homes:
    """Where decisions are made, and the home before any."""

    home: Path
    kept: Path

    def begin_anew(self, prepare: Deed | None) -> None:
        """Undo all that was decided."""
        shutil.rmtree(self.home)
        shutil.copytree(self.kept, self.home)
        if prepare:
            done_in(self.home, prepare)


def _kill(
    deeds: tuple[Deed | None, Deed], num_kills: int, dice: random.Random, at: _Homes, tally: Tally
) -> None:
    """Compare the state after kills, and the deed once more, with that after the deed alone."""
    prepare, deed = deeds
    at.begin_anew(prepare)
    whole = Decision(deed, at.home)
    whole.begin()
    began = time.monotonic()
    answer = whole.answer()
    duration, expected = time.monotonic() - began, done_in(at.home, state)
    if answer or expected["problems"] or expected["refused"]:
        tally.note(f"{deed.__name__}, not killed: {answer} {expected}")
        return
    for _ in range(num_kills):
        at.begin_anew(prepare)
        killed, moment = Decision(deed, at.home), dice.uniform(0.0, duration)
        killed.begin()
        time.sleep(moment)
        if not killed.kill():
            continue  # it was done before
        tally.kills += 1
        tally.sequences += 1
        told = [what for what, _ in done_in(at.home, problems)]
        again = Decision(deed, at.home)
        again.begin()
        answer, found = again.answer(), done_in(at.home, state)
        when = f"{deed.__name__}, killed after {moment:.2f} s"
        if any("\n" in what for what in told):
            tally.note(f"{when}: told was {told}")
        elif found != expected:
            tally.note(f"{when}: {answer} {_difference(expected, found)}")
        else:
            tally.identical += 1
        done_in(at.home, tidy)
        tally.count_temporary_files(at.home)


def _let_meet(pair: tuple[Deed, Deed], at: _Homes, tally: Tally) -> None:
    """Two decisions at once: both are told of in the log, in an order, and the last one counts."""
    at.begin_anew(None)
    tally.rivals += 1
    rivals = [Decision(deed, at.home) for deed in pair]
    for each in rivals:
        each.begin()
    answers = [each.answer() for each in rivals]
    found, made = done_in(at.home, state), done_in(at.home, moves)
    names = " beside ".join(each.__name__ for each in pair)
    # One may find that the other has already done what it was about to do.
    wanted = 2 - sum(answer.startswith("BadInput: ") for answer in answers)
    follow = all(earlier[1] == later[0] for earlier, later in pairwise(made))
    if any(answer and not answer.startswith("BadInput: ") for answer in answers) or not wanted:
        tally.note(f"{names}: {answers}")
    elif len(made) != wanted or not follow or made[-1][1] != found["champion"]:
        tally.note(f"{names}: the log tells of {made}, champion is {found['champion']}")
    elif found["problems"] or found["refused"]:
        tally.note(f"{names}: {found['problems']} {found['refused']}")
    else:
        tally.rivals_at_peace += 1


class Decision:
    """A deed in a process of its own, which waits until it may begin."""

    def __init__(self, deed: Deed, home: Path) -> None:
        self._ours, theirs = spawner().Pipe()
        self.process = spawner().Process(
            target=_decide, args=(str(home), deed, theirs), daemon=True
        )
        self.process.start()
        theirs.close()
        self._ours.recv()  # it has imported everything

    def begin(self) -> None:
        """Let it work from now on."""
        self._ours.send("begin")

    def kill(self) -> bool:
        """SIGKILL; returns whether it was still at work."""
        if self._ours.poll():
            self.process.join()
            return False
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        return True

    def answer(self) -> str:
        """The error of the deed, or nothing."""
        if not self._ours.poll(SECONDS_TO_DECIDE):
            self.process.kill()
            return "it did not end"
        try:
            told: str = self._ours.recv()
        except EOFError:
            told = "the process died"
        self.process.join()
        return told


def _decide(home: str, deed: Deed, ours: Connection) -> None:
    enter(home)
    from tasks.registry import promotion

    promotion.check_loads = lambda *_, **__: None  # its process would outlive this one
    ours.send("ready")
    ours.recv()
    try:
        deed()
    except Exception as error:
        ours.send(f"{type(error).__name__}: {error}")
    else:
        ours.send("")


def state() -> dict[str, Any]:
    """All that a reader sees: aliases, versions, packages, runs, what the log says of them.

    "refused" is why the champion does not load.
    """
    from tasks.registry import audit_history, audit_log
    from tasks.registry.promotion import reconcile
    from tasks.registry.versions import aliases_of, champion_of, contents_of
    from tasks.tracking.mlflow_client import client, our_packages, tracking_experiment

    reconcile(NAME)
    entries, champion = audit_log.entries_of(NAME), champion_of(NAME)
    return {
        "champion": champion and int(champion.version),
        "champion of the log": audit_history.champion_by(audit_history.answered(entries)),
        "aliases": sorted(aliases_of(NAME)),
        "versions": contents_of(NAME),
        "versions of the log": audit_history.live_versions(entries),
        "withdrawn": audit_history.withdrawn_contents(entries),
        "packages": sorted(each.model_id for each in our_packages()),
        "runs": sorted(each.info.run_id for each in client().search_runs([tracking_experiment()])),
        "problems": [what for what, _ in problems()],
        "refused": load(),
    }


def moves() -> list[tuple[int | None, int | None]]:
    """From which version to which persons moved the name champion, by the log."""
    from tasks.registry import audit_history, audit_log

    found = audit_history.moves(audit_log.entries_of(NAME))
    named = [entry for entry in found if entry.action in ("override", "rollback")]
    return [(entry.from_version, entry.to_version) for entry in named]


def _difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    differ = [name for name, value in expected.items() if found[name] != value]
    return "; ".join(f"{name}: {found[name]}, not {expected[name]}" for name in differ)


def promote_1() -> None:
    """Make the first champion it again."""
    from tasks.registry.promotion import promote

    promote(NAME, 1, "by hand")


def promote_2() -> None:
    """Make the second champion it again."""
    from tasks.registry.promotion import promote

    promote(NAME, 2, "by hand")


def roll_back() -> None:
    """Back to the champion before this one."""
    from tasks.registry.promotion import rollback

    rollback(NAME, 2)


def accept() -> None:
    """Take the registry as it is."""
    from tasks.registry.repair import repair

    repair(NAME, "accept")


def restore() -> None:
    """Give the name back to the champion of the log."""
    from tasks.registry.repair import repair

    repair(NAME, "restore")


def tidy() -> None:
    """Free what nothing refers to and what the killed left, as housekeeping does."""
    from tasks.maintenance.sweeping import collect_garbage

    collect_garbage.fn()


def prune() -> None:
    """Remove what housekeeping would in two days, if one version were kept."""
    from tasks.maintenance.pruning import delete, find_surplus

    os.environ["ATELIER_KEEP_VERSIONS"] = "1"
    delete(find_surplus(now=time.time() + 2 * 86400))


def delete_first() -> None:
    """As a person does on MLflow's page."""
    from tasks.tracking.mlflow_client import client

    client().delete_model_version(NAME, "1")


def move_alias() -> None:
    """The same with the name champion."""
    from tasks.tracking.mlflow_client import client

    client().set_registered_model_alias(NAME, "champion", "1")


_DEEDS: tuple[tuple[Deed | None, Deed], ...] = (
    (None, promote_1),
    (None, roll_back),
    (delete_first, accept),
    (move_alias, restore),
    (None, prune),
)
