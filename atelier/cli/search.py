"""`atelier search`: look for better settings of one family, or at what was found."""

import argparse
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.cli.options import (
    MAX_SEED,
    Commands,
    FlowCall,
    add_ports,
    add_quiet,
    flow_result,
    in_a_process_of_its_own,
    note_given,
    seed,
    start_servers,
    whole_number,
)
from atelier.cli.settings import PRESETS, add_data, add_preset, check_together, read_toml
from atelier.cli.tables import print_table
from tasks.data.own_files import writable
from tasks.data.sources import find_source
from tasks.families.table import FAMILIES, names
from tasks.runtime.messages import shortened
from tasks.settings.values import checked, flattened, from_words
from tasks.store.files import BadInput, check_space, home, write_text
from tasks.store.names import checked_name

if TYPE_CHECKING:
    from tasks.search.runners import Place

SPACE_FOR_A_SEARCH_BYTES = 300_000_000
_KEYS = {
    **{"family": str, "images": str, "text": str, "preset": str, "name": str, "sampler": str},
    **{"prune": str, "tokenizer": str, "budget": str, "trials": int, "workers": int, "seed": int},
    **{"threads": int, "fresh_seeds": int, "image_size": int, "vary": dict, "set": dict},
    **{"runner": str, "trial_cpus": int, "trial_gpus": float},
}
"""What a file of `--config` may say, by the names of options."""
PRUNINGS = ("none", "halving")
RUNNERS = ("processes", "ray", "ray:auto")
MAX_GPUS = 64.0
_LIMITS = {
    **{"trials": (1, 10_000), "workers": (1, 64), "threads": (1, 256), "fresh_seeds": (0, 20)},
    "trial_cpus": (1, 256),
}
"""The lowest and the highest number, as the flow has them."""
_UNITS = {"s": 1, "m": 60, "h": 3600}


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    search = commands.add_parser(
        "search", help="try settings of one family out, and put the best before the gate"
    )
    note_given(search)
    search.add_argument("family", nargs="?", metavar="FAMILY", help=f"of {', '.join(names())}")
    search.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME=SPEC",
        help="log:1e-4..1e-2, 0.1..0.5, 8..32:4 or 8,12,16; may be repeated",
    )
    add_data(search)
    search.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="NAME=VALUE",
        help="what all trials have set",
    )
    search.add_argument("--config", type=Path, metavar="FILE", help="the same in a TOML file")
    add_preset(search)
    search.add_argument(
        "--trials", type=_limited("trials"), default=20, metavar="N", help="default: 20"
    )
    search.add_argument(
        "--workers",
        type=_limited("workers"),
        metavar="N",
        help="trials at a time (default: 1; with --runner ray a batch of 4, as there is room)",
    )
    search.add_argument(
        "--runner",
        choices=RUNNERS,
        default="processes",
        help="where: processes of this machine (default), Ray started here, or the Ray cluster that"
        " this machine is a node of",
    )
    search.add_argument(
        "--trial-cpus",
        type=_limited("trial_cpus"),
        metavar="N",
        help="with --runner ray: that a trial takes of a node (default: --threads)",
    )
    search.add_argument(
        "--trial-gpus",
        type=_gpus,
        metavar="N",
        help="with --runner ray: 0.5 is half a GPU (default: 1 where this machine has GPUs)",
    )
    search.add_argument("--seed", type=seed, default=0, help=f"0 to {MAX_SEED} (default: 0)")
    search.add_argument(
        "--sampler",
        choices=("tpe", "random"),
        default="tpe",
        help="tpe learns from earlier trials, random does not (default: tpe)",
    )
    search.add_argument(
        "--prune",
        choices=PRUNINGS,
        default="none",
        help="halving: end trials early that are not among the best third (default: none)",
    )
    search.add_argument("--name", metavar="NAME", help="by which the search is gone on with")
    search.add_argument(
        "--budget", metavar="TIME", help="such as 20m, 90s or 2h: then no further trial begins"
    )
    search.add_argument(
        "--threads",
        type=_limited("threads"),
        default=1,
        metavar="N",
        help="of each trial (default: 1)",
    )
    search.add_argument(
        "--fresh-seeds",
        type=_limited("fresh_seeds"),
        default=3,
        metavar="N",
        help="with which the best setting is trained again (default: 3; 0: registers nothing)",
    )
    looks = search.add_mutually_exclusive_group()
    looks.add_argument("--list", action="store_true", help="list the searches of this home")
    looks.add_argument("--show", metavar="NAME", help="what a search tried and found")
    search.add_argument("--json", action="store_true", help="with --show: for programs")
    search.add_argument(
        "--save-preset",
        metavar="NAME",
        help="with --show: write its best setting to presets/NAME.toml in the home",
    )
    add_ports(search)
    add_quiet(search)
    searching = FlowCall(
        entrypoint="flows.search.search",
        parameters=_scheduled,
        tags=("train", "search"),
        queue="training",
    )
    search.set_defaults(command=_search, parser=search, flow=searching)


def _limited(name: str) -> Callable[[str], int]:
    """Reads the number of an option."""
    low, high = _LIMITS[name]
    return lambda text: whole_number(f"a number of {name.replace('_', ' ')}", text, low, high)


def _reader(name: str) -> Callable[[str], float] | None:
    """What reads the number of an option; None where it is none."""
    if name in _LIMITS:
        return _limited(name)
    return {"seed": seed, "trial_gpus": _gpus}.get(name)


def _gpus(text: str) -> float:
    """A number of GPUs for argparse, or a part of one."""
    with suppress(ValueError):
        if 0 <= float(text) <= MAX_GPUS:
            return float(text)
    raise argparse.ArgumentTypeError(
        f"a number of GPUs is from 0 to {MAX_GPUS:g}, got {shortened(text)!r}"
    )


def _search(options: argparse.Namespace) -> int:
    if options.list or options.show is not None:
        _check_looks(options)
        return _list() if options.list else _show(options)
    parameters = _parameters(options)
    check_space(home(), SPACE_FOR_A_SEARCH_BYTES)
    _check_cluster(options)
    start_servers(options, "flows.search")
    from flows.search import search
    from tasks.search.records import named, searches

    finding = flow_result(search, **parameters)
    if finding is None:
        return 1
    (found,) = [each for each in searches() if each.key == finding.search] or named(options.name)
    return _print_search(found.name)


def _check_looks(options: argparse.Namespace) -> None:
    """Refuse what would be without effect beside --list and --show."""
    look = "--list" if options.list else "--show"
    beside = sorted(options.given - {"show", "save_preset", "prefect_port", "mlflow_port"})
    beside += [name for name in ("vary", "assignments") if getattr(options, name)]
    words = [{"assignments": "--set"}.get(each, f"--{each.replace('_', '-')}") for each in beside]
    if options.family is not None:
        words.insert(0, repr(options.family))
    if words:
        raise BadInput(f"{look} only looks at searches; leave out {shortened(words[0])}")
    about_one = [("--json", options.json), ("--save-preset", options.save_preset is not None)]
    about = [flag for flag, is_given in about_one if is_given]
    if options.list and about:
        raise BadInput(f"{about[0]} is about one search: it wants --show NAME instead of --list")
    if len(about) > 1:
        raise BadInput(
            "--save-preset writes a file, and --json tells of a search; give one of them"
        )


def _check_cluster(options: argparse.Namespace) -> None:
    """Ask a cluster whether trials find room there, before anything is started."""
    from tasks.search.runners import check_cluster

    if options.runner != "processes":
        in_a_process_of_its_own(check_cluster, _place(options))


def _place(options: argparse.Namespace) -> "Place":
    from tasks.search.runners import checked_place

    return checked_place(
        options.runner,
        threads=options.threads,
        workers=options.workers,
        trial_cpus=options.trial_cpus,
        trial_gpus=options.trial_gpus,
    )


def _scheduled(options: argparse.Namespace) -> dict[str, Any]:
    """What the flow of a schedule is called with."""
    if options.list or options.show is not None:
        raise BadInput("--list and --show only look at searches; schedule a search itself")
    return _parameters(options)


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    """What the flow is called with, checked before anything is started."""
    from tasks.search.asked import checked_search
    from tasks.search.halving import halving_of
    from tasks.search.space import vary_from_words

    for flag, is_given in (
        ("--json", options.json),
        ("--save-preset", options.save_preset is not None),
    ):
        if is_given:
            raise BadInput(
                f"{flag} is about a search that was made: it wants --show NAME beside it"
            )
    if options.config is not None:
        _take_file(options)
    if options.family not in FAMILIES:
        got = "none" if options.family is None else shortened(repr(options.family))
        raise BadInput(f"search wants a family of {', '.join(names())}; got {got}")
    family = FAMILIES[options.family]
    options.images, options.text = writable(options.images), writable(options.text)
    if family.data == "images":
        find_source(options.images, "images", options.image_size)
    else:
        find_source(options.text, "text")
    vary = {**getattr(options, "vary_of_file", {}), **vary_from_words(options.vary)}
    settings = checked(getattr(options, "set_of_file", {}), [family.name])
    settings |= checked(from_words(options.assignments), [family.name])
    asked = checked_search(
        family,
        vary,
        settings,
        prune=options.prune,
        name=options.name,
        preset=options.preset,
        seed=options.seed,
        sampler=options.sampler,
        threads=options.threads,
    )
    first = check_together(options, [family.name], options.preset, asked.given)[family.name]
    if options.prune == "halving":
        halving_of(first["training"].steps)  # raises for too few
    _place(options)
    same = ("images", "text", "trials", "workers", "seed", "name", "sampler", "prune")
    more = ("preset", "fresh_seeds", "threads", "image_size", "tokenizer")
    where = ("runner", "trial_cpus", "trial_gpus")
    return {
        **{"family": family.name, "vary": vary, "settings": settings},
        **{name: getattr(options, name) for name in (*same, *more, *where)},
        "budget_seconds": _seconds(options.budget),
    }


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6})([smh]?)", text.strip())
    if found is None or not int(found[1]):
        raise BadInput(f"--budget wants a time such as 20m, 90s or 2h; got {text!r}")
    return int(found[1]) * _UNITS[found[2] or "s"]


def _take_file(options: argparse.Namespace) -> None:
    """Take what a file says for options that the command line does not give."""
    path = options.config
    said = read_toml(path)
    for name, value in said.items():
        if name not in _KEYS:
            raise BadInput(f"{path}: unknown {name!r}; known: {', '.join(_KEYS)}")
        if type(value) is not _KEYS[name] and (type(value), _KEYS[name]) != (int, float):
            got = type(value).__name__
            raise BadInput(f"{path}: {name} is of the type {_KEYS[name].__name__}, got {got}")
    options.vary_of_file = flattened(said.get("vary", {}))
    options.set_of_file = flattened(said.get("set", {}))
    chosen = {"sampler": ("tpe", "random"), "preset": PRESETS, "tokenizer": ("characters", "bpe")}
    chosen |= {"prune": PRUNINGS, "runner": RUNNERS}
    for name, value in said.items():
        is_positional = name == "family" and options.family is not None
        if name in ("vary", "set") or name in options.given or is_positional:
            continue
        if value not in chosen.get(name, (value,)):
            raise BadInput(f"{path}: {name} is one of {', '.join(chosen[name])}; got {value!r}")
        if read := _reader(name):
            try:
                read(str(value))
            except argparse.ArgumentTypeError as error:
                raise BadInput(f"{path}: {error}") from error
        setattr(options, name, value)


def _list() -> int:
    from tasks.search.records import finding_of, outcomes_of, results_of, searches
    from tasks.search.study import best_of

    rows = [("search", "model", "trials", "best", "decision")]
    for each in searches():
        outcomes = outcomes_of(each)
        best = best_of(results_of(outcomes))[:1]
        value = f"{outcomes[best[0]].value:.5g} (trial {best[0]})" if best else "none"
        finding = finding_of(each)
        decision = finding.decision if finding else "not ended"
        rows.append((each.name, each.model, str(len(outcomes)), value, decision))
    print_table(rows)
    return 0


def _show(options: argparse.Namespace) -> int:
    from tasks.search.records import search_called

    search_called(options.show)
    if options.save_preset is not None:
        return _save_preset(options.show, options.save_preset)
    return _print_json(options.show) if options.json else _print_search(options.show)


def _print_search(name: str) -> int:
    from tasks.search.records import Finding, finding_of, outcomes_of, search_called
    from tasks.search.report import rows_of, summary_of
    from tasks.search.space import in_words, space_of

    search = search_called(name)
    unfinished = Finding(
        search=search.key, trials=len(outcomes_of(search)), best=None, decision="not ended"
    )
    print(f"\n{search.name}: {search.model}, preset {search.preset}, seed {search.spec.seed}")
    if search.halving is not None:
        rungs = " and ".join(map(str, search.halving.rungs))
        print(f"  pruned by halving at {rungs} of {search.halving.steps} steps")
    for setting, distribution in space_of(search.spec.space).items():
        print(f"  {setting} = {in_words(distribution)}")
    print()
    print_table([("place", "trial", "objective", "settings"), *rows_of(search)])
    print(f"\n{summary_of(search, finding_of(search) or unfinished)}", flush=True)
    return 0


def _print_json(name: str) -> int:
    from tasks.search.records import (
        finding_of,
        outcomes_of,
        proposals_of,
        search_called,
        steps_of,
    )

    search = search_called(name)
    outcomes, finding = outcomes_of(search), finding_of(search)
    trials = [
        {
            "number": each.number,
            "values": each.proposal.values,
            "outcome": asdict(outcomes[each.number]) if each.number in outcomes else None,
        }
        for each in proposals_of(search)
    ]
    told = {
        "search": {**asdict(search), "key": search.key},
        "trials": trials,
        "steps": dict(zip(("trained", "without_pruning"), steps_of(search) or (), strict=False)),
        "finding": asdict(finding) if finding else None,
    }
    print(json.dumps(told, indent=2, sort_keys=True), flush=True)
    return 0


def _save_preset(search_name: str, preset: str) -> int:
    """A file for `atelier run --config`."""
    from tasks.search.records import best_settings

    checked_name("preset", preset)
    if preset in PRESETS:
        raise BadInput(f"{preset} is a preset of the program; choose another name")
    search, given = best_settings(search_name)
    path = home() / "presets" / f"{preset}.toml"
    if path.exists():
        raise BadInput(f"{path} is there already; choose another name")
    lines = [f"# Of the search {search.name}, over the preset {search.preset}."]
    # TOML has no null; a setting that may be nothing takes the word
    lines += [
        f"{name} = {json.dumps('none' if value is None else value)}"
        for name, value in given.items()
    ]
    write_text(path, "\n".join(lines) + "\n")
    print(f"written: {path}\nuse it: atelier run --preset {search.preset} --config {path}")
    return 0
