"""`atelier open`: the pages of this home, in a browser."""

import argparse
import webbrowser

from atelier.cli.options import Commands
from atelier.services import credentials, local_servers, playgrounds
from tasks.store.files import BadInput, home

PAGES = ("gallery", "play", "prefect", "mlflow")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    pages = commands.add_parser(
        "open", help="open the gallery, the playground or a server's pages in a browser"
    )
    pages.add_argument("page", choices=PAGES, metavar="|".join(PAGES), help="which one")
    pages.set_defaults(command=_open)


def _open(options: argparse.Namespace) -> int:
    to_log_in = None
    if options.page == "gallery":
        address = _gallery()
    elif options.page == "play":
        address, to_log_in = _playground(), playgrounds.how_to_log_in()
    else:
        address, to_log_in = _server(options.page), credentials.how_to_log_in()
    print(address, flush=True)
    if to_log_in:
        print(f"log in  {to_log_in}", flush=True)
    if not webbrowser.open(address):
        print("no browser could be started here; open that address yourself")
    return 0


def _gallery() -> str:
    page = home() / "gallery" / "index.html"
    if not page.is_file():
        raise BadInput(f"there is no gallery at {page}: `atelier run` or `atelier sample` makes it")
    return page.as_uri()


def _playground() -> str:
    """The address of the playground that was started last."""
    if found := playgrounds.running():
        return found[0].url
    raise BadInput("no playground of this home is running; `atelier play` starts one")


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
