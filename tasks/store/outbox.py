"""What a home has finished and the shared store lacks: it was away, or was set later.

There is no list that could be lost: what waits are the finished artifacts without a mark of the
store. They go with the next step that reaches it, and with housekeeping.
"""

import logging
import time
from pathlib import Path

from tasks.runtime.messages import one_line
from tasks.store import announcements
from tasks.store.artifacts import KINDS, OF_ONE_HOME, folders, verify
from tasks.store.exchange import (
    forget_making,
    is_away,
    is_first_answer,
    is_sent,
    mark_sent,
    note_away,
    note_here,
    send,
)
from tasks.store.shared import SharedStore, StoreAway
from tasks.store.storage import MANIFEST

SECONDS_BESIDE_A_STEP = 60.0
"""How long a step goes on sending what earlier ones left; the rest goes with the next one."""

_logger = logging.getLogger("atelier")


def after_an_answer(store: SharedStore) -> None:
    """Once for each time that a store begins to answer: send what waits, say what is needed."""
    if not is_first_answer(store):
        return
    send_unsent(store, SECONDS_BESIDE_A_STEP)
    try:
        if announcements.is_due(store):
            announcements.announce(store)
    except StoreAway as error:
        note_away(store, error)


def unsent(store: SharedStore) -> list[Path]:
    """The folders of this home's finished artifacts that the store lacks."""
    shared_kinds = (kind for kind in KINDS if kind not in OF_ONE_HOME)
    every = (folder for kind in shared_kinds for folder in folders(kind))
    return [each for each in every if (each / MANIFEST).is_file() and not is_sent(each, store)]


def send_unsent(store: SharedStore, seconds: float = float("inf")) -> int:
    """Send what waits, for about so long; returns how many artifacts went.

    While the store is away, nothing goes. What is damaged or being removed is left out: who wants
    it next makes it again.
    """
    began, sent = time.monotonic(), 0
    for folder in [] if is_away(store) else unsent(store):
        try:
            found = verify(folder)
            if is_sent(folder, store):  # by another process, just now
                continue
            send(store, folder, found.files, found.digest)
            forget_making(store, folder)  # before the mark, or what a kill leaves stays
            mark_sent(store, folder)
            note_here(store)
            sent += 1
        except StoreAway as error:
            note_away(store, error)
            break
        except (OSError, ValueError) as error:
            _logger.debug("%s is not sent: %s", folder, one_line(error))
        if time.monotonic() - began >= seconds:
            break
    if sent:
        _logger.info("sent %d earlier results to the shared store", sent)
    return sent
