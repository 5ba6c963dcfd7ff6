"""Where a run's models come from: data -> tokenizer -> model -> samples, as a picture with links.

The picture is Mermaid text in a markdown artifact of the flow run. Prefect's newer pages draw it;
the older ones show its source, and so the same is told in a table below it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from tasks.data.ingestion import Corpus, ImageSet
from tasks.data.tokenization import TokenCounts
from tasks.evaluation.result import reference_words, title
from tasks.registry.versions import CHAMPION, Version
from tasks.runtime import markup
from tasks.runtime.progress import log, show
from tasks.runtime.retries import NETWORKED
from tasks.runtime.templates import prefect_page
from tasks.store.artifacts import Artifact, Kind
from tasks.store.files import portable, scratch_folder, write_text
from tasks.store.graph import Graph
from tasks.store.records import DamagedRecord
from tasks.tracking.mlflow_client import is_served, log_file, run_url, version_url

_SHOWN_DIGITS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One thing of a lineage."""

    kind: str
    name: str
    facts: tuple[str, ...]
    digest: str = ""
    made_from: tuple[str, ...] = ()
    """The names of the nodes that it was made from."""
    link: str = ""


@task(name="publish-lineage", task_run_name="lineage", **NETWORKED)
def publish_lineage(versions: Sequence[Version], gallery: str, run_id: str) -> str:
    """Publish the lineage with the flow run and with the MLflow run; returns its markdown.

    What the versions were made from is read from the manifests of the home.
    gallery: the page of samples; run_id: the MLflow run of the whole.
    """
    graph = Graph.of_home()
    nodes = [*_data(graph, versions), *_parents(graph, versions), *_models(graph, versions)]
    nodes.append(
        Node(
            kind="samples",
            name="gallery",
            facts=(f"the page is {portable(Path(gallery))} of the home",),
            made_from=tuple(_label(each) for each in versions if each.alias == CHAMPION),
        )
    )
    page = f"```mermaid\n{mermaid(nodes)}\n```\n\n{table(nodes)}\n"
    if is_served():
        page += f"\nThe whole run in MLflow: [{run_id[:8]}]({run_url(run_id)})\n"
    with scratch_folder() as scratch:
        write_text(scratch / "lineage.md", page)
        log_file(run_id, scratch / "lineage.md")
    show(
        "lineage",
        lambda: create_markdown_artifact(
            page, key="lineage", description="Data, models and samples"
        ),
    )
    return page


def _data(graph: Graph, versions: Sequence[Version]) -> Iterator[Node]:
    for made in graph.origins(version.digest for version in versions):
        if made.kind not in _FACTS:
            continue
        kind, facts = _FACTS[made.kind]
        try:
            told = facts(made)
        except DamagedRecord as error:
            log(f"lineage: {error}")
            told = ()
        yield Node(
            kind=kind,
            name=_name(made),
            facts=told,
            digest=made.digest,
            made_from=_names(graph, made.inputs),
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


_FACTS: dict[Kind, tuple[str, Callable[[Artifact], tuple[str, ...]]]] = {
    **{"images": ("images", _of_images), "corpora": ("text", _of_text)},
    **{"tokens": ("tokenizer", _of_tokens)},
}


def _parents(graph: Graph, versions: Sequence[Version]) -> Iterator[Node]:
    """The versions that others were continued from."""
    parents = {str(each.continues): each.continues for each in versions if each.continues}
    for parent in parents.values():
        made = graph.named(parent.digest)
        yield Node(
            kind="model",
            name=f"{parent.name} {parent.version}",
            facts=("continued",),
            digest=parent.digest,
            made_from=_names(graph, made.inputs if made else ()),
            link=version_url(parent.name, parent.version) if is_served() else "",
        )


def _models(graph: Graph, versions: Sequence[Version]) -> Iterator[Node]:
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
            made_from=(
                *_names(graph, made.inputs if made else ()),
                *(
                    [f"{version.continues.name} {version.continues.version}"]
                    if version.continues
                    else []
                ),
            ),
            link=version_url(version.name, version.version) if is_served() else "",
        )


def _names(graph: Graph, digests: Iterable[str]) -> tuple[str, ...]:
    """The names of artifacts that are nodes."""
    found = (graph.named(digest) for digest in digests)
    return tuple(_name(made) for made in found if made is not None and made.kind in _FACTS)


def _name(made: Artifact) -> str:
    """An artifact's name for people: a tokenizer's is that of the text, then of the scheme."""
    return " ".join(made.name.rsplit("-", 1)) if made.kind == "tokens" else made.name


def _label(version: Version) -> str:
    return f"{version.name} {version.version}"


def mermaid(nodes: Sequence[Node]) -> str:
    """The graph, left to right; a node with a link can be clicked."""
    names = {node.name: f"n{index}" for index, node in enumerate(nodes)}
    lines = ["graph LR"]
    for node in nodes:
        facts = [node.name, *node.facts, node.digest[:_SHOWN_DIGITS]]
        if node.kind == "samples":
            facts = [node.name]
        label = "<br/>".join(markup.mermaid(fact) for fact in facts if fact)
        lines.append(f'  {names[node.name]}["{label}"]')
    for node in nodes:
        lines += [f"  {names[name]} --> {names[node.name]}" for name in node.made_from]
        if node.link:
            lines.append(f'  click {names[node.name]} href "{node.link}" _blank')
    return "\n".join(lines)


def table(nodes: Sequence[Node]) -> str:
    """The same as rows of markdown."""
    return prefect_page("samples/lineage_table.md", nodes=nodes, digits=_SHOWN_DIGITS)
