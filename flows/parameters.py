"""The parameters that several flows share, with the limits that Prefect's forms show and check."""

from typing import Annotated

from pydantic import Field

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""The same seed gives the same weights on the same machine."""

ImageSource = Annotated[
    str,
    Field(
        pattern=r"^(digits|mnist|fashion-mnist|cifar10|folder:.+)$",
        examples=["digits", "mnist", "fashion-mnist", "cifar10", "folder:/path/to/pictures"],
    ),
]

TextSource = Annotated[
    str,
    Field(
        pattern=r"^(pydocs|tinyshakespeare|file:.+|folder:.+)$",
        examples=["pydocs", "tinyshakespeare", "file:/path/to/text.txt", "folder:/path/to/texts"],
    ),
]

ApprovalSeconds = Annotated[int, Field(ge=1, le=7 * 86_400)]
"""How long a run waits for a person."""

ImageSide = Annotated[int, Field(ge=8, le=64)]
"""Pixels."""
