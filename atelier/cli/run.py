"""`atelier run` and `atelier sample`: the work itself, from this terminal."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atelier.cli.options import (
    MAX_SEED,
    Commands,
    FlowCall,
    add_ports,
    add_quiet,
    check_registry,
    find_registry,
    flow_result,
    in_a_process_of_its_own,
    model,
    note_given,
    nothing_there,
    seed,
    start_servers,
    version_of_model,
    whole_number,
)
from atelier.cli.settings import (
    IMAGE_SIZE,
    add_given,
    add_preset,
    add_tokenizer,
    check_together,
    checked_settings,
)
from atelier.cli.tables import print_table
from atelier.services import server_records
from atelier.services.credentials import how_to_log_in
from models.presets import Preset
from tasks.data.own_files import writable
from tasks.data.sources import choices, find_source
from tasks.families.table import names, of_data, options_of_families
from tasks.settings.processes import with_shards
from tasks.settings.values import Given, check_time, with_options
from tasks.store.files import BadInput, check_space, home

AS_THE_FLOW_SAYS = 0
SPACE_FOR_A_RUN_BYTES = 300_000_000  # databases of both servers, data, models, the gallery


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    _add_run(commands.add_parser("run", help="train, judge, register and sample the models"))
    sample = commands.add_parser("sample", help="let champions draw anew for the gallery")
    sample.add_argument(
        "names",
        nargs="*",
        type=model,
        metavar="MODEL",
        help="who draws with the seed, while the others stay on the page as they are; default: all",
    )
    sample.add_argument("--seed", type=seed, default=0, help=f"0 to {MAX_SEED} (default: 0)")
    add_ports(sample)
    add_quiet(sample)
    drawing = FlowCall(
        entrypoint="flows.sample_gallery.sample_gallery",
        parameters=lambda options: {"names": options.names or None, "seed": options.seed},
        tags=("samples",),
        queue="light",
    )
    sample.set_defaults(command=_sample, flow=drawing)


def _add_run(run: argparse.ArgumentParser) -> None:
    note_given(run)
    data, training = run.add_argument_group("data"), run.add_argument_group("training")
    gate, output = run.add_argument_group("promotion"), run.add_argument_group("servers, output")
    data.add_argument(
        "--images",
        default="digits",
        metavar="SOURCE",
        help=f"{choices('images')} (default: digits)",
    )
    data.add_argument(
        "--text",
        default="pydocs",
        metavar="SOURCE",
        help=f"{choices('text')} (default: pydocs)",
    )
    training.add_argument(
        "--families",
        "--models",  # its name of before
        dest="families",
        type=_families,
        default=names(),
        metavar="LIST",
        help=f"which families to train, any of {','.join(names())} (default: all); --models is"
        " another name for it",
    )
    add_preset(training)
    add_given(training)
    training.add_argument(
        "--from-search",
        metavar="NAME",
        help="train what a search found best: its family, data, preset and settings",
    )
    training.add_argument(
        "--continue-from",
        type=version_of_model,
        metavar="MODEL@ALIAS|MODEL/N",
        help="begin with the weights of a registered version, such as MODEL@champion, instead of"
        " random ones; for one family, and data of the same shape",
    )
    training.add_argument(
        "--seconds",
        type=_training_seconds,
        metavar="N",
        help="train each model for about so long instead of the preset's steps; the number of steps"
        " is measured once on this machine",
    )
    training.add_argument(
        "--processes",
        type=_processes,
        metavar="N",
        help="share the batches of each training among N processes of this machine, in 4 shards"
        " unless FAMILY.training.shards says another number; 1, 2 and 4 processes give the same"
        " weights, other than without shards",
    )
    training.add_argument("--seed", type=seed, default=0, help=f"0 to {MAX_SEED} (default: 0)")
    data.add_argument(
        "--image-size",
        type=int,
        metavar="N",
        help=IMAGE_SIZE,
    )
    add_tokenizer(data)
    data.add_argument(
        "--glob",
        metavar="PATTERN",
        help="which files of your own folder of text are read, such as '*.py' (default: all that"
        " hold text)",
    )
    data.add_argument(
        "--rehash",
        action="store_true",
        help="read your own files again even if their names, sizes and times are unchanged",
    )
    for name, option in options_of_families().items():
        flag = "--" + name.replace("_", "-")
        training.add_argument(
            flag, choices=option.choices, default=option.choices[0], help=option.text
        )
    gate.add_argument(
        "--approve",
        type=_seconds,
        nargs="?",
        const=AS_THE_FLOW_SAYS,
        metavar="SECONDS",
        help="wait for your consent, in the Prefect UI, before a version becomes champion; without"
        " it within so many seconds, by default an hour, the present champion stays",
    )
    add_ports(output)
    add_quiet(output)
    output.add_argument("--json", action="store_true", help="the result as JSON, and nothing else")
    flow = FlowCall(
        entrypoint="flows.full_run.full_run",
        parameters=_parameters,
        tags=("train",),
        queue="training",
    )
    run.set_defaults(command=_run, flow=flow)


def _seconds(text: str) -> int:
    return whole_number("a time to wait", text, 1, 7 * 86_400)


def _training_seconds(text: str) -> int:
    return whole_number("a time to train", text, 1, 7 * 86_400)


def _processes(text: str) -> int:
    return whole_number("a number of processes", text, 1, 64)


def _families(text: str) -> tuple[str, ...]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in names()]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown family {unknown[0]!r}; choose from {','.join(names())}"
        )
    return tuple(name for name in names() if name in chosen)


def _of_search(options: argparse.Namespace) -> dict[str, Any]:
    """Take family, data and preset of a search; returns the settings of its best trial."""
    from tasks.search.records import best_settings

    search, given = best_settings(options.from_search)
    taken = {**search.source, "families": (search.family,), "preset": search.preset}
    for name, value in taken.items():
        said = getattr(options, name)
        said = writable(said) if name in ("images", "text") else said
        if name in options.given and said != value:
            flag, found = f"--{name.replace('_', '-')}", value[0] if name == "families" else value
            told = f"has no {flag}" if found is None else f"is of {flag} {found}"
            raise BadInput(
                f"the search {search.name} {told}; leave {flag} out, or take its settings alone:"
                f" `atelier search --show {search.name} --save-preset NAME` writes them for"
                " `atelier run --config`"
            )
        setattr(options, name, value)
    return given


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    """What the flow is called with; raises BadInput for data that are not there."""
    found = _of_search(options) if options.from_search is not None else {}
    images, text = writable(options.images), writable(options.text)
    if of_data("images", options.families):
        find_source(images, "images", options.image_size)
    if of_data("text", options.families):
        find_source(text, "text", glob=options.glob)
    given = {**found, **checked_settings(options, options.families)}
    check_time(given, options.families, options.seconds)
    short = {name: getattr(options, name) for name in options_of_families()}
    together = with_options(given, short)
    taken = _taken_over(options, together) if options.continue_from else {}
    given = with_shards(given, options.families, options.processes)
    check_together(options, options.families, options.preset, {**taken, **given})
    return {
        "images": images,
        "text": text,
        "models": options.families,
        "preset": options.preset,
        "seed": options.seed,
        "image_size": options.image_size,
        "tokenizer": options.tokenizer,
        **({"settings": given} if given else {}),
        **({"seconds": options.seconds} if options.seconds else {}),
        **({"processes": options.processes} if options.processes else {}),
        **({"continue_from": options.continue_from} if options.continue_from else {}),
        **short,
        "glob": options.glob,
        "rehash": options.rehash,
        "approve": options.approve is not None,
        **({"approval_seconds": options.approve} if options.approve else {}),
    }


def _taken_over(options: argparse.Namespace, given: Given) -> Given:
    """The settings of the version that is to be continued; raises BadInput where it cannot be."""
    check_registry()
    source = {
        **{"images": writable(options.images), "image_size": options.image_size},
        **{"text": writable(options.text), "scheme": options.tokenizer},
    }
    return in_a_process_of_its_own(
        settings_of_parent, options.continue_from, options.families, given, options.preset, source
    )


def settings_of_parent(
    address: str, families: Sequence[str], given: Given, preset: Preset, source: Mapping[str, Any]
) -> Given:
    """What the flow would find and refuse, asked before anything is started."""
    find_registry()
    from tasks.registry.parents import find_parent

    return find_parent.fn(address, families, given, preset=preset, source=source).taken


def _run(options: argparse.Namespace) -> int:
    parameters = _parameters(options)
    check_space(home(), SPACE_FOR_A_RUN_BYTES)
    urls = start_servers(options)
    from flows.full_run import full_run

    summary = flow_result(full_run, **parameters)
    if summary is None:
        return 1
    if options.json:
        _print_json(summary, urls)
    else:
        _print_versions(summary.versions)
        print_addresses(urls, summary.gallery)
    return 0


def _sample(options: argparse.Namespace) -> int:
    urls = start_servers(options)
    from flows.sample_gallery import sample_gallery
    from tasks.registry.versions import champions, project_models
    from tasks.samples.cache import shown_works
    from tasks.samples.plan import check_names

    known = champions()
    check_names(options.names, known)
    if not known and not shown_works():
        if not project_models():
            raise BadInput(nothing_there())
        raise BadInput("no model has a champion yet: train some with `atelier run`")
    gallery = flow_result(sample_gallery, names=options.names or None, seed=options.seed)
    if gallery is None:
        return 1
    print_addresses(urls, gallery)
    return 0


def _print_json(summary: Any, urls: dict[str, str]) -> None:
    made = json.dumps({**asdict(summary), "servers": urls})
    strict = json.loads(made, parse_constant=lambda _: None)  # JSON knows no NaN and no infinity
    print(json.dumps(strict, indent=2, sort_keys=True, allow_nan=False), flush=True)


def _print_versions(versions: Sequence[Any]) -> None:
    from tasks.evaluation.result import reference_words, title

    rows = [("model", "version", "alias", "main metric", "", "seconds")]
    for version in versions:
        metric = title(version.main_metric)
        state = version.alias if version.is_new else f"{version.alias}, unchanged"
        value = f"{version.main_value:.4f}"
        value += f" ({reference_words(version.references)})" if version.references else ""
        rows.append(
            (version.name, str(version.version), state, metric, value, f"{version.seconds:.0f}")
        )
    print()
    print_table(rows)


def print_addresses(urls: dict[str, str], gallery: str) -> None:
    """Where to look now."""
    print(f"\ngallery     {Path(gallery).as_uri()}")
    print(f"Prefect UI  {urls['prefect']}")
    print(f"MLflow UI   {urls['mlflow']}/#/models?workflowType=machine_learning", flush=True)
    to_log_in = how_to_log_in()
    if to_log_in and {server.url for server in server_records.recorded().values()} & {
        *urls.values()
    }:
        print(f"log in      {to_log_in}", flush=True)
