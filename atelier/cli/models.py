"""`atelier models` and `show`: what is registered, without waiting for a library or a server."""

import argparse
import json
import sys
from shutil import get_terminal_size
from typing import Any

from atelier.cli.card_text import readable_card
from atelier.cli.options import NOTHING_YET, Commands, check_registry, model_and_version
from atelier.cli.tables import print_table
from tasks.registry.listing import ListedModel, ListedVersion, listed_model, listed_models
from tasks.runtime.markup import plain
from tasks.store.files import BadInput

MAX_COLUMNS = 100


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    models = commands.add_parser(
        "models", help="what is registered: champions, how good they are, and since when"
    )
    models.add_argument("--json", action="store_true", help="the same as JSON")
    models.set_defaults(command=_models)
    show = commands.add_parser(
        "show", help="the card of a version: what it is, how good, from what"
    )
    show.add_argument(
        "model", type=model_and_version, metavar="MODEL[@ALIAS|/N]", help="by default its champion"
    )
    show.add_argument(
        "--json",
        action="store_true",
        help="its metrics and tags, and the card in Markdown, as JSON",
    )
    show.set_defaults(command=_show)


def _models(options: argparse.Namespace) -> int:
    check_registry()
    found = list(listed_models().values())
    if options.json:
        print(json.dumps([_told(model) for model in found], indent=2, ensure_ascii=False))
        return 0
    if not found:
        raise BadInput(NOTHING_YET)
    rows = [("model", "champion", "main metric (lower is better)", "value", "since", "versions")]
    print_table(rows + [_row(model) for model in found])
    return 0


def _row(model: ListedModel) -> tuple[str, ...]:
    count, champion = str(len(model.versions)), model.champion
    if champion is None:
        return model.name, "none", "", "", "", count
    value = champion.main_value
    shown = "" if value is None else f"{value:.4f}"
    since = _moment(model.champion_since())
    return model.name, str(champion.number), _metric(champion), shown, since, count


def _metric(version: ListedVersion) -> str:
    from tasks.evaluation.result import title

    return title(version.tags.get("main_metric", ""))


def _moment(since: str) -> str:
    return f"{since.replace('T', ' ').partition('+')[0]} UTC" if since else ""


def _told(model: ListedModel) -> dict[str, Any]:
    champion = model.champion
    return {
        "model": model.name,
        "family": model.family,
        "champion": champion.number if champion else None,
        "main_metric": champion.tags.get("main_metric") if champion else None,
        "main_value": champion.main_value if champion else None,
        "champion_since": model.champion_since() or None,
        "aliases": model.aliases,
        "versions": list(model.versions),
    }


def _show(options: argparse.Namespace) -> int:
    check_registry()
    name, which = options.model
    model = listed_model(name)
    version = model.version(which)
    aliases = sorted(alias for alias, number in model.aliases.items() if number == version.number)
    is_champion = version is model.champion
    since = model.champion_since() if is_champion else ""
    if options.json:
        told = {
            "model": name,
            "version": version.number,
            "aliases": aliases,
            "champion_since": since or None,
            "main_metric": version.tags.get("main_metric"),
            "main_value": version.main_value,
            "metrics": version.metrics,
            "tags": version.tags,
            "card": version.description,
        }
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    called = f", {' and '.join(aliases)}" if aliases else ""
    called += f" since {_moment(since)}" if since else ""
    print(plain(f"{name} version {version.number}{called}") + "\n")
    columns = min(MAX_COLUMNS, get_terminal_size((MAX_COLUMNS, 24)).columns)
    card = readable_card(version.description, columns, has_styles=sys.stdout.isatty())
    print(card or "it has no card")
    return 0
