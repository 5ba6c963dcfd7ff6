"""`atelier verify`: whether a version is what was registered, before somebody else loads it."""

import argparse
import re
from pathlib import Path

from atelier.cli.options import Commands, find_registry, nothing_there
from tasks.store.files import BadInput

_ADDRESS = re.compile(r"(?:models:/)?(?P<name>[^@/]+)(?:@(?P<alias>[^@/]+)|/(?P<number>[0-9]+))?")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    verify = commands.add_parser(
        "verify",
        help="compare a version's files with the audit log, and execute nothing of it",
        description="Exit code 0: all files are those that were registered; 2: they are not, or"
        " the audit log does not tell; the line says which file and what to do.",
    )
    verify.add_argument("model", metavar="MODEL[@ALIAS|/N]", help="by default its champion")
    verify.add_argument(
        "--copy-to",
        type=Path,
        metavar="FOLDER",
        help="keep the very files that were compared there, to be loaded from there",
    )
    verify.set_defaults(command=_verify)


def _verify(options: argparse.Namespace) -> int:
    address = _ADDRESS.fullmatch(options.model)
    if address is None:
        raise BadInput(f"{options.model!r} names no version; wanted MODEL, MODEL@ALIAS or MODEL/N")
    if not find_registry():
        raise BadInput(nothing_there())
    from tasks.registry.verification import verified

    which = address["number"] or address["alias"] or "champion"
    found = verified(address["name"], which, options.copy_to)
    print(
        f"{found.name} version {found.version}: all {found.num_files} files are as registered"
        f" {found.since}, sha256 {found.digest}"
    )
    return 0
