"""`atelier compare`: what differs between two versions of a model."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from atelier.cli.options import Commands, alias, find_registry, model, nothing_there
from atelier.cli.tables import print_table
from tasks.runtime.markup import plain
from tasks.store.files import BadInput

if TYPE_CHECKING:
    from tasks.registry.version_comparison import Change, Side, VersionComparison


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    compare = commands.add_parser(
        "compare",
        help="what differs between two versions of a model",
        description="Settings, data, code and libraries by the records of both versions, their"
        " metrics, and the difference of the main metric with its paired 95 % interval, where both"
        " were evaluated on the same held-out items; the luck of training seeds is not in it."
        " Nothing is loaded or measured.",
    )
    compare.add_argument("model", type=model, metavar="MODEL", help="a registered model")
    compare.add_argument(
        "versions",
        nargs="*",
        type=alias,
        metavar="N|ALIAS",
        help="two numbers or aliases, or latest; one is compared with the champion; by default the"
        " champion and the challenger, or the latest",
    )
    compare.add_argument("--json", action="store_true", help="all of it as JSON")
    compare.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> int:
    if len(options.versions) > 2:
        raise BadInput(f"two versions are compared, got {len(options.versions)}")
    if not find_registry():
        raise BadInput(nothing_there())
    from tasks.registry.version_comparison import compare_versions

    found = compare_versions(options.model, *options.versions)
    if options.json:
        print(json.dumps(_finite(asdict(found)), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(found)
    return 0


def _finite(value: Any) -> Any:
    """A value as JSON has it, which knows no NaN and no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return list(map(_finite, value)) if isinstance(value, list | tuple) else value


def _print(found: "VersionComparison") -> None:
    from tasks.registry.version_comparison import SECTIONS

    heads = [_head(found.first), _head(found.second)]
    rows: list[Sequence[str]] = [(found.name, *heads, "")]
    same = []
    for section in SECTIONS:
        changes = [each for each in found.changes if each.section == section]
        if changes:
            rows.append((section, "", "", ""))
            rows += [(f"  {each.what}", *_sides(each), "") for each in changes]
        else:
            same.append(section)
    rows.append(("metrics, of held-out data", "", "", "difference"))
    for metric in found.metrics:
        values = metric.first, metric.second
        gap = "" if None in values else f"{values[1] - values[0]:+.4g}"  # type: ignore[operator]
        rows.append((f"  {metric.title}", *map(_number, values), gap))
    print_table(rows)
    if found.is_same_content:
        print("both are the same weights and settings")
    if found.unknown:
        print(plain(f"what made them cannot be compared: {found.unknown}"))
    elif same:
        print(f"the same in both: {', '.join(same)}")
    print(plain(_verdict(found)))


def _head(side: "Side") -> str:
    called = f" ({', '.join(side.aliases)})" if side.aliases else ""
    return f"version {side.version}{called}"


def _sides(change: "Change") -> tuple[str, str]:
    absent = "takes no part" if change.section == "code" else "has none"
    return change.first or absent, change.second or absent


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _verdict(found: "VersionComparison") -> str:
    """What the held-out items say of the two, or why they say nothing."""
    pair = found.paired
    if pair is None:
        return f"no paired interval: {found.unpaired}"
    kind = "resamples of the held-out images" if pair.are_resamples else "held-out items"
    told = (
        f"{pair.title}: {pair.difference:+.4f} ({pair.low:+.4f} to {pair.high:+.4f}, 95 %, paired"
        f" over {pair.num_scores:,} {kind}): "
    )
    first, second = found.first.version, found.second.version
    if pair.high < 0:
        return f"{told}version {second} is better on items like these"
    if pair.low > 0:
        return f"{told}version {first} is better on items like these"
    return f"{told}these items cannot tell them apart"
