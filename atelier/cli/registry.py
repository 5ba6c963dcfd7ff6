"""`atelier history`, `rollback`, `promote` and `reproduce`: who is champion, and why."""

import argparse
from typing import Any

from atelier.cli.options import (
    NOTHING_YET,
    Commands,
    add_ports,
    add_quiet,
    check_registry,
    find_registry,
    flow_result,
    model,
    model_and_version,
    nothing_there,
    print_error,
    start_servers,
    whole_number,
)
from atelier.cli.tables import print_table
from tasks.store.files import BadInput


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    history = commands.add_parser("history", help="who was champion when, and why")
    history.add_argument(
        "model", nargs="?", type=model, metavar="MODEL", help="default: all models"
    )
    history.set_defaults(command=_history)

    rollback = commands.add_parser("rollback", help="make the champion before this one champion")
    rollback.add_argument("model", type=model, metavar="MODEL", help="a registered model")
    rollback.add_argument("--to", type=_version, metavar="N", help="default: the one before")
    rollback.add_argument("--reason", default="", help="kept in the audit log")
    add_ports(rollback)
    add_quiet(rollback)
    rollback.set_defaults(command=_rollback)

    promote = commands.add_parser("promote", help="make a version champion, whatever the gate said")
    promote.add_argument("model", type=model, metavar="MODEL", help="a registered model")
    promote.add_argument(
        "--to", type=_version, metavar="N", required=True, help="the version's number"
    )
    promote.add_argument("--reason", required=True, help="kept in the audit log")
    add_ports(promote)
    add_quiet(promote)
    promote.set_defaults(command=_promote)

    again = commands.add_parser("reproduce", help="train a version again, and compare the weights")
    again.add_argument(
        "model",
        type=model_and_version,
        metavar="MODEL[@ALIAS|/N]",
        help="by default its champion",
    )
    add_ports(again)
    add_quiet(again)
    again.set_defaults(command=_reproduce)


def _version(text: str) -> int:
    return whole_number("a version", text, 1, 10**9)


def _history(options: argparse.Namespace) -> int:
    from tasks.registry import audit_log, consistency, promotion

    if not find_registry():
        return _history_without_registry(options.model)
    names = [options.model] if options.model else consistency.all_models()
    strange = [] if options.model else consistency.misnamed_models()
    if not names and not strange:
        raise BadInput(NOTHING_YET)
    for problem in strange:
        print(f"! {problem.what}\n  -> {problem.to_do()}")
    damaged = False
    for name in names:
        problems = consistency.problems_of(name, with_packages=False)
        try:
            entries = promotion.history(name)
        except audit_log.AuditLogDamaged:
            damaged, entries = True, []
        print(f"{name}")
        for problem in problems:
            print(f"  ! {problem.what}\n    -> {problem.to_do()}")
        print_table([_line(entry) for entry in entries] or [("  no moves yet",)])
    return 2 if damaged else 0


def _history_without_registry(model: str | None) -> int:
    """What the logs tell where the registry's database is gone; nothing is made in its place."""
    from tasks.registry import audit_history, audit_log
    from tasks.registry.log_storage import known_models

    names = [name for name in known_models() if model in (None, name)]
    if not names:
        raise BadInput(nothing_there())
    for name in names:
        print(f"{name}")
        print_table(
            [_line(entry) for entry in audit_history.told(audit_log.entries_of(name))]
            or [("  no moves yet",)]
        )
    return print_error(nothing_there(), 1)


def _line(entry: Any) -> tuple[str, ...]:
    before, after = entry.from_version, entry.to_version
    moved = " -> ".join("none" if version is None else str(version) for version in (before, after))
    if entry.kind == "refused":
        moved = f"{after} refused"
    when = entry.at.replace("T", " ").partition("+")[0]
    return f"  {when}", entry.action, moved, entry.who.partition(" (")[0], entry.why


def _rollback(options: argparse.Namespace) -> int:
    _get_ready(options)
    from tasks.registry import promotion

    return _moved(options, promotion.rollback(options.model, options.to, options.reason))


def _promote(options: argparse.Namespace) -> int:
    if not options.reason.strip():
        raise BadInput("--reason must not be empty; it is written to the audit log")
    _get_ready(options)
    from tasks.registry import promotion

    return _moved(options, promotion.promote(options.model, options.to, options.reason))


def _moved(options: argparse.Namespace, versions: tuple[int | None, int]) -> int:
    before, after = versions
    print(f"{options.model}: version {after} is champion now; before: {before or 'none'}")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    name, which = options.model
    check_registry()
    start_servers(options)
    from flows.reproduce import reproduce
    from tasks.registry import promotion

    promotion.check_known(name)
    made = flow_result(reproduce, name=name, which=which)
    if made is None:
        return 1
    print()
    rows = [("", "recorded", "now", "")]
    rows += [(c.what, c.recorded, c.now, "" if c.is_same else "differs") for c in made.comparisons]
    print_table(rows)
    verdict = "identical weights" if made.is_identical else "different weights"
    print(f"\n{name} version {made.version}, reproduced: {verdict}")
    return 0 if made.is_identical else 1


def _get_ready(options: argparse.Namespace) -> None:
    """What a move needs: servers, and the clean process that loads a version; all start at once.

    The servers come before anything of Prefect is imported: it would miss their addresses.
    """
    check_registry()
    from tasks.packaging import load_check

    load_check.get_ready()
    start_servers(options, "tasks.registry.promotion")
