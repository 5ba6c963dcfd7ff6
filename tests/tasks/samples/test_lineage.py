"""Where models come from, told as a picture and as a table."""

import html
import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.data.ingestion import ImageSet, ingest_images
from tasks.data.tokenization import TokenSet
from tasks.registry.versions import Version
from tasks.samples import lineage
from tasks.samples.lineage import publish_lineage, table
from tasks.samples.lineage_picture import Node
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


def drawn(page: str) -> str:
    """The picture that a page without a server holds."""
    (held,) = re.findall(r"\(data:image/svg\+xml;base64,([^)]*)\)", page)
    return b64decode(held).decode()


def edges(page: str) -> list[tuple[str, ...]]:
    """What leads to what in its picture."""
    titles = re.findall(r"<path [^>]*><title>(.*?)</title>", drawn(page))
    return [tuple(html.unescape(title).split(" → ")) for title in titles]


def test_each_model_is_led_back_to_its_own_data_and_only_champions_to_the_gallery(
    images: ImageSet, tokens: TokenSet, run_id: str, tmp_path: Path
) -> None:
    drawing = version(f"{images.name}-vae", "champion", images.digest)
    writing = version(f"{tokens.name}-ngram", "challenger", tokens.digest)

    page = publish_lineage.fn([drawing, writing], str(home() / "gallery" / "index.html"), run_id)

    vae, ngram = f"{images.name}-vae 3", f"{tokens.name}-ngram 3"
    assert edges(page) == [
        (tokens.name, f"{tokens.name} characters"),
        (images.name, vae),
        (f"{tokens.name} characters", ngram),
        (vae, "the gallery"),
    ]
    assert "bits per byte 1.2500" in page
    assert f"{tokens.name} characters" in page
    assert "the page is gallery/index.html of the home" in page
    assert str(home()) not in page
    assert images.digest[:12] in page
    assert tokens.digest[:12] in page
    stored = fetch_artifacts(run_id, "", tmp_path)
    assert (stored / "lineage.md").read_text() == page
    assert (stored / "lineage.svg").read_text() == drawn(page)
    assert "mermaid" not in page


def test_a_continued_model_is_led_back_to_those_that_it_began_with(
    images: ImageSet, run_id: str
) -> None:
    first = version("first-vae", "champion", images.digest)
    second = version("second-vae", "champion", images.digest, first.digest)
    third = version("third-vae", "champion", images.digest, second.digest)
    begun = Parent(name="second-vae", version=3, digest=second.digest)

    page = publish_lineage.fn([replace(third, continues=begun)], "page.html", run_id)

    oldest = f"first-vae ({first.digest[:6]})"
    assert edges(page) == [
        (images.name, oldest),
        (images.name, "second-vae 3"),
        (oldest, "second-vae 3"),
        (images.name, "third-vae 3"),
        ("second-vae 3", "third-vae 3"),
        ("third-vae 3", "the gallery"),
    ]
    assert drawn(page).count(">continued<") == 2


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

    assert len(edges(page)) == 3
    assert len({origin for origin, _ in edges(page)}) == 3
    assert fewer.digest[:6] in page


def test_a_run_without_text_has_no_text_in_its_lineage(images: ImageSet, run_id: str) -> None:
    drawing = version(f"{images.name}-gan", "champion", images.digest, real_data_bits_per_byte=0.5)

    page = publish_lineage.fn([drawing], "page.html", run_id)

    assert "tokenizer" not in page
    assert len(edges(page)) == 2
    assert drawn(page).count(">real data: 0.5000<") == page.count("real data\\: 0.5000") == 1


def test_with_a_server_the_picture_is_there(
    images: ImageSet, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "is_served", lambda: True)
    for name in ("version_url", "artifact_url", "run_url", "runs_url"):
        address = f"http://{name}/"
        monkeypatch.setattr(lineage, name, lambda *a, to=address: to + "/".join(map(str, a)))
    drawing = version(f"{images.name}-gan", "champion", images.digest)

    page = publish_lineage.fn([drawing], "page.html", run_id)

    assert page.startswith(f"![Data, models and samples](http://artifact_url/{run_id}/lineage.svg)")
    assert f"](http://version_url/{drawing.name}/3)" in page


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


def test_names_that_mean_something_to_markdown_are_made_harmless() -> None:
    odd = Node(kind="images", name='my "best" <b> | pictures', facts=(), link="http://x/1")

    assert table([odd]).splitlines()[-1].replace("\\|", "").count("|") == 6
