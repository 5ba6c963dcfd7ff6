"""What the gallery shows beside a model's works: held-out data, and how the model was made."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from tasks import plots
from tasks.data.ingestion import ImageSet
from tasks.data.splits import load_images, load_text
from tasks.families.family import Data
from tasks.registry.rehearsal import data_in_store
from tasks.runtime.progress import log
from tasks.samples.drawing import COLUMNS, NUM_SAMPLES, Keep, writes_text
from tasks.samples.html_page import HELD_OUT_PICTURES, HELD_OUT_TEXT
from tasks.training.provenance import TrainingProvenance

TEXT_CHARACTERS = 700


def keep_held_out(name: str, recipe: TrainingProvenance, model: Any, keep: Keep) -> None:
    """Held-out data of the kind that a version learned from, where this home still has them.

    model: its SampleModel, whose own few examples take the place of pictures that are gone.
    """
    kind: Data = "text" if writes_text(model) else "images"
    data = data_in_store(name, recipe, kind, is_a_look=True)
    if isinstance(data, ImageSet):
        pixels, labels = load_images(data, "test")
        chosen = in_turn(labels)[:NUM_SAMPLES]
        _keep_pictures(np.asarray(pixels)[chosen], keep)
    elif data is not None:
        text = load_text(data.corpus, "validation")
        start = max(0, text.find(model.prompt))
        told = {"prompt": model.prompt, "text": text[start : start + TEXT_CHARACTERS]}
        keep(HELD_OUT_TEXT, json.dumps(told, ensure_ascii=False).encode())
    elif kind == "images":
        _keep_pictures(model.examples.numpy(), keep)
    else:
        log(f"{name}: its text is not stored in this home, so none stands beside what it wrote")


def _keep_pictures(pixels: np.ndarray, keep: Keep) -> None:
    whole_rows = pixels[: len(pixels) // COLUMNS * COLUMNS]
    if len(whole_rows):
        keep(HELD_OUT_PICTURES, plots.grid(whole_rows, COLUMNS))


def in_turn(labels: np.ndarray) -> np.ndarray:
    """An order of items (N,) in which their classes take turns, as in what models draw.

    labels: (N,) int64; those without classes stay in their order.
    """
    order = np.argsort(labels, kind="stable")
    sorted_labels = labels[order]
    firsts = np.searchsorted(sorted_labels, sorted_labels)
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - firsts
    found: np.ndarray = np.lexsort((labels, rank))
    return found


def making_of(recipe: TrainingProvenance) -> dict[str, str]:
    """How a version was made, for people: words by what they tell, and a command where one will do.

    A person's own data are not named: a gallery is sent to friends.
    """
    training = recipe.settings.get("training", {})
    steps = training.get("steps") if isinstance(training, Mapping) else None
    facts = {
        "preset": recipe.preset,
        "seed": str(recipe.seed),
        "steps": f"{steps:,}" if isinstance(steps, int) else "",
        "set by hand": ", ".join(f"{name} = {value}" for name, value in recipe.given.items()),
        "tokenizer": f"{recipe.scheme}, {recipe.vocabulary_size:,} tokens" if recipe.scheme else "",
        "began with": f"{recipe.continues.name} {recipe.continues.version}"
        if recipe.continues
        else "",
        "data": f"{recipe.data_size} (train / validation / test)",
        "machine": f"{recipe.device}, {recipe.machine}",
        "command": _command(recipe),
    }
    return {name: told for name, told in facts.items() if told}


def _command(recipe: TrainingProvenance) -> str:
    """What trains the same again; nothing for a person's own data, or for one that goes on."""
    if ":" in recipe.source or recipe.continues:
        return ""
    words = ["atelier", "run", "--families", recipe.family]
    words += ["--text" if recipe.scheme else "--images", recipe.source]
    if recipe.image_size is not None:
        words += ["--image-size", str(recipe.image_size)]
    if recipe.scheme not in ("", "characters"):
        words += ["--tokenizer", recipe.scheme]
    words += ["--preset", recipe.preset, "--seed", str(recipe.seed)]
    for name, value in recipe.given.items():
        words += ["--set", f"{recipe.family}.{name}={value}"]
    return shlex.join(words)
