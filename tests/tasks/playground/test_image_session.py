"""What an image model answers to a page, read back from its PNG files."""

import base64
import io
import math
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.families.table import FAMILIES
from tasks.playground.image_session import (
    PLANE_REACH,
    PLANE_SIDE,
    DrawRequest,
    ImageSession,
    PointRequest,
    WayRequest,
)
from tasks.store.files import BadInput
from tests.tasks.samples.untrained import CLASSES, IMAGES, untrained


def pixels(content: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def training_of(model: Any) -> np.ndarray:
    size = model.config["height"], model.config["width"]
    return np.random.default_rng(0).integers(0, 256, (30, 1, *size), dtype=np.uint8)


def session(family: str, folder: Path) -> tuple[Any, ImageSession]:
    model = untrained(family, folder)
    training = training_of(model)
    model.examples = torch.from_numpy(training[:4] // 2)
    latents = resolve_name(FAMILIES[family].latents)(model.model)
    return model, ImageSession(model, latents=latents, training=training)


@pytest.mark.parametrize("family", IMAGES)
def test_samples_are_those_that_a_version_draws(family: str, tmp_path: Path) -> None:
    model, asked = session(family, tmp_path)

    found = asked.draw(DrawRequest(number=5, seed=4, temperature=0.8))["pictures"]

    wanted, training = model.draw_images(5, 4, 0.8), training_of(model)
    assert all(
        np.array_equal(pixels(f["picture"]), w[0]) for f, w in zip(found, wanted, strict=True)
    )
    for answer, picture in zip(found, wanted, strict=True):
        distances = np.sqrt((((training - picture.astype(float)) / 255) ** 2).sum((1, 2, 3)))
        assert answer["distance"] == pytest.approx(distances.min(), abs=1e-3)
        assert np.array_equal(pixels(answer["nearest"]), training[distances.argmin(), 0])


@pytest.mark.parametrize("family", IMAGES)
@pytest.mark.parametrize("label", [-1, 2])
def test_a_walk_begins_with_the_very_sample(family: str, label: int, tmp_path: Path) -> None:
    model, asked = session(family, tmp_path)
    label = -1 if family == "vae" else label
    start = DrawRequest(number=5, seed=4, temperature=0.8, label=label)

    at = asked.point(PointRequest(start=start, sample=3, label=label))

    wanted = model.draw_images(5, 4, 0.8, label)[3, 0].astype(int)
    assert np.abs(pixels(at["picture"]).astype(int) - wanted).max() <= 1
    assert at["label"] == (0 if family == "vae" else 0 if label < 0 else label)


def test_coordinates_move_a_point_and_the_plane_shows_it(tmp_path: Path) -> None:
    model, asked = session("vae", tmp_path)
    side = model.config["height"]
    step = 2 * PLANE_REACH / (PLANE_SIDE - 1)
    request = PointRequest(coordinates=(step, -2 * step, 0.5))

    at = asked.point(request)
    sheet = pixels(asked.plane(request)["picture"])

    assert at["coordinates"][:3] == [step, -2 * step, 0.5]
    assert sheet.shape == (PLANE_SIDE * side, PLANE_SIDE * side)
    middle = PLANE_SIDE // 2
    row, column = middle + 2, middle + 1  # up is more of the second axis
    cell = sheet[row * side : (row + 1) * side, column * side : (column + 1) * side].astype(int)
    assert np.abs(cell - pixels(at["picture"])).max() <= 1
    corners = sheet.reshape(PLANE_SIDE, side, PLANE_SIDE, side)[:, 0, :, 0]
    assert len(np.unique(corners)) > 1


def test_the_way_between_two_pictures_has_their_reconstructions_at_its_ends(tmp_path: Path) -> None:
    model, asked = session("vae", tmp_path)
    held_out = model.examples.numpy()

    way = asked.between(1, 3)["pictures"]

    assert len(way) == 9
    assert np.array_equal(pixels(way[0]["picture"]), model.reconstruct(held_out[1:2])[0, 0])
    assert np.array_equal(pixels(way[-1]["picture"]), model.reconstruct(held_out[3:4])[0, 0])
    wanted = model.interpolate(held_out[1], held_out[3], 9)[4, 0]
    assert np.array_equal(pixels(way[4]["picture"]), wanted)
    assert [pixels(each).tolist() for each in asked.examples()["pictures"]] == [
        each[0].tolist() for each in held_out
    ]


@pytest.mark.parametrize("family", ["gan", "diffusion"])
@pytest.mark.parametrize("label", [-1, 2])
def test_the_way_between_two_seeds_begins_and_ends_with_their_first_samples(
    family: str, label: int, tmp_path: Path
) -> None:
    model, asked = session(family, tmp_path)
    start = DrawRequest(number=5, seed=9, temperature=0.8, label=label)

    way = asked.between_seeds(WayRequest(start=start, from_seed=4, to_seed=6))["pictures"]

    assert len(way) == 9 and "nearest" in way[4]
    for answer, seed in ((way[0], 4), (way[-1], 6)):
        wanted = model.draw_images(5, seed, 0.8, label)[0, 0].astype(int)
        assert np.abs(pixels(answer["picture"]).astype(int) - wanted).max() <= 1
    assert not np.array_equal(pixels(way[0]["picture"]), pixels(way[-1]["picture"]))


def as_file(picture: np.ndarray, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, kind)
    return content.getvalue()


@pytest.mark.usefixtures("atelier_home")
def test_an_own_picture_stands_beside_its_reconstruction_and_its_nearest(tmp_path: Path) -> None:
    model, asked = session("vae", tmp_path)
    mine = training_of(model)[17, 0] ^ 1

    found = asked.own(as_file(mine), "mine.png")

    again = model.reconstruct(mine[None, None])[0, 0]
    assert np.array_equal(pixels(found["picture"]), mine)
    assert np.array_equal(pixels(found["reconstruction"]), again)
    assert np.array_equal(pixels(found["nearest"]), training_of(model)[17, 0])
    assert found["distance"] == pytest.approx(math.sqrt(mine.size) / 255, abs=1e-3)
    error = np.sqrt((((again - mine.astype(float)) / 255) ** 2).sum())
    assert found["error"] == pytest.approx(error, abs=1e-3)
    negative = asked.own(as_file(mine), "mine.png", is_negative=True)
    assert np.array_equal(pixels(negative["picture"]), 255 - mine)
    assert found["remarks"] == negative["remarks"] == []


@pytest.mark.usefixtures("atelier_home")
def test_without_an_encoder_an_own_picture_has_its_nearest_alone(tmp_path: Path) -> None:
    model, asked = session("gan", tmp_path)
    found = asked.own(as_file(training_of(model)[3, 0]), "mine.png")
    assert set(found) == {"remarks", "picture", "nearest", "distance"}
    assert found["distance"] == 0


def test_what_cannot_be_is_refused_in_words(tmp_path: Path) -> None:
    _, vae = session("vae", tmp_path / "vae")
    _, gan = session("gan", tmp_path / "gan")
    with pytest.raises(BadInput, match="held-out pictures are 0 to 3, got 0 and 4"):
        vae.between(0, 4)
    with pytest.raises(BadInput, match="no way from a picture to a point"):
        gan.between(0, 1)
    with pytest.raises(BadInput, match="samples are 0 to 15, got 16"):
        vae.point(PointRequest(sample=16))
    without = ImageSession(untrained("gan", tmp_path / "bare"))
    with pytest.raises(BadInput, match="no latent space"):
        without.axes()
    with pytest.raises(BadInput, match="no latent space to find a way in"):
        without.between_seeds(WayRequest())


def test_facts_tell_what_a_family_can_do(tmp_path: Path) -> None:
    _, vae = session("vae", tmp_path / "vae")
    _, gan = session("gan", tmp_path / "gan")
    bare = ImageSession(untrained("gan", tmp_path / "bare"))

    assert vae.facts()["can_encode"] and vae.facts()["classes"] == []
    assert gan.facts()["has_latents"] and not gan.facts()["can_encode"]
    assert gan.facts()["classes"] == CLASSES
    assert vae.axes() == {"number": 3, "size": 3}
    assert not bare.facts()["has_latents"] and bare.facts()["usual_distance"] is None
    assert set(bare.draw(DrawRequest(number=1))["pictures"][0]) == {"picture"}
