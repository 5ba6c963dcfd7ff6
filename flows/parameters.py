"""The parameters that several flows share, with the limits that Prefect's forms show and check."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from prefect.runtime import flow_run
from pydantic import AfterValidator, Field

from tasks.data.ingestion import short_name
from tasks.data.sources import form_pattern, known_sources
from tasks.families.family import Option
from tasks.settings.values import checked
from tasks.store.names import checked_name, version_address

Result = TypeVar("Result")

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""The same seed gives the same weights on the same machine."""

ImageSource = Annotated[
    str,
    Field(
        pattern=form_pattern("images"),
        examples=[
            *known_sources("images"),
            *["folder:/path/to/pictures", "pets=folder:/path/to/pictures"],
        ],
    ),
]

TextSource = Annotated[
    str,
    Field(
        pattern=form_pattern("text"),
        examples=[
            *known_sources("text"),
            *["file:/path/to/text.txt", "folder:/path/to/texts", "poems=file:/path/to/text.txt"],
        ],
    ),
]

ApprovalSeconds = Annotated[int, Field(ge=1, le=7 * 86_400)]
"""How long a run waits for a person."""

ImageSide = Annotated[int, Field(ge=8, le=64)]
"""Pixels."""

TrainingSeconds = Annotated[int, Field(ge=1, le=7 * 86_400)]
"""How long a model is trained, about."""

Processes = Annotated[int, Field(ge=1, le=64)]
"""That share the batches of one training."""

Settings = Annotated[
    dict[str, Any],
    AfterValidator(checked),
    Field(examples=[{"vae.model.latent_size": 16, "gpt.training.steps": 2000}]),
]
"""What takes the place of a preset's values, by full names or nested."""

Glob = Annotated[str, Field(min_length=1, max_length=200, examples=["*.py", "src/**/*.md"])]
"""Which files of a folder of text are read."""


ModelName = Annotated[str, AfterValidator(partial(checked_name, "model"))]
"""A registered model's name."""

Alias = Annotated[str, AfterValidator(partial(checked_name, "alias"))]
"""An alias of a model, or a version's number."""


def _checked_address(address: str) -> str:
    version_address(address)
    return address


VersionAddress = Annotated[
    str,
    AfterValidator(_checked_address),
    Field(
        pattern=r"^[^@/\s]+([@/][^@/\s]+)?$",
        examples=["MODEL@champion", "MODEL/3"],
    ),
]
"""A registered version: MODEL@ALIAS or MODEL/N; MODEL alone is its champion."""


def takes_options(
    options: Mapping[str, Option],
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Let a function of keywords take the options of families, too, and say so in its docstring.

    Prefect makes a form of a function's signature, and the help of its fields of the Args that end
    its docstring.
    """

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        shared = inspect.signature(function)
        named = inspect.Parameter.VAR_KEYWORD
        kept = [each for each in shared.parameters.values() if each.kind != named]
        own = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=option.choices[0],
                annotation=Literal[option.choices],
            )
            for name, option in options.items()
        ]
        taking: Any = function
        taking.__signature__ = shared.replace(parameters=[*kept, *own])
        told = "".join(f"\n        {name}: {option.text}" for name, option in options.items())
        taking.__doc__ = (function.__doc__ or "").rstrip() + told
        return function

    return decorate


def run_name(template: str) -> Callable[[], str]:
    """Names flow runs by their parameters; a data set of one's own by its name, not its path."""

    def name() -> str:
        given = flow_run.parameters
        sources = {key: data_name(given[key]) for key in ("images", "text") if key in given}
        return template.format(**{**given, **sources})

    return name


def data_name(source: str) -> str:
    """What a data set is called; a source that cannot be read is told as it was given."""
    try:
        return short_name(source)
    except (OSError, RuntimeError, ValueError):  # told of when the data are read, not here
        return source
