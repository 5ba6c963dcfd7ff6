"""What the folders of a person's pictures mean."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.data.image_layout import layout_of, part_named
from tasks.data.ingestion import ImageSet, ingest_images
from tasks.data.splits import load_images
from tasks.store.files import BadInput


def draw(folder: Path, number: int, seed: int = 0) -> None:
    """Different 8x8 pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, len(str(folder))])
    for index in range(number):
        pixels = random.integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")


def drawn(root: Path, **numbers: int) -> Path:
    """Pictures in folders whose names are written with __ for a slash."""
    for seed, (name, number) in enumerate(numbers.items()):
        draw(root / name.replace("__", "/"), number, seed)
    return root


def split_of(images: ImageSet, name: str) -> set[str]:
    manifest = pd.read_parquet(Path(images.folder) / "manifest.parquet")
    return set(manifest[manifest["id"].str.contains(name, regex=False)]["split"])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "training_set", "trainset")),
        *((name, "validation") for name in ("val", "valid", "dev", "Validation", "val-images")),
        *((name, "test") for name in ("test", "testing", "TestSet", "test data", "seg_test")),
        *((name, None) for name in ("cat", "trains", "contest", "train_station", "test1x", "set")),
    ],
)
def test_parts_are_known_by_their_names(name: str, part: str | None) -> None:
    assert part_named(name) == part


@pytest.mark.parametrize("above", ["", "images__"])
@pytest.mark.usefixtures("atelier_home")
def test_the_authors_three_parts_are_used(tmp_path: Path, above: str) -> None:
    sizes = {"train__cat": 40, "train__dog": 50, "TEST__cat": 10, "TEST__dog": 11}
    sizes |= {"val__cat": 9, "val__dog": 12}
    root = drawn(tmp_path / "root", **{above + name: size for name, size in sizes.items()})

    images = ingest_images.fn(f"folder:{root}")

    assert images.class_names == ("cat", "dog")
    assert (images.num_train, images.num_validation, images.num_test) == (90, 21, 21)
    assert split_of(images, "TEST/") == {"test"}
    assert split_of(images, "val/") == {"validation"}
    assert np.bincount(load_images(images, "test")[1]).tolist() == [10, 11]
    assert images.notes == ("the author's split is used: TEST/, train/, val/",)


@pytest.mark.usefixtures("atelier_home")
def test_without_a_validation_part_it_is_cut_from_the_training(tmp_path: Path) -> None:
    root = drawn(tmp_path / "r", train__a=50, train__b=50, test__a=10, test__b=10)

    images = ingest_images.fn(f"folder:{root}")

    assert (images.num_train, images.num_validation, images.num_test) == (90, 10, 20)
    assert split_of(images, "test/") == {"test"}
    assert "validation is cut from the training part" in images.notes[0]


@pytest.mark.usefixtures("atelier_home")
def test_a_validation_part_alone_is_the_test(tmp_path: Path) -> None:
    root = drawn(tmp_path / "r", train__a=50, train__b=50, val__a=10, val__b=10)

    images = ingest_images.fn(f"folder:{root}")

    assert split_of(images, "val/") == {"test"}
    assert "its validation part is the test" in images.notes[0]


@pytest.mark.usefixtures("atelier_home")
def test_parts_may_lie_below_the_classes(tmp_path: Path) -> None:
    root = drawn(tmp_path / "r", a__train=60, a__test=10, b__train=50, b__test=12)

    images = ingest_images.fn(f"folder:{root}")

    assert images.class_names == ("a", "b")
    assert images.num_test == 22


@pytest.mark.usefixtures("atelier_home")
def test_a_training_part_alone_is_cut(tmp_path: Path) -> None:
    images = ingest_images.fn(f"folder:{drawn(tmp_path / 'r', train__a=60, train__b=60)}")

    assert images.class_names == ("a", "b")
    assert images.num_test == 18
    assert images.notes == ("held-out parts are cut from train/",)


@pytest.mark.usefixtures("atelier_home")
@pytest.mark.parametrize("others", [("test", "bill"), ("train", "bus"), ("train", "test", "bus")])
def test_a_class_that_is_named_like_a_part_is_a_class(
    tmp_path: Path, others: tuple[str, ...]
) -> None:
    root = drawn(tmp_path / "r", **dict.fromkeys(others, 60))

    images = ingest_images.fn(f"folder:{root}")

    assert images.class_names == tuple(sorted(others))
    assert images.notes == ()


@pytest.mark.usefixtures("atelier_home")
def test_what_lies_beside_the_authors_split_is_left_out_and_told(tmp_path: Path) -> None:
    sizes = {"seg_train__a": 50, "seg_train__b": 50, "seg_test__a": 10, "seg_test__b": 10}
    root = drawn(tmp_path / "r", **sizes, seg_pred=7)
    Image.new("RGB", (640, 480)).save(root / "cover.jpg")

    images = ingest_images.fn(f"folder:{root}")

    assert images.class_names == ("a", "b")
    assert split_of(images, "seg_pred/") == split_of(images, "cover.jpg") == {"quarantined"}
    assert images.set_aside == "8 beside the author's split"


@pytest.mark.usefixtures("atelier_home")
def test_a_test_part_without_classes_is_left_out(tmp_path: Path) -> None:
    root = drawn(tmp_path / "r", train__a=60, train__b=60, test=30)

    images = ingest_images.fn(f"folder:{root}")

    assert images.class_names == ("a", "b")
    assert images.set_aside == "30 without a class"
    assert images.notes == (
        "held-out parts are cut from train/",
        "the 30 pictures of the test part have no class: left out",
    )


@pytest.mark.usefixtures("atelier_home")
def test_classes_that_only_the_test_has_are_refused_with_advice(tmp_path: Path) -> None:
    root = drawn(tmp_path / "r", train__cat=60, train__dog=60, test__Cat=10, test__dog=10)

    with pytest.raises(BadInput, match=r"test part has 1 classes.*Cat.*cat, dog: name the class"):
        ingest_images.fn(f"folder:{root}")


@pytest.mark.usefixtures("atelier_home")
def test_classes_that_the_test_lacks_are_told(tmp_path: Path) -> None:
    root = drawn(tmp_path / "r", train__a=50, train__b=50, train__c=50, test__a=10, test__b=10)

    images = ingest_images.fn(f"folder:{root}")

    assert "the test part has no pictures of c" in images.notes


@pytest.mark.usefixtures("atelier_home")
def test_held_out_parts_without_a_training_part_are_refused(tmp_path: Path) -> None:
    root = drawn(tmp_path / "r", val__a=60, val__b=60, test__a=60, test__b=60)

    with pytest.raises(BadInput, match=r"holds test/ and val/, and no train/; give the folder"):
        ingest_images.fn(f"folder:{root}")


@pytest.mark.usefixtures("atelier_home")
def test_a_test_part_of_three_pictures_is_refused(tmp_path: Path) -> None:
    root = drawn(tmp_path / "r", train__a=60, train__b=60, test__a=2, test__b=1)

    with pytest.raises(BadInput, match="test part has 3 images; wanted at least 8"):
        ingest_images.fn(f"folder:{root}")


@pytest.mark.usefixtures("atelier_home")
@pytest.mark.parametrize("folder", ["", "all__"])
def test_a_folder_without_classes_has_labels_of_minus_one(tmp_path: Path, folder: str) -> None:
    root = tmp_path / "r"
    draw(root / folder.replace("__", "/"), 120)

    images = ingest_images.fn(f"folder:{root}")

    assert images.class_names == ()
    assert (images.num_train, images.num_validation, images.num_test) == (84, 18, 18)
    for split in ("train", "validation", "test"):
        _, labels = load_images(images, split)
        assert labels.dtype == np.int64
        assert set(labels.tolist()) == {-1}
    assert "trained without labels" in images.notes[0]


@pytest.mark.usefixtures("atelier_home")
def test_a_split_without_classes_is_used_too(tmp_path: Path) -> None:
    images = ingest_images.fn(f"folder:{drawn(tmp_path / 'r', train=110, test=20)}")

    assert images.class_names == ()
    assert images.num_test == 20
    assert images.notes == (
        "the author's split is used: test/, train/; validation is cut from the training part",
        "no class folders: trained without labels",
    )


@pytest.mark.usefixtures("atelier_home")
def test_too_few_pictures_without_labels_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "r", 40)

    with pytest.raises(BadInput, match="has 40 different images; wanted at least 100"):
        ingest_images.fn(f"folder:{tmp_path / 'r'}")


@pytest.mark.usefixtures("atelier_home")
def test_pictures_beside_class_folders_have_no_class_and_are_left_out(image_folder: Path) -> None:
    draw(image_folder, 3)
    Image.new("RGB", (640, 480)).save(image_folder / "cover.jpg")

    images = ingest_images.fn(f"folder:{image_folder}")

    assert images.class_names == ("left", "right")
    assert images.channels == 1
    assert images.set_aside == "4 beside the class folders"
    assert images.notes == ("4 pictures lie beside the 2 class folders and are left out",)


def test_a_part_that_says_its_name_twice_is_one() -> None:
    train, test = ("seg_train", "seg_train"), ("seg_test", "seg_test")
    pictures = [(*part, name) for part in (train, test) for name in ("sea", "street")]

    layout = layout_of("r", [*pictures, ("seg_pred", "seg_pred")])

    assert layout.class_names == ("sea", "street")
    assert layout.parts is not None
    assert layout.parts[:4] == ["train", "train", "test", "test"]
    assert layout.left_out == {4: "beside the author's split"}


def test_a_class_without_parts_is_not_lost_beside_one_that_has_them() -> None:
    layout = layout_of("r", [("cat",), ("dog", "train"), ("dog", "test")])

    assert layout.class_names == ("cat", "dog/test", "dog/train")
    assert layout.left_out == {}


def test_a_stray_picture_changes_no_class() -> None:
    split = [("data", part, name) for part in ("train", "test") for name in ("a", "b")]

    assert layout_of("r", [*split, ()]).class_names == ("a", "b")
    assert layout_of("r", [("data", "a"), ("data", "b"), ()]).class_names == ("a", "b")


def test_a_vehicle_called_train_stays_a_class_within_a_split() -> None:
    pictures = [(part, name) for part in ("train", "test") for name in ("train", "bus")]

    layout = layout_of("r", pictures)

    assert layout.class_names == ("bus", "train")
    assert layout.parts == ["train", "train", "test", "test"]


def test_names_that_look_equal_are_equal() -> None:
    layout = layout_of(
        "r",
        [("train", "café"), ("train", "b"), ("test", "cafe\u0301"), ("test", "b")],
    )

    assert layout.class_names == ("b", "café")
    assert layout.labels == [1, 0, 1, 0]


def test_one_folder_beside_loose_pictures_is_no_class() -> None:
    layout = layout_of("r", [()] * 5 + [("more",)] * 5)

    assert layout.class_names == ()
    assert layout.left_out == {}


def test_folders_within_a_class_are_classes_of_their_own() -> None:
    layout = layout_of("r", [("cat", "old"), ("cat", "young"), ("dog",)])

    assert layout.class_names == ("cat/old", "cat/young", "dog")
    assert layout.labels == [0, 1, 2]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *[("01_train", "02_test"), ("train1", "test1"), ("train2017", "val2017")],
        *[("Train 2", "TEST 2"), ("train", "hold-out"), ("1.training", "2.held_out")],
        *[("mnist_train", "mnist_test"), ("train-of-zoo", "test-of-zoo")],
    ],
)
def test_numbers_and_shared_words_beside_a_parts_name_change_nothing(train: str, test: str) -> None:
    pictures = [(part, name) for part in (train, test) for name in ("cat", "dog")]

    layout = layout_of("r", pictures)

    assert layout.class_names == ("cat", "dog")
    assert layout.parts == ["train", "train", "test", "test"]


@pytest.mark.parametrize(
    "names",
    [
        ("trainA", "trainB", "testA", "testB"),
        ("train_A", "train_B", "test_A", "test_B"),
        ("A_train", "B_train", "A_test", "B_test"),
        ("A-TRAIN", "B-TRAIN", "A-Val", "B-Val"),
    ],
)
def test_a_folder_may_name_part_and_class_in_one(names: tuple[str, ...]) -> None:
    layout = layout_of("r", [("data", name) for name in names])

    assert layout.class_names == ("A", "B")
    assert layout.labels == [0, 1, 0, 1]
    assert layout.parts == ["train", "train", "test", "test"]
    assert f"names like {names[0]}/ are read as train/A/" in layout.notes


@pytest.mark.parametrize(
    "names",
    [
        ("train_station", "test_tube"),
        ("trainA", "trainB", "testA"),
        ("trainA", "trainB", "testA", "testB", "extra"),
        ("trainer", "tester"),
        ("trains", "tests"),
    ],
)
def test_names_that_only_begin_like_parts_are_classes(names: tuple[str, ...]) -> None:
    layout = layout_of("r", [(name,) for name in names])

    assert layout.class_names == tuple(sorted(names))
    assert layout.parts is None


def test_a_part_by_an_unknown_name_is_refused_with_advice() -> None:
    """A split that was not recognised would make classes of training and test pictures."""
    pictures = [(part, name) for part in ("entrenamiento", "test") for name in ("cat", "dog")]

    with pytest.raises(BadInput, match=r"by the name entrenamiento/; wanted train/ beside test/"):
        layout_of("r", pictures)


def test_a_vehicle_called_train_is_a_class_among_vehicles_by_colour() -> None:
    pictures = [(name, colour) for name in ("bus", "car", "train") for colour in ("blue", "red")]

    assert len(layout_of("r", pictures).class_names) == 6


def test_classes_that_differ_in_case_only_are_told() -> None:
    layout = layout_of("r", [("Cat",), ("cat",), ("dog",)])

    assert layout.class_names == ("Cat", "cat", "dog")
    assert layout.notes == (
        "Cat and cat are classes of their own, though only case tells them apart",
    )
