"""The settings of the diffusion model."""

from dataclasses import dataclass
from typing import Literal

from models.image_grids import grids_of, widths_of
from models.settings import check_limits, setting

Solver = Literal["euler", "heun", "multistep"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionConfig:
    """The network's sizes, how it learns and how it is sampled; the defaults fit 8x8 digits."""

    channels: int = setting(1, ge=1, le=3, fixed_by="the images")
    """1 for grey images, 3 for colour."""
    height: int = setting(8, ge=8, le=64, fixed_by="the images")
    """Rows of pixels."""
    width: int = setting(8, ge=8, le=64, fixed_by="the images")
    """Columns of pixels."""
    num_classes: int = setting(0, ge=0, fixed_by="the images")
    """0 learns the images alone; more learns them given their class."""
    patch_size: int = setting(2, ge=1, le=64)
    """Side of the pixel squares that one cell of the finest grid holds."""
    base_width: int = setting(64, ge=1, le=1024)
    """Feature maps on the finest grid; doubled with every halving of the grid."""
    max_width: int = setting(128, ge=1, le=4096)
    """No convolution has more feature maps than this."""
    blocks_per_stage: int = setting(1, ge=0, le=64)
    """Residual convolution blocks on every grid, on the way down and on the way up."""
    dense_width: int = setting(64, ge=1, le=65_536)
    """Units of the dense layers on the coarsest grid."""
    dense_blocks: int = setting(2, ge=0, le=64)
    """Residual dense blocks on the coarsest grid."""
    embedding_size: int = setting(128, ge=1, le=65_536)
    """Units that hold time, class and augmentation."""
    dropout: float = setting(0.0, ge=0, lt=1)
    """Fraction of the residual blocks' inner units dropped while training."""
    label_dropout: float = setting(0.0, ge=0, lt=1)
    """Share of the training images that are shown without their class: what guidance needs."""
    time_mean: float = setting(0.0, ge=-100, le=100)
    """Times of training are the sigmoid of a normal number with this mean: 0 is noise, 1 the image
    (logit-normal, Esser et al. 2024)."""
    time_spread: float = setting(1.0, gt=0, le=100)
    """The deviation of that normal number."""
    augment_probability: float = setting(0.0, ge=0, le=1)
    """Share of the training images that are moved. The network is told how, and so draws none
    (Karras et al. 2020 and 2022)."""
    augment_shift: float = setting(1.0, ge=0, le=64)
    """Largest shift along each axis, in pixels."""
    augment_zoom: float = setting(0.0, ge=0, le=10)
    """Largest change of size, as a logarithm."""
    augment_turn: float = setting(0.0, ge=0, le=7)
    """Largest turn, in radians."""
    ema_half_life_fraction: float = setting(0.05, gt=0, le=1)
    """Half-life of the averaged network, as a fraction of the updates done so far."""
    solver: Solver = "heun"
    """Method by which the velocity is integrated from noise to image."""
    sampling_steps: int = setting(10, ge=1, le=10_000)
    """Steps of the solver for a sample."""
    time_shift: float = setting(1.0, gt=0, le=1000)
    """Steps of sampling lead to the times u / (u + time_shift (1 - u)), u evenly from 0 to 1: below
    1 more of them are near the image, above 1 more are near the noise (Esser et al. 2024)."""
    sampling_spread: float = setting(1.0, gt=0, le=100)
    """Deviation of the noise that samples start from; that of training is 1. Above 1 it gives back
    the variance that an averaged, half-trained velocity takes."""
    guidance: float = setting(1.0, ge=0, le=1000)
    """Samples follow the velocity of their class so many times as far from that of no class (Ho and
    Salimans 2022). 1 is the class's own, at half the cost."""

    def __post_init__(self) -> None:
        check_limits(self)
        if self.channels == 2:
            raise ValueError("channels must be 1 (grey) or 3 (colour), got 2")
        if self.label_dropout > 0 and self.num_classes == 0:
            raise ValueError(
                f"label_dropout needs num_classes of at least 1, got {self.label_dropout} with 0"
            )
        if self.guidance != 1 and self.label_dropout == 0:
            raise ValueError(
                f"guidance must be 1 where label_dropout is 0, got {self.guidance}: the network"
                " never learns what images without a class look like"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.height, self.width

    def grids(self) -> list[tuple[int, int]]:
        """Rows and columns of each grid, from the finest to the coarsest."""
        return grids_of(self.height, self.width, self.patch_size)

    def widths(self) -> list[int]:
        """Feature maps on each grid, from the finest to the coarsest."""
        return widths_of(self.base_width, self.max_width, len(self.grids()))
