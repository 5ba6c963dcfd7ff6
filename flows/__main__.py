"""The `atelier` command line, thin: arguments in, one flow run, one table out.

Exit codes: 0 done; 1 a step failed; 2 what was asked for cannot be done as given; 130 stopped.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows import local_stack
from tasks.sources import find_source
from tasks.storage import BadInput, ChecksumMismatch, DiskFull, check_space, home

FAMILIES = ("vae", "gan", "ngram", "gpt")
LARGEST_SEED = 2**31 - 1
SPACE_FOR_A_RUN_BYTES = 300_000_000  # databases of both servers, data, four models, the gallery


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries warn of is for the tests, not for users
    try:
        local_stack.apply_settings()
        return int(options.command(options))
    except (BadInput, ChecksumMismatch, local_stack.StackError) as error:
        return _complain(str(error), 2)
    except DiskFull as error:
        return _complain(f"{error.filename}: {error.strerror}", 2)
    except OSError as error:
        where = f"{error.strerror or error}: {error.filename or home()}"
        return _complain(f"{where}; set ATELIER_HOME to a folder that you may write to", 2)
    except KeyboardInterrupt:
        return _complain("stopped; run the same command again to go on", 130)


def _complain(message: str, code: int) -> int:
    print(f"atelier: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atelier", description="A workshop for small generative models."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="train, judge, register and sample the models"))
    sample = commands.add_parser("sample", help="draw a new gallery from the champions")
    sample.add_argument("names", nargs="*", metavar="MODEL", help="default: all champions")
    sample.add_argument("--seed", type=_seed, default=0)
    sample.set_defaults(command=_sample)
    up = commands.add_parser("up", help="start the Prefect and MLflow servers")
    up.set_defaults(command=_up)
    for each in (sample, up):
        _add_ports(each)
    commands.add_parser("status", help="which servers are up").set_defaults(command=_status)
    commands.add_parser("down", help="stop the servers").set_defaults(command=_down)
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "--images",
        default="digits",
        metavar="SOURCE",
        help="digits, mnist, fashion-mnist, cifar10 or folder:PATH (default: digits)",
    )
    run.add_argument(
        "--text",
        default="pydocs",
        metavar="SOURCE",
        help="pydocs, tinyshakespeare, file:PATH or folder:PATH (default: pydocs)",
    )
    run.add_argument(
        "--models",
        type=_families,
        default=FAMILIES,
        metavar="LIST",
        help="any of vae,gan,ngram,gpt (default: all)",
    )
    run.add_argument("--preset", choices=("quick", "standard", "full"), default="standard")
    run.add_argument("--seed", type=_seed, default=0, help="0 to 2147483647 (default: 0)")
    run.add_argument(
        "--image-size",
        type=int,
        metavar="N",
        help="crop and resize your own images to N x N pixels, 8 to 64",
    )
    run.add_argument("--tokenizer", choices=("characters", "bpe"), default="characters")
    losses = ("relativistic", "hinge", "wasserstein")
    run.add_argument("--gan-loss", choices=losses, default="relativistic")
    _add_ports(run)
    run.set_defaults(command=_run)


def _add_ports(parser: argparse.ArgumentParser) -> None:
    for name, preferred in (("prefect", 4200), ("mlflow", 5000)):
        parser.add_argument(
            f"--{name}-port",
            type=_port,
            metavar="PORT",
            help=f"default: {preferred}, or a free one",
        )


def _families(text: str) -> tuple[str, ...]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in FAMILIES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown model {unknown[0]!r}; choose from {','.join(FAMILIES)}"
        )
    return tuple(name for name in FAMILIES if name in chosen)


def _seed(text: str) -> int:
    return _whole_number("a seed", text, 0, LARGEST_SEED)


def _port(text: str) -> int:
    return _whole_number("a port", text, 1, 65_535)


def _whole_number(what: str, text: str, low: int, high: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(
            f"{what} is a whole number from {low} to {high}, got {text!r}"
        )
    return number


def _run(options: argparse.Namespace) -> int:
    wants_images = bool({"vae", "gan"} & set(options.models))
    wants_text = bool({"ngram", "gpt"} & set(options.models))
    if wants_images:
        find_source(options.images, "images", options.image_size)
    if wants_text:
        find_source(options.text, "text")
    check_space(home(), SPACE_FOR_A_RUN_BYTES)
    urls = _servers(options)
    from flows.full_run import full_run

    summary = _flow_result(
        full_run,
        images=options.images,
        text=options.text,
        models=options.models,
        preset=options.preset,
        seed=options.seed,
        image_size=options.image_size,
        tokenizer=options.tokenizer,
        gan_loss=options.gan_loss,
    )
    if summary is None:
        return 1
    _print_versions(summary.versions)
    _print_addresses(urls, summary.gallery)
    return 0


def _sample(options: argparse.Namespace) -> int:
    urls = _servers(options)
    from flows.sample_gallery import sample_gallery
    from tasks.registration import champions

    known_names = champions()
    unknown = sorted(set(options.names) - set(known_names))
    if unknown or not known_names:
        known = ", ".join(known_names) or "none yet: train some with `atelier run`"
        raise BadInput(f"no champion named {', '.join(unknown) or 'anything'}; there are: {known}")
    gallery = _flow_result(sample_gallery, names=options.names or None, seed=options.seed)
    if gallery is None:
        return 1
    _print_addresses(urls, gallery)
    return 0


def _flow_result(flow: Any, **parameters: Any) -> Any:
    """What a flow returns, or None after one line on how it failed."""
    try:
        return flow(**parameters)
    except (BadInput, ChecksumMismatch, DiskFull):
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = os.environ["PREFECT_API_URL"].removesuffix("/api")
        _complain(f"{type(error).__name__}: {reason}\nthe whole story: {where}/runs", 1)
        return None


def _servers(options: argparse.Namespace) -> dict[str, str]:
    def import_meanwhile() -> None:
        import flows.full_run  # noqa: F401

    return local_stack.ensure_servers(
        options.prefect_port,
        options.mlflow_port,
        say=lambda line: print(f"{line} ...", flush=True),
        meanwhile=import_meanwhile,
    )


def _print_versions(versions: Sequence[Any]) -> None:
    from tasks.scorecard import title

    rows = [("model", "version", "alias", "main metric", "", "seconds")]
    for version in versions:
        metric = title(version.main_metric)
        state = version.alias if version.is_new else f"{version.alias}, unchanged"
        value = f"{version.main_value:.4f}"
        rows.append(
            (version.name, str(version.version), state, metric, value, f"{version.seconds:.0f}")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _print_addresses(urls: dict[str, str], gallery: str) -> None:
    print(f"\ngallery     {Path(gallery).as_uri()}")
    print(f"Prefect UI  {urls['prefect']}")
    print(f"MLflow UI   {urls['mlflow']}/#/models?workflowType=machine_learning", flush=True)


def _up(options: argparse.Namespace) -> int:
    urls = local_stack.ensure_servers(
        options.prefect_port,
        options.mlflow_port,
        say=lambda line: print(f"{line} ...", flush=True),
    )
    _print_addresses(urls, str(home() / "gallery" / "index.html"))
    return 0


def _status(options: argparse.Namespace) -> int:
    found = local_stack.servers()
    for server, is_healthy in found:
        state = "healthy" if is_healthy else "not answering"
        print(f"{server.name:8} {server.url}  {state}, process {server.pid}")
    if not found:
        print("no servers are up; `atelier up` starts them")
    return 0


def _down(options: argparse.Namespace) -> int:
    stopped = local_stack.stop_servers()
    print(f"stopped: {', '.join(server.name for server in stopped) or 'nothing was up'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
