"""Pictures of every kind: what becomes of their pixels."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.data import image_pixels
from tasks.data.image_pixels import NotAPicture, decoded, size_of
from tasks.data.ingestion import ImageSet, ingest_images
from tasks.store.files import BadInput

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def stored(images: ImageSet, name: str) -> np.ndarray:
    """A picture's pixels (C, H, W) as they are in the data set."""
    folder = Path(images.folder)
    manifest = pd.read_parquet(folder / "manifest.parquet").set_index("id")
    pixels: np.ndarray = np.load(folder / "pixels.npy")[manifest.loc[name, "row"]]
    return pixels


def lost(images: ImageSet) -> dict[str, str]:
    manifest = pd.read_parquet(Path(images.folder) / "manifest.parquet").set_index("id")
    found: dict[str, str] = manifest["quarantine_reason"].dropna().to_dict()
    return found


def coloured(path: Path, seed: int = 0, **options: Any) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.mark.parametrize("name", ["picture", "picture.dat", "picture.txt", "picture.jpg"])
def test_a_picture_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    Image.fromarray(RAMP).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / name)

    assert size_of(tmp_path / name) == (8, 8)
    assert (decoded(tmp_path / name, None).pixels[:, :, 0] == RAMP).all()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC; convert it to JPEG or PNG"),
        ("a", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC; convert it"),
        ("a.png", b"", "an empty file"),
        ("a.png", b"not a picture", "no known format, whatever .png says"),
        ("a.txt", b"notes", "no known format"),
        ("a.nef", b"II*\0", "a camera's raw file; convert it"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "no known format"),
        ("a.csv", b"P5,1,2\n", "no known format"),
        ("a.zip", b"PK\x03\x04\x14\0", "an archive; unpack it"),
        ("a.tar.gz", b"\x1f\x8b\x08\0", "an archive; unpack it"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no known format"),
    ],
)
def test_what_is_no_picture_says_what_it_is(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises((NotAPicture, ValueError), match=reason):
        size_of(tmp_path / name)


@pytest.mark.usefixtures("atelier_home")
def test_each_file_that_is_no_picture_has_a_row(image_folder: Path) -> None:
    left = image_folder / "left"
    (left / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (left / "README").write_text("what this is")
    (left / "cut.png").write_bytes((left / "00.png").read_bytes()[:60])
    (left / "00.png").rename(left / "no-suffix")

    images = ingest_images.fn(f"folder:{image_folder}")

    assert images.num_train + images.num_validation + images.num_test == 120
    told = lost(images)
    assert told["left/a.heic"] == "no picture of a known format: HEIC; convert it to JPEG or PNG"
    assert told["left/README"].startswith("no picture of a known format: ")
    assert told["left/cut.png"].startswith("cannot be decoded: ")
    assert images.set_aside == "2 no picture of a known format, 1 cannot be decoded"


@pytest.mark.usefixtures("atelier_home")
def test_large_pictures_are_refused_before_any_is_decoded(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in image_folder.rglob("*.png"):
        path.unlink()
    for index in range(4):
        Image.new("RGB", (4000, 3000), (index, 0, 0)).save(image_folder / "left" / f"{index}.jpg")
    monkeypatch.setattr("tasks.data.image_folder.decoded", None)
    tracemalloc.start()

    with pytest.raises(BadInput, match=r"are 4000x3000; wanted sides of 8 to 64.*--image-size N"):
        ingest_images.fn(f"folder:{image_folder}")

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6  # one of them takes 36 MB


@pytest.mark.usefixtures("atelier_home")
def test_mixed_sizes_are_told_from_headers_with_at_most_two_decoded(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(20):
        size = (1000 + index, 800)
        Image.new("RGB", size, (index, 0, 0)).save(image_folder / "left" / f"large-{index}.jpg")
    calls = []

    def counting(path: Path, image_size: int | None) -> image_pixels.Picture:
        calls.append(path)
        return decoded(path, image_size)

    monkeypatch.setattr("tasks.data.image_folder.decoded", counting)

    with pytest.raises(
        BadInput, match=r"21 different sizes \(8x8, 10.*pass --image-size N, 8 to 6"
    ):
        ingest_images.fn(f"folder:{image_folder}")

    assert len(calls) == 2


@pytest.mark.usefixtures("atelier_home")
def test_a_damaged_file_of_another_size_does_not_refuse_the_others(image_folder: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30), dtype=np.uint8)).save(
        image_folder / "left" / "whole.png"
    )
    cut = (image_folder / "left" / "whole.png").read_bytes()[:300]
    (image_folder / "left" / "whole.png").write_bytes(cut)

    images = ingest_images.fn(f"folder:{image_folder}")

    assert (images.width, images.height) == (8, 8)
    assert list(lost(images)) == ["left/whole.png"]


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    Image.new("1", (12_000, 12_000)).save(tmp_path / "bomb.png")

    with pytest.raises(Exception, match="decompression bomb"):
        decoded(tmp_path / "bomb.png", 8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_brought_to_eight_by_their_full_range(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 32_768, 65_535]] * 4, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep{suffix}")

    picture = decoded(tmp_path / f"deep{suffix}", None)

    assert picture.pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert picture.remarks == ("of 16 or 32 bits, brought to 8",)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.4, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0, 65_535, 257]], np.int32), [0, 255, 1]),
    ],
)
def test_thirty_two_bits_are_brought_to_eight(
    tmp_path: Path, values: np.ndarray, wanted: list[int]
) -> None:
    Image.fromarray(values).save(tmp_path / "deep.tif")

    assert decoded(tmp_path / "deep.tif", None).pixels[0, :, 0].tolist() == wanted


@pytest.mark.parametrize(
    "values",
    [
        np.array([[-1.0, 0.5]], np.float32),
        np.array([[0.0, np.nan]], np.float32),
        np.array([[0.0, 300.0]], np.float32),
        np.array([[0, 70_000]], np.int32),
    ],
)
def test_values_of_an_unknown_range_are_refused_in_words(
    tmp_path: Path, values: np.ndarray
) -> None:
    Image.fromarray(values).save(tmp_path / "deep.tif")

    with pytest.raises(ValueError, match=r"values lie between .*; wanted 0 to .*convert it"):
        decoded(tmp_path / "deep.tif", None)


@pytest.mark.usefixtures("atelier_home")
def test_sixteen_bit_pictures_fit_among_others_and_are_told(image_folder: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(image_folder / "left" / "deep.png")

    images = ingest_images.fn(f"folder:{image_folder}")

    assert (stored(images, "left/deep.png")[0] == RAMP).all()
    assert images.notes == ("1 of 16 or 32 bits, brought to 8",)


@pytest.mark.usefixtures("atelier_home")
def test_a_grey_picture_stored_as_colour_does_not_make_the_set_coloured(
    image_folder: Path,
) -> None:
    grey = Image.fromarray(RAMP)
    grey.convert("RGB").save(image_folder / "left" / "rgb.png")
    grey.convert("RGBA").save(image_folder / "left" / "rgba.png")
    grey.convert("P").save(image_folder / "left" / "palette.png")
    grey.convert("RGB").save(image_folder / "left" / "rgb.jpg", quality=100)

    images = ingest_images.fn(f"folder:{image_folder}")

    assert images.channels == 1
    for name in ("rgb.png", "rgba.png", "palette.png"):
        assert (stored(images, f"left/{name}")[0] == RAMP).all()


@pytest.mark.usefixtures("atelier_home")
def test_one_coloured_picture_among_grey_ones_becomes_grey_and_is_told(
    image_folder: Path,
) -> None:
    coloured(image_folder / "left" / "colour.png")

    images = ingest_images.fn(f"folder:{image_folder}")

    assert images.channels == 1
    assert images.notes == ("1 of 121 pictures have colour: they became grey",)
    luma = np.asarray(Image.open(image_folder / "left" / "colour.png").convert("L"))
    assert (stored(images, "left/colour.png")[0] == luma).all()


@pytest.mark.usefixtures("atelier_home")
def test_a_tenth_of_coloured_pictures_makes_the_set_coloured(image_folder: Path) -> None:
    for index in range(14):
        coloured(image_folder / "left" / f"colour-{index}.png", index)

    images = ingest_images.fn(f"folder:{image_folder}")

    assert images.channels == 3
    assert images.notes == ("14 of 134 pictures have colour: the others are kept as colour too",)
    grey = stored(images, "right/00.png")
    assert (grey == grey[:1]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_a_grey_ramp_is_grey_in_every_mode(tmp_path: Path, mode: str) -> None:
    through = "L" if mode == "P" else "RGB"  # a palette made from colours is not quite grey
    Image.fromarray(RAMP).convert(through).convert(mode).save(tmp_path / "x.tif")

    assert decoded(tmp_path / "x.tif", None).pixels.shape == (8, 8, 1)


def test_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), shade) for shade in (10, 200)]
    for suffix in (".gif", ".png", ".webp", ".tif"):
        path = tmp_path / f"moving{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])

        picture = decoded(path, None)

        assert picture.remarks == ("of several frames, of which the first was taken",)
        assert abs(int(picture.pixels.mean()) - 10) < 3


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_orientation_is_applied_and_counts_for_sizes(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, :8] = 255
    Image.fromarray(pixels).save(tmp_path / f"x{suffix}", exif=exif)

    picture = decoded(tmp_path / f"x{suffix}", None)

    assert size_of(tmp_path / f"x{suffix}") == (8, 16)
    assert picture.pixels.shape == (16, 8, 1)
    assert picture.pixels[2, 4, 0] > 200
    assert picture.pixels[13, 4, 0] < 50
    assert picture.remarks == ("turned as its EXIF orientation says",)


@pytest.mark.usefixtures("atelier_home")
def test_a_folder_without_any_picture_says_what_one_of_its_files_is(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / ".hidden").write_text("x")
    (tmp_path / "own" / "all.zip").write_bytes(b"PK\x03\x04" + bytes(30))

    with pytest.raises(BadInput, match=r"all.zip: no picture of a known format: an archive; unpa"):
        ingest_images.fn(f"folder:{tmp_path / 'own'}")
