"""`atelier export`: a registered version as a folder that runs without this project."""

import argparse
from pathlib import Path

from atelier.cli.options import Commands, check_registry, find_registry, model_and_version
from tasks.registry.listing import listed_model
from tasks.store.output_folder import check_free


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    export = commands.add_parser(
        "export",
        help="write a version to a folder that runs without this project",
        description="Weights, configuration, class names or tokenizer, the model's own modules, and"
        " a load.py that needs PyTorch alone, or NumPy for a model of counts, and gives the same"
        " samples. The version's files are verified before, and nothing of it is executed.",
    )
    export.add_argument(
        "model", type=model_and_version, metavar="MODEL[@ALIAS|/N]", help="by default its champion"
    )
    export.add_argument(
        "folder", type=Path, metavar="FOLDER", help="one that is empty or not there yet"
    )
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    check_registry()
    check_free(options.folder)
    name, which = options.model
    version = listed_model(name).version(which)
    find_registry()
    from tasks.registry.exporting import export_version

    files = export_version(name, str(version.number), options.folder)
    print(f"{name} version {version.number} in {options.folder}: {', '.join(files)}")
    print(f"try it: python {options.folder / 'load.py'} --help")
    return 0
