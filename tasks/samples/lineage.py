"""Where a run's models come from: data -> tokenizer -> model -> samples, as a picture and a table.

Both are a markdown artifact of the flow run. The picture is an SVG file of the MLflow run, since
Prefect's older pages, which a first visitor gets, show Mermaid as source code; the table below it
has the links and the digests.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from tasks.data.ingestion import Corpus, ImageSet
from tasks.data.tokenization import TokenCounts
from tasks.evaluation.result import reference_words, title
from tasks.registry.versions import CHAMPION, Version
from tasks.runtime.progress import log, show
from tasks.runtime.retries import NETWORKED
from tasks.runtime.templates import prefect_page
from tasks.samples.lineage_picture import Node, picture
from tasks.store.artifacts import Artifact, Kind
from tasks.store.files import portable, scratch_folder, write_text
from tasks.store.graph import Graph
from tasks.store.records import DamagedRecord
from tasks.tracking.mlflow_client import (
    artifact_url,
    is_served,
    log_file,
    run_url,
    runs_url,
    version_url,
)
from tasks.training.parent import Parent

_SHOWN_DIGITS, _TELLING_DIGITS = 12, 6
_PICTURE = "lineage.svg"


@task(name="publish-lineage", task_run_name="lineage", **NETWORKED)
def publish_lineage(versions: Sequence[Version], gallery: str, run_id: str) -> str:
    """Publish the lineage with the flow run and with the MLflow run; returns its markdown.

    What the versions were made from is read from the manifests of the home.
    gallery: the page of samples; run_id: the MLflow run of the whole.
    """
    graph = Graph.of_home()
    origins = graph.origins(each.digest for each in versions)
    data = [made for made in origins if made.kind in _FACTS]
    parents = _parents_among(origins, versions)
    names = _names_of(data) | parents
    nodes = [
        *_data(data, names),
        *(_parent(made, names) for made in origins if made.digest in parents),
        *_models(graph, names, versions),
    ]
    nodes.append(
        Node(
            kind="samples",
            name="the gallery",  # no data set can be called so
            facts=(f"the page is {portable(Path(gallery))} of the home",),
            made_from=tuple(_label(each) for each in versions if each.alias == CHAMPION),
        )
    )
    drawn = picture(nodes)
    page = f"![Data, models and samples]({_address(drawn, run_id)})\n\n{table(nodes)}\n"
    if is_served():
        page += f"\nThe whole run in MLflow: [{run_id[:8]}]({run_url(run_id)})"
        page += f", among [all runs]({runs_url()})\n"
    with scratch_folder() as scratch:
        for name, content in ((_PICTURE, drawn), ("lineage.md", page)):
            write_text(scratch / name, content)
            log_file(run_id, scratch / name)
    show(
        "lineage",
        lambda: create_markdown_artifact(
            page, key="lineage", description="Data, models and samples"
        ),
    )
    return page


def _address(drawn: str, run_id: str) -> str:
    """Where a page finds the picture: at MLflow's server, or in the page itself."""
    if is_served():
        return artifact_url(run_id, _PICTURE)
    return "data:image/svg+xml;base64," + b64encode(drawn.encode()).decode("ascii")


def _data(data: Iterable[Artifact], names: Mapping[str, str]) -> Iterator[Node]:
    for made in data:
        kind, facts = _FACTS[made.kind]
        try:
            told = facts(made)
        except DamagedRecord as error:
            log(f"lineage: {error}")
            told = ()
        yield Node(
            kind=kind,
            name=names[made.digest],
            facts=told,
            digest=made.digest,
            made_from=_named(names, made.inputs),
        )


def _of_images(made: Artifact) -> tuple[str, ...]:
    images = made.as_receipt(ImageSet)
    number = images.num_train + images.num_validation + images.num_test
    return (f"{number:,} images", f"{images.channels} x {images.height} x {images.width}")


def _of_text(made: Artifact) -> tuple[str, ...]:
    text = made.as_receipt(Corpus)
    return (f"{(text.bytes_train + text.bytes_validation + text.bytes_test) / 1e3:,.0f} kB",)


def _of_tokens(made: Artifact) -> tuple[str, ...]:
    return (f"{made.as_receipt(TokenCounts).vocabulary_size:,} tokens",)


_PARENTS: tuple[Kind, ...] = ("models", "initial-weights")
_FACTS: dict[Kind, tuple[str, Callable[[Artifact], tuple[str, ...]]]] = {
    **{"images": ("images", _of_images), "corpora": ("text", _of_text)},
    **{"tokens": ("tokenizer", _of_tokens)},
}


def _parents_among(origins: Iterable[Artifact], versions: Sequence[Version]) -> dict[str, str]:
    """The names of the models that versions began with, and of those that these began with."""
    own = {version.digest for version in versions}
    known = {each.continues.digest: each.continues for each in versions if each.continues}
    return {
        made.digest: _label(known[made.digest]) if made.digest in known else _told_apart(made)
        for made in origins
        if made.kind in _PARENTS and made.digest not in own
    }


def _parent(made: Artifact, names: Mapping[str, str]) -> Node:
    return Node(
        kind="model",
        name=names[made.digest],
        facts=("continued",),
        digest=made.digest,
        made_from=_named(names, made.inputs),
    )


def _models(graph: Graph, names: Mapping[str, str], versions: Sequence[Version]) -> Iterator[Node]:
    for version in versions:
        made = graph.named(version.digest)
        references = reference_words(version.references)
        yield Node(
            kind="model",
            name=_label(version),
            facts=(
                version.alias,
                f"{title(version.main_metric)} {version.main_value:.4f}",
                *((references,) if references else ()),
            ),
            digest=version.digest,
            made_from=_named(names, made.inputs if made else ()),
            link=version_url(version.name, version.version) if is_served() else "",
        )


def _names_of(data: Sequence[Artifact]) -> dict[str, str]:
    """The names of data, by digest; with its beginning where data of two contents bear one name."""
    times = Counter(map(_name, data))
    return {
        made.digest: _told_apart(made) if times[_name(made)] > 1 else _name(made) for made in data
    }


def _told_apart(made: Artifact) -> str:
    """The name of one among several that bear it."""
    return f"{_name(made)} ({made.digest[:_TELLING_DIGITS]})"


def _named(names: Mapping[str, str], digests: Iterable[str]) -> tuple[str, ...]:
    """The names of those that are nodes."""
    return tuple(names[digest] for digest in digests if digest in names)


def _name(made: Artifact) -> str:
    """An artifact's name for people: a tokenizer's is that of the text, then of the scheme."""
    return " ".join(made.name.rsplit("-", 1)) if made.kind == "tokens" else made.name


def _label(version: Version | Parent) -> str:
    return f"{version.name} {version.version}"


def table(nodes: Sequence[Node]) -> str:
    """The same as rows of markdown."""
    return prefect_page("samples/lineage_table.md", nodes=nodes, digits=_SHOWN_DIGITS)
