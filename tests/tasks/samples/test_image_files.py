"""Pictures in files: as many as are asked for, of the class that is asked for, the same again."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.samples import image_files
from tasks.samples.image_files import ImageRequest, drawn, label_of, write_folder, write_sheet
from tasks.store.files import BadInput
from tests.tasks.samples.untrained import CLASSES, IMAGES, untrained

FACTS = {"model": "shapes-gan", "version": 3, "family": "gan", "digest": "abc"}


@pytest.mark.parametrize("family", IMAGES)
def test_files_hold_what_the_version_draws(family: str, tmp_path: Path) -> None:
    model = untrained(family, tmp_path / "version")
    request = ImageRequest(num_samples=5, seed=4, temperature=0.8)

    write_folder(model, request, tmp_path / "out", FACTS)

    expected = model.draw_images(5, 4, 0.8)[:, 0]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    found = [np.asarray(Image.open(tmp_path / "out" / f["file"])) for f in manifest["files"]]
    np.testing.assert_array_equal(np.stack(found), expected)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "manifest.json",
        *(f"0000{number}.png" for number in range(5)),
    }
    assert manifest.items() >= {**FACTS, "seed": 4, "temperature": 0.8, "number": 5}.items()
    assert manifest["settings"] == model.config
    in_turn = [0, 1, 2, 0, 1] if family != "vae" else [None] * 5
    assert [file["label"] for file in manifest["files"]] == in_turn
    names = [None if label is None else CLASSES[label] for label in in_turn]
    assert [file["class"] for file in manifest["files"]] == names


def test_one_class_is_drawn_by_its_name_or_its_index(tmp_path: Path) -> None:
    model = untrained("gan", tmp_path / "version")
    for label in ("dog", "1"):
        write_folder(model, ImageRequest(num_samples=3, label=label), tmp_path / label, FACTS)

    (by_name, by_index) = (
        {path.name: path.read_bytes() for path in (tmp_path / label).iterdir()}
        for label in ("dog", "1")
    )
    assert by_name == by_index
    manifest = json.loads(by_name["manifest.json"])
    assert manifest["label"] == 1
    assert {(file["label"], file["class"]) for file in manifest["files"]} == {(1, "dog")}
    first = np.asarray(Image.open(io.BytesIO(by_name["00000.png"])))
    np.testing.assert_array_equal(first, model.draw_images(3, 0, label=1)[0, 0])


@pytest.mark.parametrize("label", ["elf", "3", "-1", "1.0", "٣", "9" * 30])
def test_an_unknown_class_is_refused_with_the_known_ones(label: str, tmp_path: Path) -> None:
    model = untrained("gan", tmp_path / "version")

    with pytest.raises(BadInput, match="the classes cat, dog, bird, or indices from 0 to 2"):
        write_folder(model, ImageRequest(label=label), tmp_path / "out", FACTS)
    assert not (tmp_path / "out").exists()


def test_a_model_without_classes_takes_no_label(tmp_path: Path) -> None:
    model = untrained("vae", tmp_path / "version")

    with pytest.raises(BadInput, match="knows no classes, got label 'cat'"):
        label_of(model, "cat")


def test_a_class_whose_name_is_a_number_goes_before_an_index(tmp_path: Path) -> None:
    model = untrained("gan", tmp_path / "version")
    model.class_names = ["2", "0", "1"]

    assert [label_of(model, label) for label in "012"] == [1, 2, 0]


@pytest.mark.parametrize("family", IMAGES)
def test_large_numbers_are_drawn_in_parts(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "DRAWN_AT_ONCE", 6)
    model = untrained(family, tmp_path / "version")

    parts = list(drawn(model, ImageRequest(num_samples=15, seed=2)))
    again = list(drawn(model, ImageRequest(num_samples=15, seed=2)))

    assert [len(part.images) for part in parts] == [len(part.labels) for part in parts] == [6, 6, 3]
    images = np.concatenate([part.images for part in parts])
    np.testing.assert_array_equal(images, np.concatenate([part.images for part in again]))
    np.testing.assert_array_equal(images[:6], model.draw_images(6, 2))
    assert not (images[:3] == images[6:9]).all()  # a seed of its own
    if family != "vae":
        assert [label for part in parts for label in part.labels] == [0, 1, 2] * 5


def test_a_part_that_ends_within_a_turn_begins_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are told as the version draws them, which sees one part alone."""
    monkeypatch.setattr(image_files, "DRAWN_AT_ONCE", 4)
    model = untrained("gan", tmp_path / "version")

    parts = list(drawn(model, ImageRequest(num_samples=6)))

    assert [part.labels for part in parts] == [(0, 1, 2, 0), (0, 1)]
    (second,) = (part.images for part in parts[1:])
    asked = image_files.seed_at(0, 1, image_files._PARTS_STREAM) & image_files._LARGEST_SEED
    np.testing.assert_array_equal(second, model.draw_images(2, asked))


def test_a_sheet_holds_all_and_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    model, path = untrained("diffusion", tmp_path / "version"), tmp_path / "sheet.png"
    path.write_text("older")

    write_sheet(model, ImageRequest(num_samples=12), path)

    picture = np.asarray(Image.open(path))
    assert picture.shape == (2 * 48 + 2, 10 * 48 + 9 * 2)
    np.testing.assert_array_equal(picture[:48:6, :48:6], model.draw_images(12)[0, 0])


def test_a_sheet_of_too_many_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="10,000 pictures at most, got 10,001"):
        write_sheet(None, ImageRequest(num_samples=10_001), tmp_path / "sheet.png")


def test_a_failure_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "DRAWN_AT_ONCE", 2)
    model = untrained("gan", tmp_path / "version")
    draw_images, asked = model.draw_images, []

    def fail_at_the_third(*arguments: object) -> np.ndarray:
        asked.append(arguments)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return draw_images(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "draw_images", fail_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_folder(model, ImageRequest(num_samples=8), tmp_path / "out", FACTS)

    assert {path.name for path in tmp_path.iterdir()} == {"version"}
