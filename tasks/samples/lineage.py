"""Where a run's models come from: data -> tokenizer -> model -> samples, as a picture with links.

The picture is Mermaid text in a markdown artifact of the flow run. Prefect's newer pages draw it;
the older ones show its source, and so the same is told in a table below it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prefect import task
from prefect.artifacts import create_markdown_artifact

from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.evaluation.result import reference_words, title
from tasks.registry.versions import CHAMPION, Version
from tasks.runtime import markup
from tasks.runtime.progress import show
from tasks.runtime.retries import NETWORKED
from tasks.runtime.templates import prefect_page
from tasks.store.files import home, inside, write_text
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
def publish_lineage(
    images: ImageSet | None,
    tokens: TokenSet | None,
    versions: Sequence[Version],
    gallery: str,
    run_id: str,
) -> str:
    """Publish the lineage with the flow run and with the MLflow run; returns its markdown.

    images, tokens: the receipts of the data that the versions were trained on, if any.
    gallery: the page of samples; run_id: the MLflow run of the whole.
    """
    nodes = [*_data(images, tokens), *_models(images, tokens, versions)]
    nodes.append(
        Node(
            kind="samples",
            name="gallery",
            facts=(f"the page is {gallery}",),
            made_from=tuple(_label(each) for each in versions if each.alias == CHAMPION),
        )
    )
    page = f"```mermaid\n{mermaid(nodes)}\n```\n\n{table(nodes)}\n"
    if is_served():
        page += f"\nThe whole run in MLflow: [{run_id[:8]}]({run_url(run_id)})\n"
    path = inside(home() / "runs" / "lineage", run_id) / "lineage.md"
    write_text(path, page)
    log_file(run_id, path)
    show(
        "lineage",
        lambda: create_markdown_artifact(
            page, key="lineage", description="Data, models and samples"
        ),
    )
    return page


def _data(images: ImageSet | None, tokens: TokenSet | None) -> Iterator[Node]:
    if images is not None:
        number = images.num_train + images.num_validation + images.num_test
        size = f"{images.channels} x {images.height} x {images.width}"
        yield Node(
            kind="images",
            name=images.name,
            facts=(f"{number:,} images", size),
            digest=images.digest,
        )
    if tokens is not None:
        text = tokens.corpus
        size_bytes = text.bytes_train + text.bytes_validation + text.bytes_test
        yield Node(
            kind="text",
            name=text.name,
            facts=(f"{size_bytes / 1e3:,.0f} kB",),
            digest=text.digest,
        )
        yield Node(
            kind="tokenizer",
            name=_tokenizer(tokens),
            facts=(f"{tokens.vocabulary_size:,} tokens",),
            digest=tokens.digest,
            made_from=(text.name,),
        )


def _models(
    images: ImageSet | None, tokens: TokenSet | None, versions: Sequence[Version]
) -> Iterator[Node]:
    for version in versions:
        is_text = version.name.endswith(("-ngram", "-gpt"))
        references = reference_words(version.references)
        source = _tokenizer(tokens) if is_text and tokens else images.name if images else ""
        yield Node(
            kind="model",
            name=_label(version),
            facts=(
                version.alias,
                f"{title(version.main_metric)} {version.main_value:.4f}",
                *((references,) if references else ()),
            ),
            digest=version.digest,
            made_from=(source,),
            link=version_url(version.name, version.version) if is_served() else "",
        )


def _tokenizer(tokens: TokenSet) -> str:
    return f"{tokens.name} {tokens.scheme}"


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
