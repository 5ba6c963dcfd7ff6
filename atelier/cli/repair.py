"""`atelier doctor --repair`: the ways out of what the registry and the audit logs disagree in."""

import sys
from collections.abc import Iterator, Sequence

from atelier.cli.options import find_registry, logged_models
from atelier.services.finding import Finding
from tasks.store.files import BadInput, home


def disagreements() -> Iterator[Finding]:
    """A finding for each disagreement, or one that says that there is none.

    Nothing is made where the registry's database is missing: the logs alone tell then.
    """
    if not find_registry():
        if names := logged_models():
            yield Finding(
                name="audit logs",
                state="failed",
                what=f"{home() / 'mlflow.db'} was lost; audit logs stand of {', '.join(names)}",
                to_do="put a backup in its place, or train again with `atelier run`: the logs go"
                " on, and say what was lost",
            )
            return
        yield Finding(name="audit logs", state="ok", what="nothing is registered yet")
        return
    from tasks.registry.consistency import all_models, misnamed_models, problems_of

    names = all_models()
    problems = [*misnamed_models(), *(each for name in names for each in problems_of(name))]
    for problem in problems:
        yield Finding(name="audit logs", state="failed", what=problem.what, to_do=problem.to_do())
    if not problems:
        what = f"{len(names)} agree with the registry; the champions are what was registered"
        yield Finding(name="audit logs", state="ok", what=what)


def repair(named: Sequence[str]) -> int:
    """Go the ways that were named as MODEL=WAY; without any, ask at a terminal, or list them."""
    if not find_registry():
        raise BadInput(
            f"there is no registry to repair: {home() / 'mlflow.db'} is not there; put a backup in"
            " its place, or train again with `atelier run`"
        )
    from tasks.registry.consistency import WAYS, all_models, misnamed_models, problems_of

    for text in named:
        model, mark, way = text.partition("=")
        if not mark or not model or not way:
            raise BadInput(f"{text!r} names no way; wanted MODEL=WAY, as `--repair` alone lists")
        print(_gone(model, way))
    if named:
        return 0
    problems = [*misnamed_models(), *(each for name in all_models() for each in problems_of(name))]
    if not problems:
        print("nothing to repair: audit logs, registry and champions agree")
        return 0
    for problem in problems:
        print(problem.what)
        if not problem.ways:
            print(f"  {problem.to_do()}")
            continue
        for way in problem.ways:
            what, _, number = way.partition(":")
            of = f" (version {number})" if number else ""
            print(f"  --repair {problem.model}={way:<12} {WAYS[what]}{of}")
        if sys.stdin.isatty():
            chosen = input("  which way? (enter: none) ").strip()
            if chosen:
                if chosen not in problem.ways:
                    raise BadInput(f"no way out of this is called {chosen!r}; nothing was changed")
                print(_gone(problem.model, chosen))
    return 0 if sys.stdin.isatty() else 1


def _gone(model: str, way: str) -> str:
    """What a way led to; only who goes one waits for the libraries that write."""
    from tasks.registry.repair import repair as go

    return go(model, way)
