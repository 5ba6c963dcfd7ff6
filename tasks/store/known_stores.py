"""Which shared store this home has used under an address, so that it takes no other one for it.

A folder that is not mounted is an empty one, and another bucket may have the same name. So a store
has a mark with an id of its own (`tasks.store.shared`), and a home keeps the id that it found, in
a file for each address: `stores/<digest of the address>.json`.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.store.files import digest_of, home, write_json
from tasks.store.records import DamagedRecord, read_record

TOLD = "shared.json"
"""What this home told a store of itself last; see `tasks.store.announcements`."""
_DIGITS_OF_AN_ADDRESS = 12


@dataclass(frozen=True, slots=True)
class _Known:
    address: str
    id: str


def known_id(address: str) -> str | None:
    """The id of the store that this home has used under an address; None where it used none."""
    try:
        return read_record(place_of(address), _Known).id
    except (FileNotFoundError, DamagedRecord):
        return None


def remember(address: str, store_id: str) -> None:
    """Keep the id of the store that has been used now; one that cannot be kept is found anew."""
    with suppress(OSError):
        write_json(place_of(address), _Known(address, store_id))


def has_told(address: str) -> bool:
    """Whether this home has used a store of that address before stores had marks.

    One that knows marks has used it if it has its id; a person may have removed that.
    """
    if place_of(address).parent.is_dir():
        return False
    try:
        told = read_record(home() / TOLD, dict[str, Any])
    except (FileNotFoundError, DamagedRecord):
        return False
    return told.get("address") == address


def place_of(address: str) -> Path:
    """The file of this home that has the id."""
    return home() / "stores" / f"{digest_of(address)[:_DIGITS_OF_AN_ADDRESS]}.json"
