"""`atelier open`: the pages of this home, in a browser."""

import argparse
import webbrowser

from atelier.cli.options import Commands
from atelier.services import local_servers
from atelier.services.credentials import how_to_log_in
from tasks.store.files import BadInput, home

PAGES = ("gallery", "prefect", "mlflow")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    pages = commands.add_parser("open", help="open the gallery, or a server's pages, in a browser")
    pages.add_argument("page", choices=PAGES, metavar="|".join(PAGES), help="which one")
    pages.set_defaults(command=_open)


def _open(options: argparse.Namespace) -> int:
    address = _gallery() if options.page == "gallery" else _server(options.page)
    print(address, flush=True)
    if options.page != "gallery" and (to_log_in := how_to_log_in()):
        print(f"log in  {to_log_in}", flush=True)
    if not webbrowser.open(address):
        print("no browser could be started here; open that address yourself")
    return 0


def _gallery() -> str:
    page = home() / "gallery" / "index.html"
    if not page.is_file():
        raise BadInput(f"there is no gallery at {page}: `atelier run` or `atelier sample` makes it")
    return page.as_uri()


def _server(name: str) -> str:
    """The address of a server that answers; raises BadInput, which says how to start it."""
    to_start = "`atelier up` starts it"
    if address := local_servers.named_address(name):
        return _page(name, address)
    for server, is_healthy in local_servers.servers():
        if server.name == name and is_healthy:
            return _page(name, server.url)
        if server.name == name:
            raise BadInput(f"the {name} server at {server.url} does not answer; {to_start} again")
    raise BadInput(f"the {name} server of this home is not running; {to_start}")


def _page(name: str, address: str) -> str:
    """The page of a server that people want first."""
    return f"{address}/#/models?workflowType=machine_learning" if name == "mlflow" else address
