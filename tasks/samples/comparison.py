"""The visual difference: two versions of a model, from the same seeds, side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from tasks import plots
from tasks.registry.loading import loaded
from tasks.registry.version_tags import text_tag, whole
from tasks.registry.versions import get_version
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED
from tasks.samples.drawing import writes_text
from tasks.store.artifacts import get_or_create
from tasks.store.files import write_bytes, write_json
from tasks.store.fingerprint import cache_key_inputs
from tasks.store.names import checked_name
from tasks.tracking.mlflow_client import log_file, outages_named, set_version_tag

SEED, NUM_IMAGES, COLUMNS = 0, 30, 6
TEMPERATURE, NUM_TOKENS = 0.8, 300


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenBy:
    """What one version wrote."""

    version: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TextComparison:
    """What two versions wrote after the same prompt: the content of comparison.json."""

    prompt: str
    temperature: float
    texts: tuple[WrittenBy, ...]


@task(name="show-difference", task_run_name="compare {name} {before} and {after}", **NETWORKED)
def show_difference(name: str, before: int, after: int) -> str:
    """Let two versions make the same things, and keep both with the run that judged the later one.

    Returns the folder of what they made; it holds comparison.png, or comparison.json with texts.
    """
    checked_name("model", name)
    with outages_named():
        found = [get_version(name, number) for number in (before, after)]
    versions = [version for version in found if version is not None]
    if len(versions) < len(found):
        raise LookupError(
            f"{name}: version {before} or {after} is gone; run the same command again"
        )
    digests = [version.tags.get("content_digest") or str(version.run_id) for version in versions]
    made = get_or_create(
        "comparisons",
        name,
        cache_key_inputs({"versions": [before, after]}, digests, [__name__], "cpu"),
        lambda folder: _compare(folder, name, before, after),
        inputs=digests,
    )
    with outages_named():
        run_id = text_tag(versions[1], "scorecard_run_id")
        for file_name in made.files:
            log_file(run_id, made.folder / file_name, "comparison")
        set_version_tag(name, after, "comparison", f"{run_id} {before}")
    log(f"{name}: versions {before} and {after} side by side in its run's comparison/ folder")
    return str(made.folder)


def _compare(folder: Path, name: str, before: int, after: int) -> dict[str, int]:
    """Let both make the same, and keep it as comparison.png, or comparison.json with texts."""
    made = []
    prompt = ""
    for number in (before, after):
        with loaded(name, str(number)) as model:
            prompt = prompt or getattr(model, "prompt", "")
            made.append(_made(model, prompt))
    left, right = made
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        write_bytes(folder / "comparison.png", plots.side_by_side(left, right, COLUMNS))
    else:
        pairs = zip((before, after), made, strict=True)
        texts = tuple(WrittenBy(version=version, text=str(text)) for version, text in pairs)
        record = TextComparison(prompt=prompt, temperature=TEMPERATURE, texts=texts)
        write_json(folder / "comparison.json", record)
    return {"before": before, "after": after}


def _made(model: Any, prompt: str) -> np.ndarray | str:
    if not writes_text(model):
        drawn: np.ndarray = model.draw_images(NUM_IMAGES, SEED)
        return drawn
    (text,) = model.write_texts(1, SEED, TEMPERATURE, prompt=prompt, num_tokens=NUM_TOKENS)
    return str(text)


def comparison_of(tags: dict[str, str]) -> tuple[str, int] | None:
    """The run that keeps a version's comparison, and the version that it is compared with."""
    run_id, _, before = tags.get("comparison", "").partition(" ")
    number = whole(before)
    return (run_id, number) if run_id and number is not None else None
