import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.data.image_folder import RawImages
from tasks.data.ingestion import (
    ingest_images,
    ingest_text,
    short_name,
    split_images,
)
from tasks.data.sources import (
    OWN_SCHEMES,
    SOURCES,
    Kind,
    Unreachable,
    choices,
    download,
    find_source,
    form_pattern,
    read_text_file,
)
from tasks.data.splits import load_images, load_text
from tasks.data.text_spool import normalised_pieces
from tasks.store.files import BadInput, ChecksumMismatch, sha256_of
from tasks.store.steps import history

pytestmark = pytest.mark.usefixtures("atelier_home")


def files_below(folder: Path) -> dict[str, str]:
    return {str(path): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_digits_are_split_by_class_and_stored_in_split_order() -> None:
    images = ingest_images.fn("digits")

    assert (images.num_train, images.num_validation, images.num_test) == (1259, 269, 269)
    assert (images.channels, images.height, images.width) == (1, 8, 8)
    manifest = pd.read_parquet(Path(images.folder) / "manifest.parquet")
    pixels = np.load(Path(images.folder) / "pixels.npy", mmap_mode="r")
    assert pixels.dtype == np.uint8
    assert list(manifest.columns) == [
        *["id", "label", "split", "sha256", "width", "height", "source"],
        *["quarantine_reason", "duplicate_of", "row"],
    ]
    test_pixels, test_labels = load_images(images, "test")
    test_rows = manifest[manifest["split"] == "test"].sort_values("row")
    assert test_labels.tolist() == test_rows["label"].tolist()
    assert (pixels[test_rows["row"].to_numpy()] == test_pixels).all()
    assert np.bincount(test_labels).tolist() == [27] * 8 + [26, 27]


def test_ingesting_twice_writes_nothing_new(atelier_home: Path) -> None:
    first = ingest_images.fn("digits")
    before = files_below(atelier_home / "artifacts")

    assert ingest_images.fn("digits") == first
    assert files_below(atelier_home / "artifacts") == before
    assert [record.state for record in history("digits-images")] == ["made", "unchanged"]


def test_a_damaged_store_is_written_again() -> None:
    images = ingest_images.fn("digits")
    pixels = Path(images.folder) / "pixels.npy"
    good = sha256_of(pixels)
    damaged = bytearray(pixels.read_bytes())
    damaged[500] ^= 1
    pixels.write_bytes(damaged)

    ingest_images.fn("digits")

    assert sha256_of(pixels) == good
    (_, again) = history("digits-images")
    assert again.state == "made"
    assert "pixels.npy" in again.reasons[0]


def test_equal_images_share_a_split_and_are_reported(image_folder: Path) -> None:
    copies = [(f"left/{i:02d}.png", f"left/copy-{i:02d}.png") for i in range(30)]
    for original, copy in copies:
        (image_folder / copy).write_bytes((image_folder / original).read_bytes())

    images = ingest_images.fn(f"folder:{image_folder}")

    manifest = pd.read_parquet(Path(images.folder) / "manifest.parquet").set_index("id")
    assert images.num_duplicates == 30
    assert images.num_leaked == 0
    for original, copy in copies:
        assert manifest.loc[copy, "duplicate_of"] == original
        assert manifest.loc[copy, "split"] == manifest.loc[original, "split"]


def test_duplicates_across_an_official_split_are_counted() -> None:
    labels = np.zeros(20, dtype=np.int64)
    hashes = [str(index) for index in range(19)] + ["0"]
    official = np.arange(20) >= 15

    splits = split_images(labels, hashes, official)

    assert (splits[official] == "test").all()
    assert splits[0] in ("train", "validation")  # its copy in the test part stays there
    assert set(splits[:15]) == {"train", "validation"}


def test_a_split_does_not_depend_on_the_order_of_files() -> None:
    labels = np.arange(200) % 2
    hashes = [f"{index * 7919 % 200:03d}" for index in range(200)]

    forward = dict(zip(hashes, split_images(labels, hashes), strict=True))
    backward = dict(zip(hashes[::-1], split_images(labels[::-1], hashes[::-1]), strict=True))

    assert forward == backward


def test_an_unreadable_image_is_quarantined_with_the_reason(image_folder: Path) -> None:
    whole = (image_folder / "left" / "00.png").read_bytes()
    (image_folder / "left" / "broken.png").write_bytes(whole[:40])
    (image_folder / "left" / "text.png").write_text("not a picture")

    images = ingest_images.fn(f"folder:{image_folder}")

    manifest = pd.read_parquet(Path(images.folder) / "manifest.parquet").set_index("id")
    lost = manifest[manifest["split"] == "quarantined"]
    assert images.num_quarantined == 2
    assert sorted(lost.index) == ["left/broken.png", "left/text.png"]
    assert lost["quarantine_reason"].str.len().min() > 5
    assert (lost["row"] == -1).all()
    assert images.num_train + images.num_validation + images.num_test == 120


def test_transparency_is_laid_on_white_and_colour_counts_by_content(image_folder: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(image_folder / "left" / "clear.png")

    images = ingest_images.fn(f"folder:{image_folder}")

    manifest = pd.read_parquet(Path(images.folder) / "manifest.parquet").set_index("id")
    pixels = np.load(Path(images.folder) / "pixels.npy")
    assert images.channels == 1  # nothing of the red is left
    assert (pixels[manifest.loc["left/clear.png", "row"]] == 255).all()
    assert images.notes == ("1 with transparency, laid on white",)


def test_resizing_is_explicit(image_folder: Path) -> None:
    Image.new("L", (20, 10)).save(image_folder / "left" / "wide.png")

    with pytest.raises(BadInput, match=r"2 different sizes \(8x8, 20x10.*--image-size"):
        ingest_images.fn(f"folder:{image_folder}")

    images = ingest_images.fn(f"folder:{image_folder}", image_size=16)
    assert (images.height, images.width) == (16, 16)


def test_one_class_that_can_be_read_is_refused(image_folder: Path) -> None:
    for path in (image_folder / "left").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    random = np.random.default_rng(3)
    for index in range(60):
        pixels = random.integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(image_folder / "right" / f"more-{index}.png")

    with pytest.raises(BadInput, match=r"one class \('right'\).*at least two"):
        ingest_images.fn(f"folder:{image_folder}")


def test_three_images_are_refused_and_nothing_is_left(tmp_path: Path, atelier_home: Path) -> None:
    for index, label in enumerate(("a", "b", "b")):
        (tmp_path / "few" / label).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), index).save(tmp_path / "few" / label / f"{index}.png")

    with pytest.raises(BadInput, match="has 3 different images"):
        ingest_images.fn(f"folder:{tmp_path / 'few'}")

    assert not atelier_home.exists() or files_below(atelier_home) == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit", "not a known source of images; choose one of: digits, mnist"),
        ("pydocs", "not a source of images"),
        ("folder:/nowhere/at/all", "is not a folder"),
        ("file:x.png", "use folder:PATH"),
    ],
)
def test_a_wrong_image_source_names_the_right_ones(source: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        find_source(source, "images")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no images"):
        ingest_images.fn(f"folder:{tmp_path}")


def test_a_size_is_refused_for_a_named_source_and_out_of_range(image_folder: Path) -> None:
    with pytest.raises(BadInput, match="only applies to folder"):
        find_source("digits", "images", image_size=16)
    with pytest.raises(BadInput, match="between 8 and 64, got 4"):
        find_source(f"folder:{image_folder}", "images", image_size=4)


def test_truncated_mnist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 9]))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 9]))
    monkeypatch.setenv("ATELIER_DATA", str(tmp_path))

    with pytest.raises(ChecksumMismatch, match="delete"):
        ingest_images.fn("mnist")


def test_a_download_is_the_right_file_or_nothing(tmp_path: Path) -> None:
    remote, local = tmp_path / "remote", tmp_path / "local" / "input.txt"
    remote.write_bytes(b"abc")
    digest = sha256_of(remote)

    with pytest.raises(ChecksumMismatch, match="received 3 bytes"):
        download(remote.as_uri(), "0" * 64, local)
    with pytest.raises(Unreachable, match="set ATELIER_DATA"):
        download((tmp_path / "gone").as_uri(), digest, local)
    assert not local.exists()

    download(remote.as_uri(), digest, local)
    assert local.read_bytes() == b"abc"


def test_a_text_is_cut_where_nanogpt_cuts(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x" * 1_115_393 + "\n")

    corpus = ingest_text.fn(f"file:{tmp_path / 'x.txt'}")

    assert len(load_text(corpus, "test")) == 111_540
    assert len(load_text(corpus, "train")) + len(load_text(corpus, "validation")) == 1_003_854


def test_a_text_is_normalised_and_put_together_again(text_file: Path) -> None:
    text_file.write_bytes(b"\xef\xbb\xbf" + text_file.read_bytes().replace(b"\n", b"\r\n").strip())

    corpus = ingest_text.fn(f"file:{text_file}")

    whole = "".join(load_text(corpus, split) for split in ("validation", "train", "test"))
    assert whole == text_file.read_text(encoding="utf-8-sig") + "\n"  # reads line ends as \n
    assert whole.endswith(".\n")
    assert corpus.num_characters == len(whole)
    assert corpus.bytes_test == len(load_text(corpus, "test"))


def test_normalising_is_idempotent() -> None:
    once = "".join(normalised_pieces(["a\r\nb\rc"]))

    assert once == "a\nb\nc\n"
    assert "".join(normalised_pieces([once])) == once


def test_held_out_lines_that_stand_in_the_training_text_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "again.txt"
    path.write_text("the very same line of thirty-three\n" * 400)

    corpus = ingest_text.fn(f"file:{path}")

    assert corpus.leaked_lines_fraction > 0.9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 characters in 0 lines"),
        (b"one long line", "has 14 characters in 1 lines; wanted at least 10000"),
        (b"\x00\x01\x02" * 9000, "binary"),
        (b"caf\xe9\n" * 9000, "byte 3 is 0xe9"),
    ],
    ids=["empty", "short", "binary", "latin-1"],
)
def test_a_bad_text_is_refused(
    tmp_path: Path, atelier_home: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)

    with pytest.raises(BadInput, match=message):
        ingest_text.fn(f"file:{path}")

    assert not atelier_home.exists() or files_below(atelier_home) == {}


def test_utf_16_with_a_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "wide.txt"
    path.write_text("naïve, ☃", encoding="utf-16")

    assert read_text_file(path) == "naïve, ☃"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("digits", "digits"),
        ("folder:/a/My Pictures", "my-pictures"),
        ("folder:/a/set.2024", "set-2024"),
        ("folder:/a/digits", "own-digits"),
        ("file:/b/É t.txt", "é-t"),
        ("file:/b/书1.txt", "书1"),
        ("file:/b/文1.txt", "文1"),
    ],
)
def test_short_names_suit_the_registry(source: str, name: str) -> None:
    assert short_name(source) == name


def test_raw_images_are_what_sources_promise() -> None:
    source = find_source("digits", "images")
    assert source.read_images is not None

    raw = source.read_images()

    assert isinstance(raw, RawImages)
    assert raw.pixels.shape == (1797, 1, 8, 8)
    assert raw.pixels.max() == 255
    assert len(raw.ids) == len(set(raw.ids)) == 1797


@pytest.mark.parametrize("kind", ["images", "text"])
def test_all_that_may_be_chosen_is_told_and_matches_the_form(kind: Kind) -> None:
    pattern = re.compile(form_pattern(kind))
    for name, source in SOURCES.items():
        assert bool(pattern.search(name)) is (source.kind == kind)
        assert (f"{name}," in choices(kind)) is (source.kind == kind)
    for scheme in ("file", "folder"):
        for address in (f"{scheme}:/a b\n", f"pets={scheme}:/a"):
            assert bool(pattern.search(address)) is (scheme in OWN_SCHEMES[kind])
    for wrong in ("", "digit", "digits ", "folder:", "a=b=folder:/a", "=folder:/a", "xfolder:/a"):
        assert not pattern.search(wrong)
