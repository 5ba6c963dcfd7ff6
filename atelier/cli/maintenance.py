"""`atelier explain` and `atelier gc`: why a step ran again, and what may be thrown away."""

import argparse
import time
from typing import TYPE_CHECKING

from atelier.cli.options import Commands, find_registry, logged_models, step
from atelier.cli.tables import print_table
from tasks.runtime.markup import plain
from tasks.store.files import BadInput
from tasks.store.storage import STORE_VARIABLE

if TYPE_CHECKING:
    from tasks.maintenance.pruning import Surplus
    from tasks.store.steps import StepRecord


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    explain = commands.add_parser(
        "explain", help="which part of a step's key changed since the previous run"
    )
    explain.add_argument(
        "step", nargs="?", type=step, metavar="STEP", help="default: a list of all steps"
    )
    explain.set_defaults(command=_explain)
    gc = commands.add_parser(
        "gc",
        help="show what nothing refers to any more, and with --yes free it",
        description="Frees fits, data, evaluations, galleries and comparisons that no version, no"
        " job at work and no step's latest run (nor any of the last hour) refers to, what an"
        " earlier version of Atelier kept, and what a kill left half-written. An interrupted fit"
        " stays for 30 days. In MLflow: versions that were never champion and that no person named,"
        " but for the last 10 of each model (ATELIER_KEEP_VERSIONS); packages of which a crash left"
        " no version; runs older than 30 days (ATELIER_KEEP_DAYS) that no version refers to.",
    )
    gc.add_argument("--yes", action="store_true", help="free it now")
    gc.add_argument(
        "--shared",
        action="store_true",
        help="in the shared store (ATELIER_STORE) instead of this home: what no home and no version"
        " refers to, and is older than 90 days (ATELIER_KEEP_SHARED_DAYS)",
    )
    gc.set_defaults(command=_gc)


def _explain(options: argparse.Namespace) -> int:
    from tasks.store.steps import history, steps

    if options.step is None:
        rows = [("step", "last time", "", "took")]
        rows += [
            (name, *_format_record(record)) for name in steps() for record in history(name)[-1:]
        ]
        print_table(rows)
        _print_damages(steps())
        return 0
    records = history(options.step) if options.step in steps() else []
    if options.step in steps():
        _print_damages([options.step])
    if not records:
        known = ", ".join(steps()) or "none yet: train some with `atelier run`"
        raise BadInput(f"no step named {options.step!r} ever ran; there are: {known}")
    _print_story(records)
    return 0


def _print_story(records: "list[StepRecord]") -> None:
    """The last run, the previous one, and what lies between them."""
    from tasks.store.graph import Graph
    from tasks.store.steps import changes

    last = records[-1]
    rows = [(last.step, *_format_record(last))]
    if records[:-1]:
        rows.append(("previous run", *_format_record(records[-2])))
    print_table(rows)
    for reason in last.reasons:
        print(f"  {plain(reason)}")
    graph = Graph.of_home()
    for digest in last.parts.get("inputs", []):
        if (made := graph.named(digest)) is not None and made.key != last.key:
            print(f"  made from {made.kind} {plain(made.name)}, {digest[:12]}")
    earlier = next((r for r in reversed(records) if r.key != last.key), None)
    if not records[:-1]:
        print(f"key {last.key[:12]}: the first time that this step ran")
    elif earlier is None:
        print(f"key {last.key[:12]}: the same all {len(records)} times")
    else:
        same = "" if earlier is records[-2] else " as in the previous run"
        print(f"key {last.key[:12]}{same}; {earlier.key[:12]} until then; what changed:")
        for line in changes(earlier.parts, last.parts):
            print(f"  {plain(line)}")


def _print_damages(names: list[str]) -> None:
    """The lines of steps' records that cannot be read; they count as not written."""
    from tasks.store.steps import damages

    for name in names:
        for line in damages(name):
            print(f"left out, for it is damaged: {line}")


def _format_record(record: "StepRecord") -> tuple[str, str, str]:
    """When it was, how it ended, and how long it took."""
    took = "" if record.seconds is None else f"{record.seconds:.0f} s"
    return _ago(time.time() - record.started_at), record.state, took


def _ago(seconds: float) -> str:
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name} ago"
    return f"{max(0.0, seconds):.0f} seconds ago"


def _gc(options: argparse.Namespace) -> int:
    from tasks.maintenance.garbage_collection import delete, find_garbage
    from tasks.store.steps import steps

    _print_damages(steps())
    kept, surplus = _kept_and_surplus()
    if options.shared:
        return _gc_shared(kept, frees=options.yes)
    found = find_garbage(kept)
    if not found and not surplus:
        print("nothing to delete: every file is in use")
        return 0
    rows = [(str(each.path), _size(each.num_bytes), each.reason) for each in found]
    rows += [(each.name, "in MLflow", each.reason) for each in surplus]
    print_table([("what", "size", "why"), *rows])
    of_mlflow = f", {len(surplus)} of MLflow's besides" if surplus else ""
    if options.yes:
        if surplus:
            from tasks.maintenance import pruning as mlflow_side

            mlflow_side.delete(surplus)
        print(f"freed {_size(delete(found))}{of_mlflow}")
    else:
        total = _size(sum(each.num_bytes for each in found))
        print(f"{total} in all{of_mlflow}; `atelier gc --yes` frees them")
    return 0


def _kept_and_surplus() -> "tuple[set[str], list[Surplus]]":
    """The contents of versions that stay, and what MLflow has too much of."""
    from tasks.registry.audit_history import lasting_contents

    kept = set(lasting_contents())
    if find_registry():
        from tasks.maintenance.pruning import find_surplus, kept_contents

        surplus = find_surplus()
        return kept | kept_contents(surplus), surplus
    if logged_models():
        raise BadInput("the registry cannot be reached; start its server with `atelier up`")
    return kept, []


def _gc_shared(kept: set[str], *, frees: bool) -> int:
    from tasks.maintenance.shared_store import find_shared_garbage, sweep
    from tasks.store.shared import shared

    store = shared()
    if store is None:
        raise BadInput(f"there is no shared store: {STORE_VARIABLE} is not set")
    found = find_shared_garbage(store, kept)
    if not found:
        print(f"nothing to delete: all of {store.address} is needed, or too young to go")
        return 0
    rows = [(each.folder, _size(each.num_bytes), each.reason) for each in found]
    print_table([("what", "size", "why"), *rows])
    if frees:
        print(f"freed {_size(sweep(store, found))} of {store.address}")
    else:
        total = _size(sum(each.num_bytes for each in found))
        print(
            f"{total} in all; `atelier gc --shared --yes` frees them, for all who share the store"
        )
    return 0


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"
