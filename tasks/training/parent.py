"""The version that a training continues, as records name it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """The version whose weights a training began with."""

    name: str
    version: int
    digest: str
    """Of its content: what a fit's key has of it."""
    beside: str = ""
    """sha256 of the networks that were kept beside that content; empty where there were none."""

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"

    @property
    def address(self) -> str:
        """As commands take it."""
        return f"{self.name}/{self.version}"
