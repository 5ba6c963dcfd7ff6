"""From registered champions to sample artifacts: pictures, texts, and one page that shows them.

The same versions and the same seed give the same files. The page is self-contained: it needs no
server and can be sent to a friend.
"""

import html
import tempfile
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from prefect import task
from prefect.artifacts import create_markdown_artifact

from tasks import pictures
from tasks.comparison import comparison_of
from tasks.galleries import keep_gallery
from tasks.measured import title
from tasks.model_card import FAMILIES
from tasks.packaging import loaded
from tasks.registration import CHAMPION, champion_of
from tasks.reporting import in_task_run, log
from tasks.retries import NETWORKED
from tasks.scorecard import beside_the_floor
from tasks.storage import project_root, read_json, write_bytes, write_json, write_text
from tasks.tracking import (
    artifact_url,
    fetch_artifacts,
    is_served,
    log_file,
    metric_history,
    run_metrics,
    run_url,
    version_url,
)

NUM_SAMPLES, COLUMNS = 60, 10
TEMPERATURES = (0.5, 0.8, 1.0)
TEXT_TOKENS = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Receipt of what one champion made."""

    name: str
    family: str
    version: int
    run_id: str
    """The MLflow run that trained it."""
    scorecard_run_id: str
    """The one that judged it."""
    main_metric: str
    main_value: float
    folder: str
    pictures: tuple[tuple[str, str], ...]
    """(file name, caption)."""
    differences: tuple[tuple[str, str], ...]
    """The same of what it and the champion before it made from the same seeds."""
    texts: tuple[tuple[str, str], ...]
    """(file name, caption)."""


@task(
    name="draw-images",
    task_run_name="draw {name}",
    **NETWORKED,
)
def draw_images(name: str, folder: str, seed: int = 0) -> Work:
    """Let the champion of an image model draw: samples, and what its family can show besides."""
    into = Path(folder) / name
    captions: list[tuple[str, str]] = []

    def keep(file_name: str, content: bytes, caption: str) -> None:
        write_bytes(into / file_name, content)
        captions.append((file_name, caption))

    champion = _champion(name)
    with loaded(name) as model:
        drawn = model.draw_images(NUM_SAMPLES, seed)
        keep("samples.png", pictures.grid(drawn, COLUMNS), f"{NUM_SAMPLES} samples, seed {seed}")
        if model.family == "vae":
            real = model.examples.numpy()[:COLUMNS]
            pairs = np.concatenate([real, model.reconstruct(real)])
            keep("reconstructions.png", pictures.grid(pairs, COLUMNS), "held-out, reconstructed")
            ways = [model.interpolate(real[i], real[i + 1], COLUMNS) for i in range(0, 6, 2)]
            keep(
                "interpolation.png",
                pictures.grid(np.concatenate(ways), COLUMNS),
                "from one held-out image to another, through the latent space",
            )
    if (growth := _growth(champion.run_id, into)) is not None:
        keep("training.png", growth, "the same latent points as training goes on, top to bottom")
    return _work(champion, into, tuple(captions), (), _difference(champion, into))


@task(
    name="write-text",
    task_run_name="write {name}",
    **NETWORKED,
)
def write_texts(name: str, folder: str, seed: int = 0) -> Work:
    """Let the champion of a token model write, at several temperatures."""
    into = Path(folder) / name
    captions = []
    champion = _champion(name)
    with loaded(name) as model:
        for temperature in TEMPERATURES:
            (text,) = model.write_texts(1, seed, temperature, num_tokens=TEXT_TOKENS)
            file_name = f"temperature-{temperature}.txt"
            write_text(into / file_name, model.prompt + text + "\n")
            captions.append((file_name, f"temperature {temperature}"))
    return _work(champion, into, (), tuple(captions), _difference(champion, into))


def _champion(name: str) -> Any:
    champion = champion_of(name)
    if champion is None:
        raise LookupError(f"{name} has no {CHAMPION}; train one with `atelier run` first")
    return champion


def _work(
    champion: Any,
    folder: Path,
    shown: tuple[tuple[str, str], ...],
    texts: tuple[tuple[str, str], ...],
    differences: tuple[tuple[str, str], ...],
) -> Work:
    return Work(
        name=champion.name,
        family=champion.tags["family"],
        version=int(champion.version),
        run_id=champion.run_id,
        scorecard_run_id=champion.tags["scorecard_run_id"],
        main_metric=champion.tags["main_metric"],
        main_value=float(champion.tags["main_value"]),
        folder=str(folder),
        pictures=shown,
        texts=texts,
        differences=differences,
    )


def _difference(champion: Any, into: Path) -> tuple[tuple[str, str], ...]:
    """What was made side by side when this version was promoted; nothing for a first one."""
    if (found := comparison_of(champion.tags)) is None:
        return ()
    run_id, before = found
    seeds = "from the same seed"
    with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
        try:
            stored = fetch_artifacts(run_id, "comparison", Path(scratch))
        except FileNotFoundError:
            return ()
        if (picture := stored / "comparison.png").exists():
            write_bytes(into / "comparison.png", picture.read_bytes())
            return (
                ("comparison.png", f"version {before}, and version {champion.version}: {seeds}"),
            )
        record = read_json(stored / "comparison.json")
    captions = []
    for made in record["texts"]:
        file_name = f"comparison-{made['version']}.txt"
        write_text(into / file_name, record["prompt"] + made["text"] + "\n")
        caption = f"version {made['version']}, temperature {record['temperature']}, {seeds}"
        captions.append((file_name, caption))
    return tuple(captions)


def _growth(run_id: str, scratch_beside: Path) -> bytes | None:
    """One strip per stored moment of training, or None where the run stored none."""
    with tempfile.TemporaryDirectory(dir=scratch_beside.parent) as scratch:
        try:
            stored = fetch_artifacts(run_id, "progress", Path(scratch))
        except FileNotFoundError:
            return None
        strips = [Image.open(path) for path in sorted(stored.glob("*.png"))]
        if not strips:
            return None
        width, height = strips[0].size
        sheet = Image.new(strips[0].mode, (width, len(strips) * (height + 2) - 2), "white")
        for index, strip in enumerate(strips):
            sheet.paste(strip, (0, index * (height + 2)))
        channels = len(sheet.getbands())
        return pictures.png(np.asarray(sheet).reshape(sheet.height, sheet.width, channels))


@task(
    name="publish-gallery",
    task_run_name="publish gallery",
    **NETWORKED,
)
def publish_gallery(works: list[Work], folder: str, run_id: str) -> str:
    """Write the page, store all files with the run, show them in the Prefect UI.

    Returns the path of the latest gallery's page.
    """
    into = Path(folder)
    write_text(into / "index.html", page(works))
    write_json(into / "works.json", [_fields(work) for work in works])
    log_file(run_id, into, "gallery")
    if in_task_run():
        create_markdown_artifact(
            markdown=_markdown(works, run_id), key="gallery", description="Samples of the champions"
        )
    log(f"gallery of {len(works)} champions written")
    return keep_gallery(folder)


def _fields(work: Work) -> dict[str, Any]:
    return {name: getattr(work, name) for name in work.__dataclass_fields__}


def _markdown(works: list[Work], run_id: str) -> str:
    """The gallery for the Prefect UI; pictures come from MLflow, or travel inside the text."""
    lines = []
    for work in works:
        heading = f"{work.name} version {work.version}"
        if is_served():
            heading = f"[{heading}]({version_url(work.name, work.version)})"
        metric = f"{title(work.main_metric)}: **{work.main_value:.4f}**"
        lines += [f"## {heading}", f"{FAMILIES[work.family]} {metric}"]
        for file_name, caption in (*work.pictures, *work.differences):
            if not file_name.endswith(".png"):
                continue
            address = (
                artifact_url(run_id, f"gallery/{work.name}/{file_name}")
                if is_served()
                else _data_uri(Path(work.folder) / file_name)
            )
            lines += [f"**{caption}**", f"![{caption}]({address})"]
        for file_name, caption in work.texts:
            text = (Path(work.folder) / file_name).read_text(encoding="utf-8")
            lines += [f"**{caption}**", f"````text\n{text}\n````"]
    if is_served():
        lines.append(f"[All files of this gallery]({run_url(run_id)})")
    return "\n\n".join(lines)


def page(works: list[Work]) -> str:
    """The self-contained page of a gallery."""
    template = (project_root() / "tasks" / "gallery.html").read_text(encoding="utf-8")
    sections = "\n".join(_section(work) for work in works)
    return template.replace("{{sections}}", sections).replace("{{yardstick}}", _yardstick(works))


def _section(work: Work) -> str:
    metric = html.escape(title(work.main_metric))
    layout = "works texts" if work.texts else "works"
    shown = "".join(_figure(work, *piece) for piece in (*work.pictures, *work.texts))
    return (
        f'<section id="{html.escape(work.name)}"><header><h2>{html.escape(work.name)}</h2>'
        f"<p>{html.escape(FAMILIES[work.family])} Version {work.version}.</p>"
        f'<p class="metric"><b>{work.main_value:.4g}</b> {metric}</p></header>'
        f'{_curves(work)}<div class="{layout}">{shown}</div>{_beside_the_last(work)}'
        f"{_numbers(work)}</section>"
    )


def _figure(work: Work, file_name: str, caption: str) -> str:
    path, words = Path(work.folder) / file_name, html.escape(caption)
    if path.suffix == ".png":
        content = f'<img alt="{words}" src="{_data_uri(path)}">'
    else:
        content = f"<pre>{html.escape(path.read_text(encoding='utf-8'))}</pre>"
    return f"<figure>{content}<figcaption>{words}</figcaption></figure>"


def _beside_the_last(work: Work) -> str:
    """The champion before it and this one, side by side, where there was one."""
    if not work.differences:
        return ""
    shown = "".join(_figure(work, *piece) for piece in work.differences)
    return (
        '<div class="difference"><h3>What changed with this version</h3>'
        f'<div class="pair">{shown}</div></div>'
    )


_CURVES = {
    "vae": ("reconstruction", "kl"),
    "gan": ("generator_loss", "discriminator_loss"),
    "gpt": ("loss", "validation_nats_per_token"),
    "ngram": (),
}


def _curves(work: Work) -> str:
    drawn = []
    for name in _CURVES[work.family]:
        points = metric_history(work.run_id, name)
        if len(points) > 1:
            label = html.escape(name.replace("_", " "))
            ends = f"{points[0][1]:.3g} → {points[-1][1]:.3g}"
            drawn.append(
                f"<figure>{pictures.curve(points)}<figcaption>{label}: {ends}</figcaption></figure>"
            )
    return f'<div class="curves">{"".join(drawn)}</div>' if drawn else ""


def _numbers(work: Work) -> str:
    measured = {
        name: value
        for name, value in sorted(run_metrics(work.scorecard_run_id).items())
        if name.startswith(("test_", "floor_"))
    }
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:.5g}</td>"
        f"<td>{'' if floor is None else f'{floor:.5g}'}</td></tr>"
        for name, value, floor in beside_the_floor(measured)
    )
    heads = "<tr><th></th><th>this version</th><th>real data</th></tr>"
    return (
        "<details><summary>measured on held-out data</summary>"
        f"<table>{heads}{rows}</table></details>"
    )


def _yardstick(works: list[Work]) -> str:
    """Counting and attention answer the same question: their bits per byte, side by side."""
    judged = [work for work in works if work.main_metric == "test_bits_per_byte"]
    if len({work.name.rsplit("-", 1)[0] for work in judged}) != 1 or len(judged) < 2:
        return ""
    worst = max(work.main_value for work in judged)
    bars = "".join(
        f'<tr><th>{html.escape(work.name)}</th><td><span class="bar"'
        f' style="width:{work.main_value / worst * 100:.1f}%"></span></td>'
        f"<td>{work.main_value:.3f}</td></tr>"
        for work in judged
    )
    return (
        '<section class="yardstick"><h2>One question, two answers</h2><p>Both token models say how'
        " likely each next token of the same held-out text is. Bits per byte, lower is better:</p>"
        f"<table>{bars}</table></section>"
    )


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + b64encode(path.read_bytes()).decode("ascii")
