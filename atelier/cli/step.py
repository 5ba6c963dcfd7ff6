"""`atelier step`: one step alone, by today's code on what the store holds of a version."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from atelier.cli.options import (
    MAX_SEED,
    Commands,
    add_ports,
    add_quiet,
    alias,
    check_registry,
    flow_result,
    model_and_version,
    seed,
    start_servers,
)
from atelier.cli.tables import print_table
from tasks.runtime.markup import plain

Run = Callable[[argparse.Namespace], int]


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    step = commands.add_parser(
        "step",
        help="one step of a version alone, by today's code: fit, evaluate, sample, register",
        description="For who works on one step: it runs by the code as it is now, on the inputs"
        " that the store holds of a registered version. No version, alias, card or gallery"
        " changes.",
    )
    steps = step.add_subparsers(required=True, metavar="STEP")

    fit = steps.add_parser(
        "fit",
        help="train again by the record's settings, and compare the weights",
        description="Trains on the version's stored data by the settings of its record, and says"
        " whether the weights are the same, and what changed. Unchanged code finds the stored fit.",
    )
    _add_address(fit, "champion")
    _add_fresh(fit, "train")
    fit.set_defaults(command=_fit)

    evaluate = steps.add_parser(
        "evaluate",
        help="measure the registered weights again, beside what is on record",
        description="Measures the version's registered weights on its stored data by the"
        " evaluation of today; the model itself runs on the code that the version brought. What is"
        " measured is stored, so that `atelier compare` and the gate"
        " find it; the version's tags and card stay as they are.",
    )
    _add_address(evaluate, "champion")
    evaluate.add_argument(
        "--data-of",
        type=alias,
        metavar="N|ALIAS",
        help="measure on the data of this other version of the model",
    )
    _add_fresh(evaluate, "measure")
    evaluate.set_defaults(command=_evaluate)

    sample = steps.add_parser(
        "sample",
        help="draw what the gallery would show, into drawn/ of the home",
        description="Lets any version draw or write as it would for the gallery, which stays.",
    )
    _add_address(sample, "champion")
    sample.add_argument("--seed", type=seed, default=0, help=f"0 to {MAX_SEED} (default: 0)")
    sample.set_defaults(command=_sample)

    register = steps.add_parser(
        "register",
        help="what the gate would decide, and whether its package loads; nothing changes",
        description="Rehearses a registration: measures version and champion by today's"
        " evaluation, asks the gate, packs the stored fit by today's code into a folder of its own,"
        " and loads it in a clean process. Exit code 0: it would be champion, or is; 1: it would"
        " not.",
    )
    _add_address(register, "challenger")
    register.set_defaults(command=_register)
    for each in (fit, evaluate, sample, register):
        add_ports(each)
        add_quiet(each)


def _add_address(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "model",
        type=lambda text: model_and_version(text, default),
        metavar="MODEL[@ALIAS|/N]",
        help=f"by default its {default}",
    )


def _add_fresh(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--fresh",
        action="store_true",
        help=f"{what} even if nothing changed since, and keep nothing of it",
    )


def _done(options: argparse.Namespace, flow_name: str, **parameters: Any) -> Any:
    """What a step's flow returns, or None after one line on how it failed."""
    name, which = options.model
    check_registry()
    start_servers(options, "flows.one_step")
    from flows import one_step
    from tasks.registry import promotion

    promotion.check_known(name)
    return flow_result(getattr(one_step, flow_name), name=name, which=which, **parameters)


def _fit(options: argparse.Namespace) -> int:
    made = _done(options, "step_fit", fresh=options.fresh)
    if made is None:
        return 1
    told, fitted = made.comparison, made.fitted
    print()
    rows = [("", "recorded", "now", "")]
    rows += [(c.what, c.recorded, c.now, "" if c.is_same else "differs") for c in told.comparisons]
    print_table(rows)
    how = "found as it was trained" if fitted.was_stored else "trained"
    state = "identical weights" if told.is_identical else "the weights differ"
    print()
    print(plain(f"{told.name} version {told.version}: {state}; {how}, {fitted.seconds:.0f} s"))
    if fitted.was_stored:
        print("nothing that it depends on has changed; --fresh trains it all the same")
    elif not options.fresh:
        print(plain(f"kept in {fitted.folder}"))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    made = _done(options, "step_evaluate", data_of=options.data_of, fresh=options.fresh)
    if made is None:
        return 1
    from tasks.evaluation.scorecard import with_baseline

    card = made.scorecard
    print()
    rows: list[Sequence[str]] = [("", "recorded", "now", "real data")]
    for row in with_baseline(card.metrics):
        before, floor = made.recorded.get(row.name), row.baseline
        cells = ["" if v is None else f"{v:.6g}" for v in (before, row.value, floor)]
        rows.append((row.title, *cells))
    print_table(rows)
    state = ", unchanged since it was measured before" if card.was_stored else ""
    print()
    print(
        plain(
            f"{card.name} version {made.version.version} on {card.data_title}:"
            f" {card.main_value:.4f} ({card.low:.4f} to {card.high:.4f}, 95 %){state}"
        )
    )
    for fault in card.failed_checks:
        print(plain(f"not sound: {fault}"))
    if made.is_kept:
        print(plain(f"kept in {card.folder}"))
    return 0


def _sample(options: argparse.Namespace) -> int:
    work = _done(options, "step_sample", seed=options.seed)
    if work is None:
        return 1
    print()
    print(plain(f"{work.name} version {work.version}, seed {work.seed}"))
    for file_name, caption in (*work.texts, *work.pictures, *work.differences):
        print(plain(f"  {Path(work.folder) / file_name}  {caption}"))
    return 0


def _register(options: argparse.Namespace) -> int:
    made = _done(options, "step_register")
    if made is None:
        return 1
    decision = made.decision
    verdict = "accept" if decision.accepted else "refuse"
    print()
    print(plain(f"{made.version.name} version {made.version.version}"))
    print(plain(f"  gate     would {verdict} it: {decision.reason}"))
    print(plain(f"  package  {made.package}"))
    print("nothing was registered or moved")
    return 0 if decision.accepted and made.loads else 1
