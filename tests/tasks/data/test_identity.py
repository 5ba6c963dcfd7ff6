"""One registered model, one data set: what is the same one, and what is another."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.data import identity as data_identity
from tasks.data.identity import DataIdentity, change, difference, identity_by_digest, identity_of
from tasks.data.ingestion import Corpus, ImageSet, ingest_images, ingest_text
from tasks.store.records import DamagedRecord

pytestmark = pytest.mark.usefixtures("atelier_home")


WORDS = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]


def prose(seed: int, num_lines: int = 800) -> str:
    random = np.random.default_rng(seed)
    return "".join(" ".join(random.choice(WORDS, size=9)) + ".\n" for _ in range(num_lines))


def text_at(path: Path, content: str) -> Corpus:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return ingest_text.fn(f"file:{path}")


def pictures_at(folder: Path, seeds: range, size: int = 8, **given: int) -> ImageSet:
    """60 noisy pictures for each of two classes, in files of the same names for all seeds."""
    for number, seed in enumerate(seeds):
        pixels = np.random.default_rng(seed).integers(0, 255, (size, size), dtype=np.uint8)
        path = folder / ("left", "right")[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return ingest_images.fn(f"folder:{folder}", **given)


def test_two_texts_of_one_file_name_are_two_data_sets(tmp_path: Path) -> None:
    first = identity_of(text_at(tmp_path / "a" / "book.txt", prose(1)))
    second = text_at(tmp_path / "b" / "book.txt", prose(2))

    why = difference(first, second)

    assert str(tmp_path / "a" / "book.txt") in why
    assert f"of which file:{tmp_path / 'b' / 'book.txt'} holds" in why


def test_a_text_that_took_anothers_place_is_another_data_set(tmp_path: Path) -> None:
    first = identity_of(text_at(tmp_path / "book.txt", prose(1)))

    assert difference(first, text_at(tmp_path / "book.txt", prose(2)))


@pytest.mark.parametrize("place", ["book.txt", "moved/other.txt"])
def test_a_grown_or_corrected_text_is_the_same_data_set_wherever_it_lies(
    tmp_path: Path, place: str
) -> None:
    text = prose(1)
    first = identity_of(text_at(tmp_path / "book.txt", text))

    for later in (
        text + prose(2, 3000),
        prose(2, 300) + text,
        text.replace("the cat sees", "the owl sees"),
        text[: int(0.7 * len(text))],
        text.replace("\n", "\r\n"),
    ):
        assert difference(first, text_at(tmp_path / place, later)) == ""


def test_much_may_be_corrected_in_place_and_less_elsewhere(tmp_path: Path) -> None:
    text = prose(1)
    first = identity_of(text_at(tmp_path / "book.txt", text))
    halved = text[: int(0.35 * len(text))] + prose(2)

    assert difference(first, text_at(tmp_path / "book.txt", halved)) == ""
    assert difference(first, text_at(tmp_path / "elsewhere.txt", halved))


@pytest.mark.parametrize("line", ["Once upon a time.\n", "ab\n", "一二三四五六七\n"])
def test_a_text_that_repeats_itself_is_known_too(tmp_path: Path, line: str) -> None:
    text = line * 6000
    first = identity_of(text_at(tmp_path / "a.txt", text))

    assert difference(first, text_at(tmp_path / "there" / "a.txt", text + prose(1))) == ""
    assert difference(first, text_at(tmp_path / "a.txt", prose(1)))
    assert difference(first, text_at(tmp_path / "a.txt", "Another story altogether.\n" * 6000))


def test_how_a_text_changed_is_told(tmp_path: Path) -> None:
    text = prose(1)
    first = identity_of(text_at(tmp_path / "book.txt", text))

    grown = change(first, text_at(tmp_path / "book.txt", text + prose(2, 100)))
    halved = change(first, text_at(tmp_path / "book.txt", text[: len(text) // 2]))
    moved = change(first, text_at(tmp_path / "there.txt", text))

    assert grown.startswith(f"{len(text + prose(2, 100)):,} characters, {len(text):,} before; less")
    share = int(halved.partition("about ")[2].partition(" %")[0])
    assert 35 <= share <= 65
    assert moved == f"moved here from file:{tmp_path / 'book.txt'}"
    assert change(first, text_at(tmp_path / "book.txt", text)) == ""


def test_a_sample_tells_the_share_of_a_large_text_that_is_left(tmp_path: Path) -> None:
    text = prose(3, 12_000)  # half a megabyte, so that a sketch is a small sample of it
    first = identity_of(text_at(tmp_path / "book.txt", text))
    for kept in (0.2, 0.5, 0.8):
        later = text_at(tmp_path / "book.txt", text[: int(kept * len(text))] + prose(4, 4000))
        assert data_identity.share_kept(first, later) == pytest.approx(kept, abs=0.15)


def test_two_folders_of_one_name_and_equal_file_names_are_two_data_sets(tmp_path: Path) -> None:
    first = identity_of(pictures_at(tmp_path / "a" / "train", range(120)))

    why = difference(first, pictures_at(tmp_path / "b" / "train", range(500, 620)))

    assert why.endswith(f"of which folder:{tmp_path / 'b' / 'train'} holds nothing")


def test_pictures_that_took_others_place_and_names_are_another_data_set(tmp_path: Path) -> None:
    first = identity_of(pictures_at(tmp_path / "train", range(120)))

    assert difference(first, pictures_at(tmp_path / "train", range(500, 620)))


def test_a_grown_copy_of_a_folder_is_the_same_and_the_change_is_counted(tmp_path: Path) -> None:
    first = identity_of(pictures_at(tmp_path / "a", range(120)))
    copied = pictures_at(tmp_path / "b", range(3, 163))

    assert difference(first, copied) == ""
    told = change(first, copied)
    assert told.startswith("160 images, 120 before: 43 added, 3 removed; moved here from folder:")


def test_a_change_is_estimated_where_the_folder_before_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = identity_of(pictures_at(tmp_path / "a", range(120)))
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "another home"))

    told = change(first, pictures_at(tmp_path / "a", range(6, 130)))

    # fewer than a sketch holds: the estimate is exact
    assert told == "124 images, 120 before: about 10 added, about 6 removed"


def test_another_size_of_the_same_folder_is_the_same_data_set(tmp_path: Path) -> None:
    first = identity_of(pictures_at(tmp_path / "a", range(120), image_size=8))
    larger = ingest_images.fn(f"folder:{tmp_path / 'a'}", 16)

    assert difference(first, larger) == ""
    assert "8x8x1 before, 16x16x1 now" in change(first, larger)
    (tmp_path / "b").mkdir()
    elsewhere = pictures_at(tmp_path / "b" / "a", range(120), size=16)
    assert "and these are" in difference(first, elsewhere)


def test_a_known_data_set_is_known_by_its_name(image_folder: Path) -> None:
    digits = ingest_images.fn("digits")
    own = ingest_images.fn(f"folder:{image_folder}")
    known = identity_of(digits)
    older = DataIdentity(place="digits", digest="0" * 64, size=3, shape=(1, 9, 9))

    assert difference(older, digits) == ""
    assert difference(known, own)
    assert difference(identity_of(own), digits)


def test_an_identity_survives_its_tag(tmp_path: Path) -> None:
    for data in (
        text_at(tmp_path / "книга.txt", prose(1)),
        pictures_at(tmp_path / "a", range(120)),
    ):
        identity = identity_of(data, 7)
        assert DataIdentity.from_json(identity.to_json()) == identity
        assert len(identity.to_json()) < 5000  # what MLflow's older databases keep of a tag
        assert json.loads(identity.to_json())["version"] == 7
    for broken in ("", "{}", "[]", '{"shape": 3}', "[" * 9000):
        with pytest.raises(DamagedRecord):
            DataIdentity.from_json(broken)


@pytest.mark.parametrize(
    "change",
    [
        *({"size": value} for value in ("x", None, True, 1.5)),
        *({"shape": value} for value in ([1, "a", {}], [1, 2], "abc")),
        *(
            {"contents": value}
            for value in (5, "!!!", "YWJj", "\N{LATIN SMALL LETTER E WITH ACUTE}")
        ),
        *({"place": value} for value in (5, "", "a\0b", "B b=file:/x")),
        *({"digest": None}, {"version": "x"}, {"is_dense": 7}, {"file_names": []}),
    ],
    ids=str,
)
def test_an_identity_of_another_shape_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    record = json.loads(identity_of(text_at(tmp_path / "book.txt", prose(1))).to_json())

    with pytest.raises(DamagedRecord):
        DataIdentity.from_json(json.dumps({**record, **change}))

    assert DataIdentity.from_json(json.dumps({**record, "of a later program": 1}))


def test_data_of_an_older_record_are_known_while_this_home_keeps_them(tmp_path: Path) -> None:
    corpus = text_at(tmp_path / "book.txt", prose(1))
    place = f"file:{tmp_path / 'book.txt'}"

    assert identity_by_digest("text", place, corpus.digest, 2) == identity_of(corpus, 2)

    pictures = pictures_at(tmp_path / "a", range(120))
    folder = f"folder:{tmp_path / 'a'}"
    assert identity_by_digest("images", folder, pictures.digest, 1) == identity_of(pictures, 1)

    gone = identity_by_digest("text", place, "0" * 64, 2)
    other = text_at(tmp_path / "b" / "book.txt", prose(2))
    assert difference(gone, corpus) == ""
    assert difference(gone, other) == f"it was trained on {place}"
    (Path(corpus.folder) / "manifest.json").write_text('{"record": {"of": "another age"}}')
    unknown = identity_by_digest("text", place, corpus.digest, 2)
    assert (unknown.contents, unknown.digest) == ("", corpus.digest)
