"""One model on demand, as Prefect deployments: each form asks what that family needs.

There is a flow for each family, `retrain_<name>`, whose parameters are those of its data and its
own options: Prefect reads a form from a function's signature, so each gets one of its own.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from prefect import Flow, flow
from pydantic import BaseModel

from flows.continuing import Beginning, beginning
from flows.device_slot import final_state, training_slot
from flows.parameters import (
    Glob,
    ImageSide,
    ImageSource,
    Seed,
    TextSource,
    VersionAddress,
    run_name,
    takes_options,
)
from flows.prepare_data import prepare_corpus, prepare_images
from flows.train import report_version, train_model
from models.presets import Preset
from tasks.data.ingestion import ImageSet
from tasks.data.kinds import Scheme
from tasks.data.sources import choices
from tasks.data.tokenization import TokenSet
from tasks.families.family import Family
from tasks.families.table import FAMILIES
from tasks.maintenance.crash_recovery import label_with_process
from tasks.registry.versions import Version
from tasks.settings.values import checked, flattened, form_of, with_options

HELP = {
    "images": f"{choices('images')}. Sub-folders are classes.",
    "text": f"{choices('text')}.",
    "preset": "how much work: quick, standard or full.",
    "seed": "0 to 2147483647; the same seed gives the same weights on the same machine.",
    "image_size": "side in pixels, 8 to 64, to which your own images are cropped and resized.",
    "tokenizer": "one token per character, or byte-level BPE.",
    "settings": "values that take the place of the preset's; `atelier settings` lists all.",
    "continue_from": "a version whose weights the training begins with, such as"
    " MODEL@champion or MODEL/3; none: random ones.",
    "glob": "which files of your own folder of text are read, such as *.py; none: all text.",
    "rehash": "read your own files again even if their names, sizes and times are unchanged.",
}
"""What the forms say of each parameter; an option of a family has its help in the record."""


def _images(
    _begins: Beginning,
    *,
    images: ImageSource = "digits",
    preset: Preset = "standard",
    seed: Seed = 0,
    image_size: ImageSide | None = None,
    rehash: bool = False,
) -> ImageSet:
    """The parameters of every form of an image model, and the data that they ask for."""
    del preset, seed
    return prepare_images.fn(images, image_size, rehash)


def _text(
    begins: Beginning,
    *,
    text: TextSource = "pydocs",
    preset: Preset = "standard",
    seed: Seed = 0,
    tokenizer: Scheme = "characters",
    glob: Glob | None = None,
    rehash: bool = False,
) -> TokenSet:
    """The same of every form of a token model."""
    del preset, seed
    return prepare_corpus.fn(
        text, tokenizer, glob=glob, rehash=rehash, tokenizer_file=begins.tokenizer_file
    )


def _retrain(family: Family) -> "Flow[..., Version]":
    prepare: Callable[..., ImageSet | TokenSet] = _images if family.data == "images" else _text

    form = form_of(family)

    def retrain(
        settings: BaseModel | None = None, continue_from: str | None = None, **given: Any
    ) -> Version:
        options = {name: given.pop(name) for name in family.options if name in given}
        nested = settings.model_dump(exclude_none=True) if settings else {}
        chosen = checked(with_options(flattened({family.name: nested}), options))
        preset, seed = given["preset"], given["seed"]
        source = {**given, "scheme": given.get("tokenizer")}
        begins = beginning(continue_from, [family.name], chosen, preset, source)
        with training_slot():
            # Not as flows inside this one: its log, its progress and its Cancel would be theirs.
            data = prepare(begins, **given)
            version = train_model.fn(
                family.name,
                data,
                preset=preset,
                seed=seed,
                settings=chosen,
                continues=begins.on(data, preset, seed, chosen),
            )
        report_version(version)
        return final_state(version, [version])

    shared = inspect.signature(prepare)
    optional: dict[str, Any] = {"settings": form | None}
    if family.continued:
        optional["continue_from"] = VersionAddress | None
    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in optional.items()
    ]
    _, *of_data = shared.parameters.values()
    shared = shared.replace(parameters=[*of_data, *own])
    seeded = ", seed {seed}" if family.seed_spreads else ""  # counting knows none
    retrain.__name__ = f"retrain_{family.name}"
    retrain.__signature__ = shared.replace(return_annotation=Version)  # type: ignore[attr-defined]
    retrain.__doc__ = _described(family, shared.parameters)
    return flow(
        name=f"retrain-{family.name}",
        flow_run_name=run_name(f"{{{family.data}}}-{family.name}, {{preset}}{seeded}"),
        on_running=[label_with_process],
    )(takes_options(family.options)(retrain))


def _described(family: Family, names: Iterable[str]) -> str:
    """The docstring, whose Args become the help of the form's fields."""
    lines = [f"        {name}: {HELP[name]}" for name in names]
    return "\n".join(
        [f"Train, judge and register one model. {family.purpose}", "", "    Args:", *lines]
    )


retrain_flows = {f"retrain_{family.name}": _retrain(family) for family in FAMILIES.values()}
globals().update(retrain_flows)  # Prefect finds a flow by `module.name`
