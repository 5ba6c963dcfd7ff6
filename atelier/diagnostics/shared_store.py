"""What can be wrong with the store that several homes share."""

import shlex
import time
import uuid
from pathlib import Path

from atelier.services.finding import Finding
from tasks.store.files import BadInput
from tasks.store.storage import STORE_VARIABLE, has_shared_store

NAME = "shared store"


def shared_store() -> Finding:
    """It can be reached, gives each name once, and has what this home made; nothing stays in it.

    Of a folder this account may use all entries: those of other accounts, too.

    No clock is looked at: none is compared with another.
    """
    if not has_shared_store():
        return Finding(name=NAME, state="ok", what=f"none: {STORE_VARIABLE} is not set")
    from tasks.store.outbox import unsent
    from tasks.store.shared import MAX_LOOKED_AT, StoreAway, shared

    try:
        store = shared()
    except BadInput as error:
        return Finding(name=NAME, state="failed", what=str(error), to_do="correct it, or unset it")
    assert store is not None, "an address is set"
    waiting = len(unsent(store))
    try:
        name, began = f"doctor/{uuid.uuid4().hex}", time.monotonic()
        answers = [store.create(name, each, marks=False) for each in (b"first", b"second")]
        is_first = store.read(name) == b"first"
        seconds = time.monotonic() - began
        store.remove(name)
        is_new = store.is_new()
    except StoreAway as error:
        return Finding(
            name=NAME,
            state="attention",
            what=str(error),
            to_do="see to the address, the keys and the network; until it answers runs work on"
            f" alone, and {waiting} results wait here to be sent",
        )
    if answers != [True, False] or not is_first:
        return Finding(
            name=NAME,
            state="failed",
            what=f"{store.address} gives one name twice: two machines would overwrite each other's"
            " records",
            to_do="use a store with conditional writes (If-None-Match), or a shared folder",
        )
    denied, is_all = store.denied()
    if denied and store.folder is not None:
        return _denied(denied, store.folder)
    rest = f"; {waiting} results go there with the next step" if waiting else ""
    rest += "; no home has written there yet: is it the right one, and mounted?" if is_new else ""
    rest += "" if is_all else f"; the rights of its first {MAX_LOOKED_AT:,} entries were looked at"
    what = f"{store.address} gives each name once, in {seconds * 250:.0f} ms a request{rest}"
    return Finding(name=NAME, state="ok", what=what)


def _denied(paths: list[Path], folder: Path) -> Finding:
    """paths: what this account has no right to use in a folder."""
    first, more = paths[0], f" and {len(paths) - 1} more" * (len(paths) > 1)
    what = "enter and write into the folder" if first.is_dir() else "read"
    return Finding(
        name=NAME,
        state="attention",
        what=f"{folder}: this account may not {what} {first}{more}, which others made: it works"
        " without what lies there",
        to_do="let the owners, or root, give them to a group of all accounts that share it: setfacl"
        f" -R -m g:GROUP:rwX,d:g:GROUP:rwX {shlex.quote(str(folder))} (on NFS 4: nfs4_setfacl)",
    )
