"""What a check of an installation found."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "attention", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check found."""

    name: str
    state: State
    what: str
    to_do: str = ""
    """What a person can do about it; empty when all is well."""
