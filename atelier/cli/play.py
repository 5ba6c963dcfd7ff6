"""`atelier play`: pages on which people play with registered versions, in a browser."""

import argparse
import os
from importlib.util import find_spec

from atelier.cli.options import Commands, check_registry, port, registry_environment
from atelier.services import local_servers, playgrounds
from tasks.runtime.play_address import PLAY_PORT
from tasks.store.files import BadInput, home


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    play = commands.add_parser(
        "play",
        help="play with registered versions in a browser: tokens and their rivals, latent spaces",
        description="Serves two pages on this machine alone until it is stopped: text that is"
        " coloured by surprise, and can be led on from any token; pictures, and the space behind"
        " them. Each version is verified, and held in a process of its own.",
    )
    play.add_argument(
        "--port", type=port, metavar="PORT", help=f"default: {PLAY_PORT}, or a free one"
    )
    play.set_defaults(command=_play)


def _play(options: argparse.Namespace) -> int:
    if find_spec("nicegui") is None:
        raise BadInput(
            "the playground needs NiceGUI, which is not installed here: install Atelier with its"
            " extra `play`, `pip install 'atelier[play]'`"
        )
    check_registry()
    is_named = bool(os.environ.get("MLFLOW_TRACKING_URI"))
    # Where its own files would go; it keeps none as long as no page asks for storage.
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(home() / "cache" / "nicegui"))
    with local_servers.listening_socket(options.port, PLAY_PORT, "--port") as listener:
        from atelier.playground.server import serve

        try:
            with playgrounds.noted(int(listener.getsockname()[1])) as playground:
                print(f"playground  {playground.url}\nCtrl-C stops it", flush=True)
                if to_log_in := playgrounds.how_to_log_in():
                    print(f"log in      {to_log_in}", flush=True)
                # Our own server may come and go meanwhile: each process looks for it anew.
                serve(listener, dict if is_named else registry_environment)
        except KeyboardInterrupt:  # Ctrl-C is how it ends, and nothing was left unfinished
            print("stopped")
    return 0
