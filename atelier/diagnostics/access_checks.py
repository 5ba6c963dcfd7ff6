"""What can be wrong with who may reach the home and its servers, one check each."""

from collections.abc import Iterable
from pathlib import Path

from atelier.services.credentials import access_digest, secret, secret_path
from atelier.services.finding import Finding
from atelier.services.private_home import is_shared_place, not_ours, open_to_others
from atelier.services.server_records import GUARD, Server


def private_home(home: Path) -> Finding:
    """Nobody else on the machine can read the home."""
    name = "home's privacy"
    if not home.is_dir():
        return Finding(name=name, state="ok", what="no home yet")
    if not_ours(home) or is_shared_place(home):
        return Finding(
            name=name,
            state="attention",
            what=f"{home} is a place of others, too: they may read what is written there",
            to_do="set ATELIER_HOME to a folder of your own, such as one below it",
        )
    found = open_to_others(home)
    if found:
        return Finding(
            name=name,
            state="attention",
            what=f"others may read {found[0]}" + (f" and {len(found) - 1} more" * (len(found) > 1)),
            to_do="the next `atelier up` or `run` takes that away; if it cannot: "
            f"chmod -R go= {home}",
        )
    return Finding(name=name, state="ok", what="its owner alone may read it")


def secret_file() -> Finding:
    """The secret of both servers, if there is one, is a secret. Raises BadInput if not."""
    name = "secret"
    if secret(creates=False) is None:
        what = "none: every account of this machine may ask the servers; ATELIER_AUTH=1 makes one"
        return Finding(name=name, state="ok", what=what)
    return Finding(name=name, state="ok", what=f"{secret_path()}, which its owner alone may read")


def guarded_servers(running: Iterable[Server]) -> Finding:
    """Every server of ours runs behind the guard of this version, and asks for the secret."""
    found = list(running)
    open_ones = [each.name for each in found if each.guard != GUARD]
    if open_ones:
        return Finding(
            name="guard",
            state="failed",
            what=f"{' and '.join(open_ones)}: started by an older version, so that any page in a"
            " browser on this machine may use it",
            to_do="`atelier up` starts it again, behind the guard",
        )
    unasked = [each.name for each in found if access_digest(each.name) not in ("", each.access)]
    if unasked:
        return Finding(
            name="guard",
            state="attention",
            what=f"{' and '.join(unasked)}: started before the present secret, and do not ask for"
            " it",
            to_do="`atelier up` starts them again; runs that are going on fail then",
        )
    return Finding(name="guard", state="ok", what="pages of others get nothing from the servers")
