"""`atelier generate`: pictures and texts of a registered version, in files or on the terminal."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from atelier.cli.options import (
    MAX_SEED,
    Commands,
    check_registry,
    find_registry,
    model_and_version,
    seed,
    whole_number,
    write_out,
)
from tasks.families.family import Data
from tasks.families.table import FAMILIES
from tasks.registry.listing import ListedVersion, listed_model
from tasks.runtime.markup import plain_lines
from tasks.store.files import BadInput
from tasks.store.output_folder import check_free

OPTIONS: dict[Data, tuple[str, ...]] = {
    "images": ("number", "label", "out", "grid"),
    "text": ("prompt", "tokens", "top_k", "top_p", "stop"),
}
"""What only models of images, or of text, are asked; seed and temperature are for both."""
VERBS: dict[Data, str] = {"images": "draws images", "text": "writes text"}


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    generate = commands.add_parser(
        "generate",
        help="draw new pictures, or write new text, with a registered version",
        description="Image models draw into a folder or onto one sheet; text models write to"
        " standard output while they write. The same seed gives the same on the same machine. The"
        " version's files are verified before anything of it is loaded; no server is needed.",
    )
    generate.add_argument(
        "model", type=model_and_version, metavar="MODEL[@ALIAS|/N]", help="by default its champion"
    )
    generate.add_argument("--seed", type=seed, default=0, help=f"0 to {MAX_SEED} (default: 0)")
    generate.add_argument(
        "--temperature",
        type=_temperature,
        default=1.0,
        metavar="T",
        help="below 1 likelier and less varied, above 1 wilder (default: 1)",
    )
    images = generate.add_argument_group("image models")
    images.add_argument("--number", type=_number, metavar="N", help="of pictures (default: 64)")
    images.add_argument(
        "--label",
        metavar="CLASS",
        help="draw this class only, by its name or index; by default each in turn",
    )
    images.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="PNG files and manifest.json, in a folder that is empty or not there yet",
    )
    images.add_argument("--grid", type=_picture, metavar="FILE.png", help="all on one sheet")
    text = generate.add_argument_group("text models")
    text.add_argument("--prompt", metavar="TEXT", help="what the text begins with")
    text.add_argument("--tokens", type=_tokens, metavar="N", help="to write (default: 300)")
    text.add_argument(
        "--top-k", type=_top_k, metavar="K", help="choose among the K likeliest tokens only"
    )
    text.add_argument(
        "--top-p",
        type=_top_p,
        metavar="P",
        help="choose among the fewest tokens that together have this probability",
    )
    text.add_argument("--stop", metavar="TEXT", help="end before this text, where it comes")
    generate.set_defaults(command=_generate)


def _number(text: str) -> int:
    return whole_number("a number of pictures", text, 1, 10**7)


def _tokens(text: str) -> int:
    return whole_number("a number of tokens", text, 1, 10**6)


def _top_k(text: str) -> int:
    return whole_number("top-k", text, 1, 10**9)


def _top_p(text: str) -> float:
    return _between("top-p", text, 0.01, 1.0)


def _temperature(text: str) -> float:
    return _between("a temperature", text, 0.01, 10.0)


def _between(what: str, text: str, low: float, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(
            f"{what} is a number from {low:g} to {high:g}, got {text!r}"
        )
    return number


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise argparse.ArgumentTypeError(f"a sheet is a PNG file, FILE.png, got {text!r}")
    return path


def _generate(options: argparse.Namespace) -> int:
    check_registry()
    name, which = options.model
    listed = listed_model(name)
    version = listed.version(which)
    data = FAMILIES[listed.family].data
    _check_options(name, data, options)
    find_registry()
    from tasks.registry.loading import loaded

    with loaded(name, str(version.number)) as model:
        if data == "text":
            _write(model, options)
        else:
            _draw(model, _facts(name, listed.family, version), options)
    return 0


def _check_options(name: str, data: Data, options: argparse.Namespace) -> None:
    """Raise BadInput for what this kind of model is not asked, before anything is loaded."""
    foreign = [option for kind, known in OPTIONS.items() if kind != data for option in known]
    given = [_flag(option) for option in foreign if getattr(options, option) is not None]
    if given:
        known = ", ".join(map(_flag, (*OPTIONS[data], "seed", "temperature")))
        raise BadInput(f"{name} {VERBS[data]}, got {', '.join(given)}; wanted any of {known}")
    if data != "images":
        return
    if options.out is None and options.grid is None:
        raise BadInput(
            f"{name} draws images, got no place for them; wanted --out FOLDER or --grid FILE.png"
        )
    if options.out is not None:
        check_free(options.out)


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _facts(name: str, family: str, version: ListedVersion) -> dict[str, Any]:
    digest = version.tags.get("content_digest", "")
    return {"model": name, "version": version.number, "family": family, "digest": digest}


def _draw(model: Any, facts: dict[str, Any], options: argparse.Namespace) -> None:
    from tasks.samples.image_files import ImageRequest, write_folder, write_sheet

    request = ImageRequest(
        num_samples=options.number or 64,
        label=options.label or "",
        seed=options.seed,
        temperature=options.temperature,
    )
    called = f"{facts['model']} version {facts['version']}"
    if options.grid is not None:
        write_sheet(model, request, options.grid)
        print(f"{called}: {request.num_samples:,} pictures on {options.grid}")
    if options.out is not None:
        write_folder(model, request, options.out, facts)
        print(f"{called}: {request.num_samples:,} pictures in {options.out}")


def _write(model: Any, options: argparse.Namespace) -> None:
    from tasks.samples.text_stream import TextRequest, written

    request = TextRequest(
        prompt=options.prompt or "",
        num_tokens=options.tokens or 300,
        stop=options.stop or "",
        seed=options.seed,
        temperature=options.temperature,
        top_k=options.top_k or 0,
        top_p=options.top_p or 1.0,
    )
    is_terminal, piece = sys.stdout.isatty(), ""
    for piece in written(model, request):
        write_out(plain_lines(piece) if is_terminal else piece)
    if not piece.endswith("\n"):
        write_out("\n")
