"""From registered champions to sample artifacts: pictures, texts, and one page that shows them.

The same versions and the same seed give the same files. The page is self-contained: it needs no
server and can be sent to a friend.
"""

from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from PIL import Image
from prefect import task
from prefect.artifacts import create_markdown_artifact

from tasks import plots
from tasks.evaluation.result import reference_words, title
from tasks.families.table import FAMILIES, purpose_of
from tasks.registry.loading import loaded
from tasks.registry.version_tags import number_tag, record_tag, references_tag, text_tag
from tasks.registry.versions import CHAMPION, champion_of, get_version
from tasks.runtime.play_address import play_url
from tasks.runtime.progress import log, show
from tasks.runtime.retries import NETWORKED
from tasks.runtime.templates import prefect_page
from tasks.samples.cache import keep_gallery, works_record
from tasks.samples.challengers import with_samples
from tasks.samples.comparison import TextComparison, comparison_of
from tasks.samples.drawing import Keep, draw, writes_text
from tasks.samples.held_out import keep_held_out, making_of
from tasks.samples.html_page import MOMENTS, Challenger, ChampionSamples, data_uri, page
from tasks.store.files import inside, scratch_folder, write_bytes, write_json, write_text
from tasks.store.records import DamagedRecord, read_record
from tasks.tracking.mlflow_client import (
    artifact_url,
    fetch_artifacts,
    is_served,
    log_file,
    run_exists,
    run_url,
    version_url,
)
from tasks.training.provenance import TrainingProvenance

STRIP_GAP = 8  # pixels between two moments of training


@task(name="draw-samples", task_run_name="draw {name}", **NETWORKED)
def draw_samples(
    name: str, folder: str, seed: int = 0, number: int | None = None
) -> ChampionSamples:
    """Let the champion of a model draw or write: samples, and what its family shows besides.

    number: the version that is meant, where the champion may have changed since it was looked up.
    """
    into = inside(Path(folder), name)
    captions: list[tuple[str, str]] = []

    def keep(file_name: str, content: bytes, caption: str = "") -> None:
        write_bytes(into / file_name, content)
        if caption:
            captions.append((file_name, caption))

    champion = _champion(name, number)
    family = FAMILIES.get(text_tag(champion, "family"))
    # Before it is loaded: an old version's own `models` then stands in the place of ours.
    extras = [resolve_name(extra) for extra in family.gallery_extras] if family else []
    recipe = _recipe(champion)
    with loaded(name, str(champion.version)) as model:
        draw(model, seed, keep, extras)
        if recipe is not None:
            keep_held_out(name, recipe, model, keep)
        if writes_text(model):
            return _work(champion, into, seed, recipe, texts=captions)
    _keep_growth(champion.run_id, (family and family.growth) or "as training went on", keep)
    return _work(champion, into, seed, recipe, pictures=captions)


def _champion(name: str, number: int | None) -> Any:
    champion = champion_of(name) if number is None else get_version(name, number)
    if champion is None:
        raise LookupError(f"{name} has no {CHAMPION}; train one with `atelier run` first")
    return champion


def _recipe(champion: Any) -> TrainingProvenance | None:
    """The record of how a version was made, where it has one."""
    try:
        found: TrainingProvenance = record_tag(champion, "recipe", TrainingProvenance)
    except DamagedRecord as error:
        log(str(error))
        return None
    return found


def _work(
    champion: Any,
    folder: Path,
    seed: int,
    recipe: TrainingProvenance | None,
    *,
    pictures: Sequence[tuple[str, str]] = (),
    texts: Sequence[tuple[str, str]] = (),
) -> ChampionSamples:
    return ChampionSamples(
        name=champion.name,
        family=text_tag(champion, "family"),
        version=champion.version,
        run_id=champion.run_id,
        scorecard_run_id=text_tag(champion, "scorecard_run_id"),
        main_metric=text_tag(champion, "main_metric"),
        main_value=number_tag(champion, "main_value"),
        references=references_tag(champion),
        folder=str(folder),
        pictures=tuple(pictures),
        texts=tuple(texts),
        differences=_difference(champion, folder),
        seed=seed,
        made=making_of(recipe) if recipe else {},
    )


def _difference(champion: Any, into: Path) -> tuple[tuple[str, str], ...]:
    """What was made side by side when this version was promoted; nothing for a first one."""
    found = comparison_of(champion.tags)
    if found is None or not run_exists(found[0]):
        return ()
    run_id, before = found
    seeds = "from the same seed"
    with scratch_folder() as scratch:
        try:
            stored = fetch_artifacts(run_id, "comparison", scratch)
        except FileNotFoundError:
            return ()
        if (picture := stored / "comparison.png").exists():
            write_bytes(into / "comparison.png", picture.read_bytes())
            return (
                ("comparison.png", f"version {before}, and version {champion.version}: {seeds}"),
            )
        try:
            record = read_record(stored / "comparison.json", TextComparison)
        except (FileNotFoundError, DamagedRecord) as error:
            log(f"{champion.name}: its comparison is left out: {error}")
            return ()
    captions = []
    for made in record.texts:
        file_name = f"comparison-{made.version}.txt"
        write_text(into / file_name, record.prompt + made.text + "\n")
        caption = f"version {made.version}, temperature {record.temperature}, {seeds}"
        captions.append((file_name, caption))
    return tuple(captions)


def _keep_growth(run_id: str, caption: str, keep: Keep) -> None:
    """What a model drew at moments of its training: one strip per moment, and all on one sheet.

    Nothing where the run stored none, or is gone.
    """
    if not run_id or not run_exists(run_id):
        return
    with scratch_folder() as scratch:
        try:
            stored = fetch_artifacts(run_id, "progress", scratch)
        except FileNotFoundError:
            return
        strips = {
            path.name: strip
            for path in sorted(stored.glob("step-*.png"))
            if (strip := _strip(path)) is not None
        }
        if not strips:
            return
        for name in strips:
            keep(f"{MOMENTS}/{name}", (stored / name).read_bytes())
    keep("training.png", _sheet(list(strips.values())), f"{caption}, top to bottom")


def _sheet(strips: Sequence[Image.Image]) -> bytes:
    width, height = strips[0].size
    size = width, len(strips) * (height + STRIP_GAP) - STRIP_GAP
    sheet = Image.new(strips[0].mode, size, "white")
    for index, strip in enumerate(strips):
        sheet.paste(strip, (0, index * (height + STRIP_GAP)))
    channels = len(sheet.getbands())
    return plots.png(np.asarray(sheet).reshape(sheet.height, sheet.width, channels))


def _strip(path: Path) -> Image.Image | None:
    """A picture of one moment, or None where it is damaged."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.copy()
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises for damaged files
        log(f"{path.name} is damaged and is left out: {error}")
        return None


@task(
    name="publish-gallery",
    task_run_name="publish gallery",
    **NETWORKED,
)
def publish_gallery(
    works: list[ChampionSamples],
    folder: str,
    run_id: str,
    challengers: Sequence[Challenger] = (),
) -> str:
    """Write the page, store all files with the run, show them in the Prefect UI.

    challengers: those that the page tells of. Returns the path of the latest gallery's page.
    """
    into = Path(folder)
    write_text(into / "index.html", page(works, with_samples(challengers, folder)))
    write_json(into / "works.json", works_record(works))
    log_file(run_id, into, "gallery")
    show(
        "gallery",
        lambda: create_markdown_artifact(
            markdown=_markdown(works, challengers, run_id),
            key="gallery",
            description="Samples of the champions",
        ),
    )
    refused = f", and {len(challengers)} refused" if challengers else ""
    champions = "1 champion" if len(works) == 1 else f"{len(works)} champions"
    log(f"gallery of {champions}{refused} written")
    return keep_gallery(folder, is_complete=not any(work.remark for work in works))


def _markdown(works: list[ChampionSamples], challengers: Sequence[Challenger], run_id: str) -> str:
    """The gallery for the Prefect UI; pictures come from MLflow, or travel inside the text."""
    return prefect_page(
        "samples/gallery.md",
        works=[_shown(work, run_id) for work in works],
        challengers=challengers,
        all_files=run_url(run_id) if is_served() else "",
    )


def _shown(work: ChampionSamples, run_id: str) -> dict[str, Any]:
    """What the template shows of one work."""

    def address(file_name: str) -> str:
        if is_served():
            return artifact_url(run_id, f"gallery/{work.name}/{file_name}")
        return data_uri(Path(work.folder) / file_name)

    return {
        "name": work.name,
        "version": work.version,
        "play": play_url(work.name, work.version),
        "page": version_url(work.name, work.version) if is_served() else "",
        "family": purpose_of(work.family),
        "metric": title(work.main_metric),
        "value": work.main_value,
        "references": reference_words(work.references),
        "remark": work.remark,
        "pictures": [
            {"caption": caption, "address": address(file_name)}
            for file_name, caption in (*work.pictures, *work.differences)
            if file_name.endswith(".png")
        ],
        "texts": [
            {"caption": caption, "text": (Path(work.folder) / name).read_text(encoding="utf-8")}
            for name, caption in work.texts
        ],
    }
