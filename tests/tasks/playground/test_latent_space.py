"""The latent spaces of all families that have one, and coordinates in units of sigma."""

import math
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from torch import Tensor

from tasks.families.table import FAMILIES
from tasks.playground.latent_space import EncodingLatents, LatentSpace, along_the_sphere
from tests.tasks.samples.untrained import CLASSES, untrained

WITH_LATENTS = [name for name, family in FAMILIES.items() if family.latents]


@pytest.mark.parametrize("family", WITH_LATENTS)
@pytest.mark.parametrize("label", [-1, 1])
def test_points_are_those_of_what_a_version_draws(family: str, label: int, tmp_path: Path) -> None:
    model = untrained(family, tmp_path)
    latents = resolve_name(FAMILIES[family].latents)(model.model)
    labels = torch.full((7,), label) if label >= 0 and family != "vae" else None

    points = latents.points(7, seed=3, temperature=0.7)

    assert points.shape[0] == 7 and points.dim() == 2
    drawn = model.draw(7, 3, 0.7, labels)
    assert torch.equal(latents.images(points, labels), drawn)


def test_of_the_families_the_vae_alone_can_encode(tmp_path: Path) -> None:
    encoding = {}
    for family in WITH_LATENTS:
        model = untrained(family, tmp_path / family)
        latents = resolve_name(FAMILIES[family].latents)(model.model)
        if isinstance(latents, EncodingLatents):
            encoding[family] = model, latents

    ((model, latents),) = encoding.values()
    pictures = torch.rand(2, 1, model.config["height"], model.config["width"])
    assert list(encoding) == ["vae"]
    assert torch.equal(latents.images(latents.codes(pictures)), model.model.reconstruct(pictures))


class Painted:
    """Points of four numbers with unequal spread; the third paints far more than the first."""

    deviations = torch.tensor([2.0, 1.0, 5.0, 0.5])
    middle = torch.tensor([1.0, 0.0, -3.0, 0.0])

    def points(self, number: int, seed: int, temperature: float = 1.0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        mixed = torch.randn(number, 4, generator=generator)
        return self.middle + mixed * self.deviations

    def images(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        unit = (points - self.middle) / self.deviations
        pictures = torch.zeros(len(points), 1, 2, 2)
        pictures[:, 0, 0, :] = 0.5 + 0.1 * unit[:, 2:3]
        pictures[:, 0, 1, 0] = 0.5 + 0.03 * unit[:, 0]
        if labels is not None:  # which would drown all else, were it not left out
            pictures[:, 0, 1, 1] = labels * 100.0
        return pictures


@pytest.mark.parametrize("num_classes", [0, 3, 256])
def test_the_first_axis_is_what_changes_the_pictures_most(num_classes: int) -> None:
    space = LatentSpace(Painted(), num_classes)

    ahead = space.points_at(torch.eye(4)[:2], torch.zeros(4))

    moved = (ahead - space.points_at(torch.zeros(1, 4), torch.zeros(4))) / Painted.deviations
    assert moved[0].tolist() == pytest.approx([0, 0, 1, 0], abs=0.15)  # and brighter, not darker
    assert moved[1].tolist() == pytest.approx([1, 0, 0, 0], abs=0.15)


@pytest.mark.parametrize("family", WITH_LATENTS)
def test_a_sample_has_coordinates_and_is_found_again(family: str, tmp_path: Path) -> None:
    model = untrained(family, tmp_path)
    latents = resolve_name(FAMILIES[family].latents)(model.model)
    space = LatentSpace(latents, len(CLASSES))
    point = latents.points(3, seed=1)[2]

    place = space.place_of(point)
    found = space.points_at(place.coordinates[None], place.rest)[0]

    assert torch.allclose(found, point, atol=1e-3)
    coordinates = torch.stack([space.place_of(each).coordinates for each in latents.points(400, 9)])
    assert coordinates.std(0).tolist() == pytest.approx([1.0] * coordinates.shape[1], rel=0.25)


def test_a_space_of_more_numbers_than_points_is_taken_as_independent() -> None:
    class Wide(Painted):
        def points(self, number: int, seed: int, temperature: float = 1.0) -> Tensor:
            return torch.randn(number, 1000, generator=torch.Generator().manual_seed(seed)) * 3

        def images(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
            return points[:, :4].view(-1, 1, 2, 2)

    space = LatentSpace(Wide())
    point = torch.full((1000,), 3.0)

    assert space.whitened(point[None])[0].mean() == pytest.approx(1.0, abs=0.05)
    place = space.place_of(point)
    assert torch.allclose(space.points_at(place.coordinates[None], place.rest)[0], point, atol=1e-3)


def test_a_way_along_the_sphere_turns_evenly_and_keeps_lengths() -> None:
    start, end = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])

    way = along_the_sphere(start, end, torch.linspace(0, 1, 5))

    assert torch.allclose(way[0], start) and torch.allclose(way[-1], end, atol=1e-6)
    assert torch.allclose(way.norm(dim=1), torch.full((5,), 2.0))
    turned = (way[:-1] * way[1:]).sum(1) / 4
    assert torch.allclose(turned, torch.full((4,), math.cos(math.pi / 8)))


def test_lengths_of_a_way_go_evenly_from_one_to_the_other() -> None:
    start, end = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    end = end / 3

    lengths = along_the_sphere(start, end, torch.linspace(0, 1, 9)).norm(dim=1)

    wanted = torch.linspace(float(start.norm()), float(end.norm()), 9)
    assert torch.allclose(lengths, wanted, rtol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 0.5, -1.0, 0.0])
def test_a_way_between_points_of_one_line_is_straight(factor: float) -> None:
    start = torch.tensor([1.0, -2.0, 0.5])
    shares = torch.linspace(0, 1, 3)

    way = along_the_sphere(start, factor * start, shares)

    assert torch.allclose(way, (1 - shares + factor * shares)[:, None] * start, atol=1e-6)
