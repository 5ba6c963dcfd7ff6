"""The gallery's page: one self-contained HTML file that shows what the champions made."""

import html
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks import plots
from tasks.evaluation.result import reference_words, references_told, title
from tasks.evaluation.scorecard import with_baseline
from tasks.registry.model_card import FAMILIES
from tasks.store.files import read_json
from tasks.store.records import shaped
from tasks.tracking.mlflow_client import metric_history, run_exists, run_metrics

CHOICES = "choices.json"
"""In the folder of an n-gram model's work: how each token of one of its texts was chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChampionSamples:
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
    seed: int = 0
    key: str = ""
    """Of what decides the files: the next page takes them over while it stays the same."""
    references: dict[str, float] = field(default_factory=dict)
    """See `tasks.evaluation.result.references`."""
    remark: str = ""
    """Why these are not the present champion's works, where they are not."""


def with_references(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A work's record with its reference metrics as numbers; raises DamagedRecord.

    Earlier versions of this project wrote them as `beside`, a finished sentence.
    """
    fields = dict(record)
    if "references" not in fields:
        told = shaped(fields.pop("beside", ""), str, f"{where}: beside")
        fields["references"] = references_told(str(fields.get("main_metric")), told)
    fields["references"] = shaped(fields["references"], dict[str, float], f"{where}: references")
    return fields


def page(works: Sequence[ChampionSamples]) -> str:
    """The self-contained page of a gallery: the works of each data set beside each other."""
    groups = {
        data: [work for work in works if _data_of(work) == data]
        for data in dict.fromkeys(map(_data_of, works))
    }
    parts = {
        "contents": _contents(groups),
        "sections": "\n".join(_group(data, group) for data, group in groups.items()) or _NOBODY,
    }
    template = Path(__file__).with_name("gallery.html").read_text(encoding="utf-8")
    # in one pass: what a model wrote may look like a place of the template
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)


_NOBODY = (
    "<section><p>No model has a champion yet. <code>atelier run</code> trains some; of those that"
    " were refused, <code>atelier history</code> tells why.</p></section>"
)


def _data_of(work: ChampionSamples) -> str:
    """The name of the data set that a model was trained on."""
    return work.name.removesuffix(f"-{work.family}")


def _contents(groups: Mapping[str, list[ChampionSamples]]) -> str:
    """Links to all works, a line for each data set."""
    if sum(map(len, groups.values())) < 2:
        return ""
    lines = "".join(
        f"<li><b>{html.escape(data)}</b>{''.join(_link(work) for work in group)}</li>"
        for data, group in groups.items()
    )
    return f'<nav aria-label="Works by data set"><ul>{lines}</ul></nav>'


def _link(work: ChampionSamples) -> str:
    mark = ' class="stale" title="not of the present champion"' if work.remark else ""
    return (
        f'<a{mark} href="#{quote(work.name)}">{html.escape(_SHORT.get(work.family, work.name))}</a>'
    )


_SHORT = {"vae": "VAE", "gan": "GAN", "ngram": "n-gram", "gpt": "GPT"}


def _group(data: str, works: list[ChampionSamples]) -> str:
    sections = "\n".join(_section(work) for work in works)
    return (
        f'<div class="group"><h2 class="data">{html.escape(data)}</h2>'
        f"{_yardstick(works)}\n{sections}</div>"
    )


def _section(work: ChampionSamples) -> str:
    metric = html.escape(title(work.main_metric))
    words = reference_words(work.references)
    beside = html.escape(f" ({words})" if words else "")
    value = f'<p class="metric"><b>{work.main_value:.4g}</b> {metric}{beside}</p>' if metric else ""
    layout = "works texts" if work.texts else "works"
    shown = "".join(_figure(work, *piece) for piece in (*work.pictures, *work.texts))
    remark = f'<p class="remark">{html.escape(work.remark)}</p>' if work.remark else ""
    return (
        f'<section id="{html.escape(work.name)}"><header><h2>{html.escape(work.name)}</h2>'
        f"<p>{html.escape(FAMILIES.get(work.family, ''))} Version {work.version}.</p>"
        f"{value}</header>{remark}"
        f'{_curves(work)}<div class="{layout}">{shown}</div>{_choices(work)}'
        f"{_beside_the_last(work)}{_numbers(work)}</section>"
    )


def _figure(work: ChampionSamples, file_name: str, caption: str) -> str:
    path, words = Path(work.folder) / file_name, html.escape(caption)
    if path.suffix == ".png":
        content = f'<img alt="{words}" src="{data_uri(path)}">'
    else:
        content = f"<pre>{html.escape(path.read_text(encoding='utf-8'))}</pre>"
    return f"<figure>{content}<figcaption>{words}</figcaption></figure>"


def _choices(work: ChampionSamples) -> str:
    """A text of an n-gram model, each token shaded by how much of the text before it decided."""
    path = Path(work.folder) / CHOICES
    if not path.exists():
        return ""
    chosen = read_json(path)
    longest = max(choice["context_length"] for choice in chosen)
    lengths = Counter(choice["context_length"] for choice in chosen)
    shares = "".join(
        f"<li>{_shaded(str(length), length / max(1, longest))}"
        f" {lengths[length] / len(chosen):.0%}</li>"
        for length in range(longest + 1)
    )
    written = "".join(
        _shaded(choice["text"], choice["context_length"] / max(1, longest), _because(choice))
        for choice in chosen
    )
    return (
        '<div class="choices"><h3>How counting chose each token</h3>'
        "<p>The beginning of the text of temperature 0.8. Point at a token for its probability.</p>"
        "<p>The darker a token, the more tokens before it decided which one came. How many did, and"
        f" how often:</p><ul>{shares}</ul><pre>{written}</pre></div>"
    )


def _shaded(text: str, shade: float, because: str = "") -> str:
    tip = f' title="{html.escape(because)}"' if because else ""
    return f'<span style="--shade:{shade:.2f}"{tip}>{html.escape(text)}</span>'


def _because(choice: dict[str, Any]) -> str:
    if not choice["context"]:
        return f"{choice['probability']:.1%}, whatever stood before it"
    return (
        f"{choice['probability']:.1%}, of which {choice['part']:.1%} for what followed"
        f" “{choice['context']}”"
    )


def _beside_the_last(work: ChampionSamples) -> str:
    """The champion before it and this one, side by side, where there was one."""
    if not work.differences:
        return ""
    shown = "".join(_figure(work, *piece) for piece in work.differences)
    return (
        '<div class="difference"><h3>What changed with this version</h3>'
        f'<div class="pair">{shown}</div></div>'
    )


_CURVES: dict[str, tuple[str, ...]] = {
    "vae": ("reconstruction", "kl"),
    "gan": ("generator_loss", "discriminator_loss"),
    "gpt": ("loss", "validation_nats_per_token"),
    "ngram": (),
}


def _curves(work: ChampionSamples) -> str:
    drawn: list[str] = []
    if not _is_there(work.run_id):
        return ""
    for name in _CURVES.get(work.family, ()):
        points = metric_history(work.run_id, name)
        if len(points) > 1:
            label = html.escape(name.replace("_", " "))
            ends = f"{points[0][1]:.3g} → {points[-1][1]:.3g}"
            drawn.append(
                f"<figure>{plots.curve(points)}<figcaption>{label}: {ends}</figcaption></figure>"
            )
    return f'<div class="curves">{"".join(drawn)}</div>' if drawn else ""


def _is_there(run_id: str) -> bool:
    """Whether a run's numbers can be asked for: people delete runs, and lose databases."""
    return bool(run_id) and run_exists(run_id)


def _numbers(work: ChampionSamples) -> str:
    if not _is_there(work.scorecard_run_id):
        return ""
    metrics = run_metrics(work.scorecard_run_id)
    has_no_labels = work.family in ("vae", "gan") and "classifier_test_accuracy" not in metrics
    measured = {
        name: value
        for name, value in sorted(metrics.items())
        if name.startswith(("test_", "floor_"))
    }
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:.5g}</td>"
        f"<td>{'' if floor is None else f'{floor:.5g}'}</td></tr>"
        for name, value, floor in with_baseline(measured)
    )
    heads = "<tr><th></th><th>this version</th><th>real data</th></tr>"
    return (
        "<details><summary>measured on held-out data</summary>"
        f"<table>{heads}{rows}</table>{_NO_LABELS if has_no_labels else ''}</details>"
    )


_NO_LABELS = (
    "<p>The images have no labels: what needs classes, such as fidelity, is left out, and distances"
    " are measured in the features of a network that learned from the same images without any.</p>"
)


def _yardstick(works: list[ChampionSamples]) -> str:
    """Counting and attention answer the same question: their bits per byte, side by side.

    works: those of one data set.
    """
    judged = [work for work in works if work.main_metric == "test_bits_per_byte"]
    if len(judged) < 2:
        return ""
    worst = max(work.main_value for work in judged)
    bars = "".join(
        f'<tr><th>{html.escape(work.name)}</th><td><span class="bar"'
        f' style="width:{work.main_value / worst * 100:.1f}%"></span></td>'
        f"<td>{work.main_value:.3f}</td></tr>"
        for work in judged
    )
    return (
        '<section class="yardstick"><h3>One question, two answers</h3><p>Both token models say how'
        " likely each next token of the same held-out text is. Bits per byte, lower is better:</p>"
        f"<table>{bars}</table></section>"
    )


def data_uri(path: Path) -> str:
    """A PNG file as an address that holds it."""
    return "data:image/png;base64," + b64encode(path.read_bytes()).decode("ascii")
