"""How a person names data: `digits`, `folder:PATH`, `file:PATH`, or `pets=folder:PATH`.

Models are called after their data, and two folders may bear one name: so whoever gives data of
their own may put a name of the data set's before it.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tasks.data.own_files import path_of, readable
from tasks.store.files import BadInput
from tasks.store.names import MAX_DERIVED_CHARACTERS, checked_name

_ADDRESS = re.compile(r"(?:([^:]*)=)?(folder|file):(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """What a person wrote, taken apart."""

    scheme: str
    """"folder", "file", or nothing for a data set that the program knows."""
    location: str
    """A path as it was written, or the known data set's name."""
    given_name: str = ""
    """What the person calls the data set; nothing where its folder or file names it."""

    @property
    def path(self) -> Path:
        """Where a person's own data lie; raises OSError or RuntimeError where that is nowhere."""
        return path_of(self.location).resolve()

    @property
    def place(self) -> str:
        """The source without its given name, the same from every working directory."""
        if not self.scheme:
            return self.location
        path = str(self.path)
        try:
            path.encode()
        except UnicodeEncodeError:  # no form, file or database takes it as it is
            path = readable(path)
        return f"{self.scheme}:{path}"

    def __str__(self) -> str:
        return f"{self.given_name}={self.place}" if self.given_name else self.place


def source_address(source: str, known: Collection[str] = ()) -> SourceAddress:
    """Take a source apart; BadInput for a name that cannot be a data set's.

    known: names of data sets that the program knows, which nobody else's may have.
    """
    if "\0" in source:
        raise BadInput(f"{source!r} holds a NUL character, which no path does")
    matched = _ADDRESS.fullmatch(source)
    if matched is None:
        return SourceAddress("", source)
    name, scheme, location = matched.groups()
    if name is None:
        return SourceAddress(scheme, location)
    if name in known:
        raise BadInput(
            f"{name!r} is the name of a data set that comes with the program; choose another one"
            f" for {scheme}:{location}"
        )
    if len(checked_name("data set", name)) > MAX_DERIVED_CHARACTERS:
        raise BadInput(
            f"{name!r} is longer than {MAX_DERIVED_CHARACTERS} characters; give a shorter name"
        )
    return SourceAddress(scheme, location, name)
