"""`atelier up`, `status` and `down`: the servers of this home."""

import argparse

from flows import local_stack
from flows.commands.options import Commands, add_ports
from flows.commands.work import print_addresses
from tasks.storage import home


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    up = commands.add_parser("up", help="start the Prefect and MLflow servers")
    add_ports(up)
    up.set_defaults(command=_up)
    commands.add_parser("status", help="which servers are up").set_defaults(command=_status)
    commands.add_parser("down", help="stop the servers").set_defaults(command=_down)


def _up(options: argparse.Namespace) -> int:
    urls = local_stack.ensure_servers(
        options.prefect_port,
        options.mlflow_port,
        say=lambda line: print(f"{line} ...", flush=True),
    )
    print_addresses(urls, str(home() / "gallery" / "index.html"))
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
