"""`atelier settings`, and the options by which a command takes settings."""

import argparse
import textwrap
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.cli.options import Arguments, Commands
from atelier.cli.tables import table_lines
from models.presets import ImageShape, Preset
from tasks.data.own_files import writable
from tasks.data.sources import Kind, choices
from tasks.families.family import Family
from tasks.families.table import FAMILIES, names
from tasks.settings.catalogue import Resolved, resolved
from tasks.settings.values import Given, checked, from_words, settled
from tasks.store.files import BadInput

if TYPE_CHECKING:
    from tasks.data.known_shapes import KnownShape

PRESETS = ("quick", "standard", "full")
IMAGE_SIZE = "crop and resize your own images to N x N pixels, 8 to 64"
"""What the help says of that option."""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    settings = commands.add_parser(
        "settings", help="list what can be set of each family, with its defaults and limits"
    )
    settings.add_argument(
        "families", nargs="*", metavar="FAMILY", help=f"of {', '.join(names())}; default: all"
    )
    add_preset(settings)
    add_data(settings)
    add_given(settings)
    settings.add_argument(
        "--toml",
        action="store_true",
        help="print a commented file for `atelier run --config FILE`; what is not uncommented stays"
        " as the preset has it",
    )
    settings.set_defaults(command=_settings)


def add_data(parser: argparse.ArgumentParser) -> None:
    """The options that say which data: defaults depend on their shape."""
    defaults: dict[Kind, str] = {"images": "digits", "text": "pydocs"}
    for kind, default in defaults.items():
        parser.add_argument(
            f"--{kind}",
            default=default,
            metavar="SOURCE",
            help=f"{choices(kind)} (default: {default})",
        )
    parser.add_argument("--image-size", type=int, metavar="N", help=IMAGE_SIZE)
    add_tokenizer(parser)


def add_preset(parser: Arguments) -> None:
    """The option that says how much work is done."""
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="standard",
        help="how much work: a rehearsal, the default, or what a GPU or patience wants (default:"
        " standard)",
    )


def add_tokenizer(parser: Arguments) -> None:
    """The option that says what a text is cut into."""
    parser.add_argument(
        "--tokenizer",
        choices=("characters", "bpe"),
        default="characters",
        help="what a text is cut into: characters, or byte-level BPE (default: characters)",
    )


def add_given(parser: Arguments) -> None:
    """The options by which a person sets something."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="NAME=VALUE",
        help="one setting, such as vae.model.latent_size=16; may be repeated; see `atelier"
        " settings`",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings from a TOML file; `--set` goes before it, and it before the preset",
    )


def given_settings(
    options: argparse.Namespace, families: Collection[str], preset: Preset = "standard"
) -> Given:
    """What options set, checked as far as that goes before the data are read.

    Raises BadInput, before anything is started.
    """
    given = checked_settings(options, families)
    check_together(options, families, preset, given)
    return given


def checked_settings(options: argparse.Namespace, families: Collection[str]) -> Given:
    """What options set, each for itself; raises BadInput."""
    given = checked(read_toml(options.config), None) if options.config else {}
    given = {name: value for name, value in given.items() if name.partition(".")[0] in families}
    return given | checked(from_words(options.assignments), families)


def check_together(
    options: argparse.Namespace, families: Collection[str], preset: Preset, given: Given
) -> dict[str, dict[str, Any]]:
    """The configurations of each family, as far as the data's shape is known.

    Raises BadInput for settings that contradict each other, or what is known of the data.
    """
    known = [FAMILIES[name] for name in families]
    return {
        each.name: settled(each, preset, _shape(each, options).shape, 0, given) for each in known
    }


def read_toml(path: Path) -> dict[str, Any]:
    """What a file of `--config` says; raises BadInput for one that is not there, or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a BOM
    except OSError as error:
        raise BadInput(f"--config {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path} is not TOML: {error}") from error
    except RecursionError as error:
        raise BadInput(f"{path} has tables or lists in each other too deep to be read") from error


def _shape(family: Family, options: argparse.Namespace) -> "KnownShape":
    from tasks.data.known_shapes import known_shape  # and with it Prefect: seconds

    if family.data == "images":
        return known_shape(writable(options.images), "images", options.image_size)
    return known_shape(writable(options.text), "text", scheme=options.tokenizer)


def _settings(options: argparse.Namespace) -> int:
    chosen = options.families or list(names())
    if unknown := [name for name in chosen if name not in FAMILIES]:
        raise BadInput(f"unknown family {unknown[0]!r}; choose from {', '.join(names())}")
    from tasks.data.sources import find_source

    families = [FAMILIES[name] for name in FAMILIES if name in chosen]
    if any(family.data == "images" for family in families):
        find_source(writable(options.images), "images", options.image_size)
    if any(family.data == "text" for family in families):
        find_source(writable(options.text), "text")
    given = given_settings(options, [family.name for family in families], options.preset)
    for number, family in enumerate(families):
        shape = _shape(family, options)
        rows = resolved(family, options.preset, shape.shape, given)
        data = options.images if family.data == "images" else options.text
        head = f"{family.title}, preset {options.preset}, for {data}: {_told(shape)}"
        if number:
            print()
        if options.toml:
            print(_as_toml(head, family, rows))
        else:
            _print(head, rows)
    return 0


def _told(known: "KnownShape") -> str:
    shape = known.shape
    if isinstance(shape, ImageShape):
        classes = f", {shape.num_classes} classes" if shape.num_classes else ", no classes"
        words = f"{shape.width}x{shape.height}x{shape.channels}{classes}"
    elif known.source == "assumed":
        return "the text was not read yet, so nothing depends on its length here"
    else:
        words = f"{shape.vocabulary_size:,} {shape.scheme}, {shape.num_tokens:,} training tokens"
    assumed = " (assumed: the images were not read yet)"
    return words + (assumed if known.source == "assumed" else "")


def _print(head: str, rows: Mapping[str, Resolved]) -> None:
    print(head)
    shown = [row for row in rows.values() if not row.setting.is_fixed]
    table = table_lines(
        [
            (f"  {row.setting.name}", _toml(row.chosen.value), row.origin, row.setting.wanted)
            for row in shown
        ]
    )
    for line, row in zip(table, shown, strict=True):
        print(line)
        print(
            textwrap.fill(row.setting.text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
        )


def _as_toml(head: str, family: Family, rows: Mapping[str, Resolved]) -> str:
    """A file that sets nothing until a line is uncommented, but for what is set already."""
    lines, group = [f"# {head}"], ""
    for name, row in rows.items():
        setting, (_, of, field) = row.setting, name.split(".")
        if setting.is_fixed:
            continue
        if of != group:
            group = of
            lines += ["", f"[{family.name}.{of}]"]
        mark = "" if row.chosen.origin == "set" else "# "
        value = _toml(row.chosen.value)
        lines += [f"# {setting.text}", f"# {setting.wanted}; {row.origin}"]
        lines += [f"{mark}{field} = {value}" if value != "none" else f"# {field} is none"]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    """A value as TOML writes it, and `--set` reads it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
