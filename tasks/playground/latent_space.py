"""The latent space of an image model in units of sigma, along what changes its pictures most.

Points are whitened: a coordinate of 1 is one standard deviation of what the version draws. The axes
are orthogonal there, and ordered by how much of the pictures varies with them: the singular vectors
of the covariance between points and pixels (as in Härkönen et al. 2020, "GANSpace", which takes
the layers behind for the pixels).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

NUM_AXES = 8
_POINTS, _PICTURES = 2048, 256
"""Of how many points the spread is measured, and of how many the pictures."""
_CLASSES = 16
"""Of so many classes at most are the pictures, so that each has enough to vary among."""
_SEED = 0


class Latents(Protocol):
    """What a family's record names as `latents`, made with a version's model."""

    def points(self, number: int, seed: int, temperature: float = 1.0) -> Tensor:
        """The points (N, Z) of the samples that a seed gives."""
        ...

    def images(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        """Pictures (N, C, H, W) in [0, 1] of points (N, Z), and of classes (N,) int64."""
        ...


@runtime_checkable
class EncodingLatents(Latents, Protocol):
    """The same of a family that finds the points of pictures, too."""

    def codes(self, images: Tensor) -> Tensor:
        """The points (N, Z) of pictures (N, C, H, W) in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """A point by its coordinates along the axes, and the rest that no axis changes."""

    coordinates: Tensor
    """(A,), in units of sigma."""
    rest: Tensor
    """(Z,) whitened; orthogonal to all axes."""


class LatentSpace:
    """Coordinates of a model's latent points."""

    def __init__(self, latents: Latents, num_classes: int = 0) -> None:
        """Measure the spread of the points, and find the axes; draws some hundred pictures."""
        self.latents = latents
        points = latents.points(_POINTS, _SEED).double()
        self._mean = points.mean(0)
        self._factor = _spread(points - self._mean)
        white = self.whitened(points[:_PICTURES])
        labels = torch.arange(len(white)) % min(num_classes, _CLASSES) if num_classes else None
        pictures = latents.images(points[:_PICTURES].float(), labels).flatten(1).double()
        effects = white.T @ _within_classes(pictures, labels) / len(white)  # (Z, P)
        directions, _, patterns = torch.linalg.svd(effects, full_matrices=False)
        brighter = torch.where(patterns.sum(1) < 0, -1.0, 1.0)  # a sign of its own is nobody's
        self.axes = (directions * brighter)[:, :NUM_AXES]
        """(Z, A), orthonormal in whitened space."""

    def whitened(self, points: Tensor) -> Tensor:
        """Points (N, Z) in units of sigma: (N, Z)."""
        centred = (points.double() - self._mean).T
        if self._factor.dim() == 1:
            return (centred / self._factor[:, None]).T
        white: Tensor = torch.linalg.solve_triangular(self._factor, centred, upper=False)
        return white.T

    def place_of(self, point: Tensor | None = None) -> Place:
        """Where a point (Z,) lies; by default the middle of what is drawn."""
        if point is None:
            return Place(torch.zeros(self.axes.shape[1]).double(), torch.zeros_like(self._mean))
        white = self.whitened(point[None])[0]
        coordinates = white @ self.axes
        return Place(coordinates, white - self.axes @ coordinates)

    def points_at(self, coordinates: Tensor, rest: Tensor) -> Tensor:
        """Points (N, Z) by their coordinates (N, A) and what no axis changes, (Z,)."""
        white = coordinates.double() @ self.axes.T + rest
        spread = white * self._factor if self._factor.dim() == 1 else white @ self._factor.T
        points: Tensor = self._mean + spread
        return points.float()


def along_the_sphere(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Points (S, Z) on the way between two points (Z,) at shares (S,) of it, 0 to 1.

    Normal points of many numbers lie near a sphere, and the straight way leads through its inside,
    where none is drawn: this one turns evenly from one direction into the other, and its length
    goes evenly from one to the other (Shoemake 1985, "slerp"). Between points of one line through
    the middle it is straight.
    """
    first, last, at = start.double(), end.double(), shares.double()[:, None]
    lengths = first.norm(), last.norm()
    angle = torch.arccos((first @ last / (lengths[0] * lengths[1])).clamp(-1, 1))
    if not torch.sin(angle) > 1e-6:  # also where one has no direction
        return torch.lerp(first, last, at).to(start.dtype)
    directions = torch.sin((1 - at) * angle) * first / lengths[0]
    directions = directions + torch.sin(at * angle) * last / lengths[1]
    found: Tensor = directions / torch.sin(angle) * torch.lerp(*lengths, at)
    return found.to(start.dtype)


def _spread(centred: Tensor) -> Tensor:
    """What turns whitened points into these (N, Z): a triangle (Z, Z), or a deviation each (Z,).

    So many numbers a point that their covariance is not known are taken as independent.
    """
    number, size = centred.shape
    if 4 * size > number:
        return centred.std(0).clamp(min=1e-6)
    covariance = centred.T @ centred / (number - 1)
    least = covariance.diagonal().mean().clamp(min=1e-12) * 1e-6
    eye = torch.eye(size, dtype=covariance.dtype)
    triangle: Tensor = torch.linalg.cholesky(covariance + least * eye)
    return triangle


def _within_classes(pictures: Tensor, labels: Tensor | None) -> Tensor:
    """Pictures (N, P) less the mean of their class, which is no matter of the point."""
    if labels is None:
        return pictures - pictures.mean(0)
    means = torch.stack([pictures[labels == each].mean(0) for each in range(int(labels.max()) + 1)])
    return pictures - means[labels]
