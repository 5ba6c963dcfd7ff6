"""What a page asks of an image model: samples, points of its latent space, and the ways between.

Used in the process that holds the version (`tasks/playground/version_worker.py`). Everything that
is answered is JSON; pictures are PNG files in base64, one pixel for one. Beside what was drawn
stands the nearest training picture, where those are stored.
"""

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks import plots
from tasks.playground.latent_space import (
    EncodingLatents,
    Latents,
    LatentSpace,
    Place,
    along_the_sphere,
)
from tasks.playground.nearest import nearest_pictures
from tasks.playground.own_picture import own_picture
from tasks.store.files import BadInput

PLANE_SIDE, PLANE_REACH = 7, 3.0
"""Pictures along one side of the plane, and how far it goes from the middle, in sigma."""
_HELD_OUT = 200
"""Of how many held-out pictures the usual distance to a training picture is the median."""
Answer = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawRequest:
    """Which samples."""

    number: int = 16
    seed: int = 0
    temperature: float = 1.0
    label: int = -1
    """A class's index; -1 takes each in turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PointRequest:
    """A point of the latent space: that of a sample or the middle, moved along the axes."""

    start: DrawRequest = DrawRequest()
    sample: int = -1
    """Which of these samples it starts from; -1 is the middle of what is drawn."""
    coordinates: tuple[float, ...] = ()
    """In units of sigma, along the first axes; those that are not given are the start's."""
    label: int = -1
    """A class's index; -1 is the start's, and of the middle the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WayRequest:
    """The way between the first samples of two seeds."""

    start: DrawRequest = DrawRequest()
    """How they are drawn; its seed is not heeded."""
    from_seed: int = 0
    to_seed: int = 1


class ImageSession:
    """An image model of a version, its held-out pictures, and its training pictures if stored."""

    def __init__(
        self,
        model: Any,
        *,
        latents: Latents | None = None,
        training: np.ndarray | None = None,
        held_out: np.ndarray | None = None,
    ) -> None:
        """model: a SampleModel of images; latents: of its model, where the family has them.

        training, held_out: pictures (N, C, H, W) uint8; None where they are not stored. Without
        held_out the few that the version brings stand for them.
        """
        self._model, self._latents, self._training = model, latents, training
        self._examples: np.ndarray = model.examples.numpy()
        self._held_out = self._examples if held_out is None else held_out

    def facts(self) -> Answer:
        """What a page needs to know before it asks anything."""
        return {
            "data": "images",
            "classes": self._classes(),
            "height": self._model.config["height"],
            "width": self._model.config["width"],
            "has_latents": self._latents is not None,
            "can_encode": isinstance(self._latents, EncodingLatents),
            "plane_side": PLANE_SIDE,
            "plane_reach": PLANE_REACH,
            "num_examples": len(self._examples),
            "has_training": self._training is not None,
            "usual_distance": self._usual_distance if self._training is not None else None,
        }

    def draw(self, request: DrawRequest) -> Answer:
        """Samples, those of `atelier generate` for the seed, each with its nearest neighbour."""
        return {"pictures": self._beside_training(self._drawn(request))}

    def examples(self) -> Answer:
        """The held-out pictures that the version brings along."""
        return {"pictures": [_png(picture) for picture in self._examples]}

    def axes(self) -> Answer:
        """How many axes the latent space has; finding them draws some hundred pictures."""
        return {"number": self._space.axes.shape[1], "size": self._space.axes.shape[0]}

    def point(self, request: PointRequest) -> Answer:
        """The picture of a point, and its coordinates along all axes."""
        place, label = self._place(request)
        points = self._space.points_at(place.coordinates[None], place.rest)
        return {
            "coordinates": [round(each, 3) for each in place.coordinates.tolist()],
            "label": label,
            **self._beside_training(self._decoded(points, label))[0],
        }

    def plane(self, request: PointRequest) -> Answer:
        """All pictures of the plane along the first two axes through a point, on one sheet.

        The first axis goes to the right, the second up, both from -PLANE_REACH to PLANE_REACH.
        """
        place, label = self._place(request)
        line = torch.linspace(-PLANE_REACH, PLANE_REACH, PLANE_SIDE).double()
        coordinates = place.coordinates.repeat(PLANE_SIDE, PLANE_SIDE, 1)
        coordinates[:, :, 0] = line
        if coordinates.shape[2] > 1:
            coordinates[:, :, 1] = line.flip(0)[:, None]
        points = self._space.points_at(coordinates.flatten(0, 1), place.rest)
        pictures = self._decoded(points, label)
        rows = pictures.reshape(PLANE_SIDE, PLANE_SIDE, *pictures.shape[1:])
        sheet = rows.transpose(0, 3, 1, 4, 2).reshape(
            PLANE_SIDE * pictures.shape[2], PLANE_SIDE * pictures.shape[3], -1
        )
        return {"picture": _base64(plots.png(sheet))}

    def between(self, first: int, last: int, steps: int = 9) -> Answer:
        """The pictures on the straight way between the points of two held-out pictures."""
        count = len(self._examples)
        if not (0 <= first < count and 0 <= last < count):
            raise BadInput(f"held-out pictures are 0 to {count - 1}, got {first} and {last}")
        if not isinstance(self._latents, EncodingLatents):
            raise BadInput("this family has no way from a picture to a point")
        ends = torch.from_numpy(self._examples[[first, last]]).float() / 255
        start, end = self._latents.codes(ends)
        shares = torch.linspace(0, 1, steps)[:, None]
        pictures = _bytes_of(self._latents.images(torch.lerp(start, end, shares)))
        return {"pictures": self._beside_training(pictures)}

    def between_seeds(self, request: WayRequest, steps: int = 9) -> Answer:
        """The pictures on the way along the sphere between the first samples of two seeds.

        For families whose points are normal; the class is that of the first sample.
        """
        if self._latents is None:
            raise BadInput("this family has no latent space to find a way in")
        start = request.start
        first, last = (
            self._latents.points(start.number, seed, start.temperature)[0]
            for seed in (request.from_seed, request.to_seed)
        )
        points = along_the_sphere(first, last, torch.linspace(0, 1, steps))
        return {"pictures": self._beside_training(self._decoded(points, max(start.label, 0)))}

    def own(self, content: bytes, name: str, *, is_negative: bool = False) -> Answer:
        """A picture that a person brings, as the version takes it, and its nearest neighbour.

        content, name: of its file; is_negative: exchange light and dark. Beside it stands the
        reconstruction, where the family finds the points of pictures, with the distance of the two.
        Raises BadInput for what is no picture.
        """
        given = own_picture(content, name, self._examples.shape[1:])
        pictures = 255 - given.pixels[None] if is_negative else given.pixels[None]
        found: Answer = {"remarks": list(given.remarks), **self._beside_training(pictures)[0]}
        if isinstance(self._latents, EncodingLatents):
            images = torch.from_numpy(pictures).float() / 255
            again = _bytes_of(self._latents.images(self._latents.codes(images)))
            found["reconstruction"] = _png(again[0])
            found["error"] = round(float(nearest_pictures(pictures, again)[1][0]), 3)
        return found

    def _classes(self) -> list[str]:
        """The names of the classes that the model can be asked for; none where it knows none."""
        count = int(self._model.config.get("num_classes", 0))
        names = list(self._model.class_names)
        return names if len(names) == count else [str(each) for each in range(count)]

    def _drawn(self, request: DrawRequest) -> np.ndarray:
        found: np.ndarray = self._model.draw_images(
            request.number, request.seed, request.temperature, request.label
        )
        return found

    @cached_property
    def _space(self) -> LatentSpace:
        if self._latents is None:
            raise BadInput("this family has no latent space to walk in")
        return LatentSpace(self._latents, len(self._classes()))

    def _place(self, request: PointRequest) -> tuple[Place, int]:
        """Where a request leads, and the class there."""
        start, label = request.start, request.label
        if request.sample < 0:
            place = self._space.place_of()
        else:
            if request.sample >= start.number:
                raise BadInput(f"samples are 0 to {start.number - 1}, got {request.sample}")
            assert self._latents is not None, "a space is of latents"
            points = self._latents.points(start.number, start.seed, start.temperature)
            place = self._space.place_of(points[request.sample])
        count = len(self._classes())
        if label < 0:
            in_turn = request.sample % count if count and request.sample >= 0 else 0
            label = start.label if start.label >= 0 and request.sample >= 0 else in_turn
        given = torch.tensor(request.coordinates[: len(place.coordinates)]).double()
        coordinates = torch.cat([given, place.coordinates[len(given) :]])
        return Place(coordinates, place.rest), label

    def _decoded(self, points: Tensor, label: int) -> np.ndarray:
        assert self._latents is not None, "points are of latents"
        labels = torch.full((len(points),), label) if self._classes() else None
        return _bytes_of(self._latents.images(points, labels))

    def _beside_training(self, pictures: np.ndarray) -> list[Answer]:
        if self._training is None:
            return [{"picture": _png(each)} for each in pictures]
        places, distances = nearest_pictures(pictures, self._training)
        return [
            {
                "picture": _png(picture),
                "nearest": _png(np.asarray(self._training[place])),
                "distance": round(distance, 3),
            }
            for picture, place, distance in zip(
                pictures, places.tolist(), distances.tolist(), strict=True
            )
        ]

    @cached_property
    def _usual_distance(self) -> float:
        """The median distance of held-out pictures to their nearest training picture."""
        assert self._training is not None, "asked only where there are training pictures"
        some = np.asarray(self._held_out[:_HELD_OUT])
        return round(float(np.median(nearest_pictures(some, self._training)[1])), 3)


def _bytes_of(images: Tensor) -> np.ndarray:
    found: np.ndarray = (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return found


def _png(picture: np.ndarray) -> str:
    """A picture (C, H, W) uint8 as a file in base64."""
    return _base64(plots.png(picture.transpose(1, 2, 0)))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
