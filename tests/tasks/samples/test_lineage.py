"""Where models come from, told as a graph and as a table."""

from dataclasses import replace
from pathlib import Path

from tasks.data.ingestion import ImageSet, ingest_images
from tasks.data.tokenization import TokenSet
from tasks.registry.versions import Version
from tasks.samples.lineage import Node, mermaid, publish_lineage, table
from tasks.store.artifacts import opened
from tasks.store.files import home, write_text
from tasks.tracking.mlflow_client import fetch_artifacts
from tasks.training.parent import Parent


def version(name: str, alias: str, *made_from: str, **references: float) -> Version:
    """A version whose fit is in the home."""
    with opened("models", name, {"inputs": made_from}, inputs=made_from) as place:
        write_text(place.folder / "weights", f"{name}{made_from}")
        digest = place.commit({}).digest
    return Version(
        name=name,
        version=3,
        alias=alias,
        run_id="0" * 32,
        digest=digest,
        main_metric="test_bits_per_byte",
        main_value=1.25,
        seconds=1.0,
        is_new=True,
        references=references,
    )


def test_each_model_is_led_back_to_its_own_data_and_only_champions_to_the_gallery(
    images: ImageSet, tokens: TokenSet, run_id: str, tmp_path: Path
) -> None:
    drawing = version(f"{images.name}-vae", "champion", images.digest)
    writing = version(f"{tokens.name}-ngram", "challenger", tokens.digest)

    page = publish_lineage.fn([drawing, writing], str(home() / "gallery" / "index.html"), run_id)

    edges = [line.strip() for line in page.splitlines() if "-->" in line]
    # 0 images, 1 text, 2 tokenizer, 3 VAE, 4 n-gram, 5 gallery
    assert edges == ["n1 --> n2", "n0 --> n3", "n2 --> n4", "n3 --> n5"]
    assert "bits per byte 1.2500" in page
    assert f"{tokens.name} characters" in page
    assert "the page is gallery/index.html of the home" in page
    assert str(home()) not in page
    assert images.digest[:12] in page
    assert tokens.digest[:12] in page
    stored = fetch_artifacts(run_id, "", tmp_path) / "lineage.md"
    assert stored.read_text() == page


def test_a_continued_model_is_led_back_to_those_that_it_began_with(
    images: ImageSet, run_id: str
) -> None:
    first = version("first-vae", "champion", images.digest)
    second = version("second-vae", "champion", images.digest, first.digest)
    third = version("third-vae", "champion", images.digest, second.digest)
    begun = Parent(name="second-vae", version=3, digest=second.digest)

    page = publish_lineage.fn([replace(third, continues=begun)], "page.html", run_id)

    edges = [line.strip() for line in page.splitlines() if "-->" in line]
    # 0 images, 1 first, 2 second, 3 third, 4 gallery
    assert edges == [
        *["n0 --> n1", "n0 --> n2", "n1 --> n2", "n0 --> n3", "n2 --> n3"],
        "n3 --> n4",
    ]
    assert "second-vae 3<br/>continued" in page
    assert f"first-vae ({first.digest[:6]})<br/>continued" in page.replace("#40;", "(").replace(
        "#41;", ")"
    )


def test_data_of_two_contents_and_one_name_are_told_apart(
    images: ImageSet, image_folder: Path, run_id: str
) -> None:
    first = version("pictures-vae", "champion", images.digest)
    (image_folder / "left" / "00.png").unlink()
    fewer = ingest_images.fn(images.source)
    second = replace(
        version("pictures-vae", "challenger", fewer.digest, first.digest),
        continues=Parent(name="pictures-vae", version=1, digest=first.digest),
    )

    page = publish_lineage.fn([second], "page.html", run_id)

    edges = [line.strip() for line in page.splitlines() if "-->" in line]
    assert len(edges) == 3
    assert len({edge.partition(" ")[0] for edge in edges}) == 3
    assert fewer.digest[:6] in page


def test_a_run_without_text_has_no_text_in_its_lineage(images: ImageSet, run_id: str) -> None:
    drawing = version(f"{images.name}-gan", "champion", images.digest, real_data_bits_per_byte=0.5)

    page = publish_lineage.fn([drawing], "page.html", run_id)

    assert "tokenizer" not in page
    assert page.count("-->") == 2
    assert page.count("real data#58; 0.5000") == page.count("real data\\: 0.5000") == 1


def test_the_table_byte_for_byte() -> None:
    nodes = [
        Node(kind="images", name="a|b", facts=("1,797 images", "1 x 8 x 8"), digest="ab" * 32),
        Node(kind="model", name="d-vae 3", facts=(), made_from=("a|b", "c"), link="http://x/1"),
    ]

    assert table(nodes) == (
        "| | name | what it is | made from | sha256 |\n|---|---|---|---|---|\n"
        "| images | a\\|b | 1,797 images, 1 x 8 x 8 |  | `abababababab` |\n"
        "| model | [d-vae 3](http://x/1) |  | a\\|b, c |  |"
    )


def test_names_that_mean_something_to_mermaid_or_markdown_are_made_harmless() -> None:
    odd = Node(kind="images", name='my "best" <b> | pictures', facts=(), link="http://x/1")

    drawn = mermaid([odd])
    assert 'n0["my #34;best#34; #60;b#62; #124; pictures"]' in drawn
    assert 'click n0 href "http://x/1" _blank' in drawn
    assert table([odd]).splitlines()[-1].replace("\\|", "").count("|") == 6
