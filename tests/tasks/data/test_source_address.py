"""How people name data, and what the data sets are called for it."""

from pathlib import Path

import pytest

from tasks.data.ingestion import ingest_images, ingest_text, short_name
from tasks.data.source_address import source_address
from tasks.data.sources import find_source
from tasks.store.files import BadInput


@pytest.mark.parametrize(
    ("source", "scheme", "location", "name"),
    [
        ("digits", "", "digits", ""),
        ("folder:/a/train", "folder", "/a/train", ""),
        ("pets=folder:/a/train", "folder", "/a/train", "pets"),
        ("poems=file:/a/b.txt", "file", "/a/b.txt", "poems"),
        ("folder:/a=folder:/b", "folder", "/a=folder:/b", ""),
        ("folder:/a/x=1", "folder", "/a/x=1", ""),
        ("pets=folder:/a:b/c=d", "folder", "/a:b/c=d", "pets"),
        ("стихи=file:x", "file", "x", "стихи"),
        ("pets=digits", "", "pets=digits", ""),
        ("folder:", "", "folder:", ""),
    ],
)
def test_a_source_is_taken_apart(source: str, scheme: str, location: str, name: str) -> None:
    found = source_address(source)

    assert (found.scheme, found.location, found.given_name) == (scheme, location, name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("=folder:/a", "it is empty"),
        ("My Pets=folder:/a", "cannot be the name of a data set"),
        ("../x=folder:/a", "cannot be the name of a data set"),
        ("a'b=folder:/a", "cannot be the name of a data set"),
        (f"{'x' * 41}=folder:/a", "longer than 40"),
        ("digits=folder:/a", "comes with the program"),
        ("pydocs=folder:/a", "comes with the program"),
        ("folder:/a\0b", "NUL"),
        ("pets=digits", "NAME=folder:PATH"),
    ],
)
def test_a_wrong_name_of_ones_own_is_refused_before_anything_is_read(
    source: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        find_source(source, "images")


def test_a_given_name_is_the_data_sets_and_stays_in_its_record(
    atelier_home: Path, image_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image_folder.parent)

    images = ingest_images.fn("pets=folder:pictures")
    corpus = ingest_text.fn(f"poems=file:{text_file}")

    assert images.name == "pets"
    assert images.source == f"pets=folder:{image_folder}"  # found again from everywhere
    assert corpus.name == short_name(corpus.source) == "poems"
    assert corpus.source == f"poems=file:{text_file}"
    assert Path(images.folder).parent.name == "pets"
    assert ingest_images.fn(images.source) == images
