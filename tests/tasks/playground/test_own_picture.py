"""A person's own file as a version takes it, whatever is in it."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.data.image_pixels import ON_WHITE, TURNED, decoded
from tasks.playground.own_picture import own_picture
from tasks.store.files import BadInput, home

pytestmark = pytest.mark.usefixtures("atelier_home")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def saved(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_it_is_cropped_and_resized_as_ingestion_does(kind: str, tmp_path: Path) -> None:
    content = saved(noise(40, 90, 3), kind)
    (tmp_path / "picture").write_bytes(content)

    found = own_picture(content, "holiday.of.2026", (3, 16, 16))

    wanted = decoded(tmp_path / "picture", 16).pixels
    assert found.pixels.dtype == np.uint8 and found.remarks == ()
    assert np.array_equal(found.pixels, wanted.transpose(2, 0, 1))


def test_a_version_of_another_shape_than_a_square_gets_its_own() -> None:
    pixels = noise(24, 24)
    found = own_picture(saved(pixels), "a.png", (1, 12, 8)).pixels
    wanted = pixels[:, 4:20].reshape(12, 2, 8, 2).mean((1, 3))
    assert found.shape == (1, 12, 8)
    assert np.abs(found[0] - wanted).max() <= 1


def test_colours_become_what_the_version_knows() -> None:
    coloured, grey = noise(8, 8, 3), noise(8, 8)
    luma = np.asarray(Image.fromarray(coloured).convert("L"))
    assert np.array_equal(own_picture(saved(coloured), "a.png", (1, 8, 8)).pixels[0], luma)
    assert np.array_equal(own_picture(saved(grey), "a.png", (3, 8, 8)).pixels, [grey] * 3)


def test_what_was_done_to_it_is_told() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = own_picture(saved(noise(8, 8), exif=exif), "a.png", (1, 8, 8))
    clear = own_picture(saved(np.zeros((8, 8, 4), np.uint8)), "a.png", (1, 8, 8))
    assert turned.remarks == (TURNED,) and np.array_equal(turned.pixels[0], noise(8, 8)[::-1, ::-1])
    assert clear.remarks == (ON_WHITE,) and clear.pixels.min() == 255


def bomb(side: int) -> bytes:
    """A PNG of some hundred bytes whose header promises a picture of that side."""

    def chunk(name: bytes, content: bytes) -> bytes:
        summed = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + summed

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(bytes(1000))),
            chunk(b"IEND", b""),
        ]
    )


HOSTILE = {
    "an empty file": (b"", "a.png", "no picture of a known format: an empty file"),
    "text": (b"hello\nworld\n" * 99, "a.jpg", "no known format, whatever .jpg says"),
    "a page": (b"<svg onload='alert(1)'/>", "a.svg", "no picture of a known format"),
    "a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a.eps", "no picture of a known format"),
    "half a picture": (saved(noise(64, 64, 3))[:4000], "a.png", "cannot be decoded: "),
    "half a photograph": (saved(noise(64, 64, 3), "JPEG")[:900], "a.jpg", "cannot be decoded: "),
    "a bomb": (bomb(30_000), "a.png", "decompression bomb"),
    "a small bomb": (bomb(10_000), "a.png", "decompression bomb"),
    "an archive": (b"PK\x03\x04" + bytes(99), "a.png", "an archive; unpack it"),
    "a raw file": (saved(noise(8, 8)), "a.DNG", "convert it to JPEG or PNG"),
    "a name of paths": (b"", "../../etc/passwd\0/x.\npng", "an empty file"),
    "a long name": (b"", "a." + "p" * 5000, "an empty file"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_sound_picture_is_refused_in_one_line(what: str) -> None:
    content, name, reason = HOSTILE[what]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadInput) as refused:
            own_picture(content, name, (1, 8, 8))

    told = str(refused.value)
    assert reason in told and told.isprintable() and len(told) < 300
    assert str(home()) not in told
    assert list(home().iterdir()) == []  # nothing of it stays
