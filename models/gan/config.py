"""The settings of the GAN."""

from dataclasses import dataclass
from typing import Literal

from models.image_grids import grids_of, widths_of
from models.settings import check_limits, setting

GanLoss = Literal["relativistic", "hinge", "wasserstein"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GanConfig:
    """Sizes of the two networks and the rules of their game; the defaults fit 8x8 digits."""

    channels: int = setting(1, ge=1, le=3, fixed_by="the images")
    """1 for grey images, 3 for colour."""
    height: int = setting(8, ge=8, le=64, fixed_by="the images")
    """Rows of pixels."""
    width: int = setting(8, ge=8, le=64, fixed_by="the images")
    """Columns of pixels."""
    num_classes: int = setting(0, ge=0, fixed_by="the images")
    """0 learns the images alone; more learns them given their class."""
    latent_size: int = setting(32, ge=1, le=4096)
    """Units of the latent point that an image is drawn from."""
    base_width: int = setting(32, ge=1, le=1024)
    """Feature maps on the finest grid; doubled with every halving of the grid."""
    max_width: int = setting(256, ge=1, le=4096)
    """No convolution has more feature maps than this."""
    blocks_per_stage: int = setting(0, ge=0, le=64)
    """Residual convolution blocks on every grid, in both networks. 8x8 images learn faster without
    any; larger ones need them."""
    dense_width: int = setting(128, ge=1, le=65_536)
    """Units of the dense layers between the coarsest grid and the latent point or the score."""
    dense_blocks: int = setting(2, ge=0, le=64)
    """Residual dense blocks between the coarsest grid and the latent point or the score."""
    patch_size: int = setting(2, ge=1, le=64)
    """Side of the pixel squares that one cell of the finest grid holds."""
    loss: GanLoss = "relativistic"
    """What the two networks compete by: the relativistic loss with gradient penalties on real and
    generated images, the hinge loss with spectral norms, or the Wasserstein loss with a penalty."""
    penalty: float = setting(2.0, ge=0, le=1e6)
    """Strength of the gradient penalty: gamma of R1 and R2, or lambda of the Wasserstein loss
    (published: 10). The hinge loss has none: it bounds the discriminator by spectral norms."""
    final_penalty_fraction: float = setting(0.02, ge=0, le=1)
    """The penalty falls along a cosine to this fraction of its start."""
    discriminator_updates: int = setting(1, ge=1, le=100)
    """Updates of the discriminator for each one of the generator."""
    ema_half_life_fraction: float = setting(0.05, gt=0, le=1)
    """Half-life of the averaged generator, as a fraction of the updates done so far."""
    sampling_spread: float = setting(1.0, gt=0, le=100)
    """Deviation of the latent points that samples are drawn from; training draws them with 1. Above
    1 it gives back the variance that averaging the generator takes."""
    augment_probability: float = setting(0.0, ge=0, le=1)
    """How often an image that the discriminator sees is shifted, towards the end of training."""
    augment_shift: int = setting(1, ge=0, le=64)
    """Largest shift in pixels."""
    class_weight: float = setting(0.0, ge=0, le=1e6)
    """Weight of a cross-entropy that teaches the discriminator, from real images alone, to score
    an image higher for its own class than for others (Reed et al. 2016; Chen et al. 2021, ECGAN).
    Without it only generated images tell it what a wrong class looks like."""
    num_packed: int = setting(1, ge=1, le=64)
    """Images that the discriminator judges together; more fights collapse."""
    per_channel_branches: bool = False
    """Every channel passes convolutions and dense layers of its own, with the same weights for
    each; `dense_blocks` more join the channels. For images whose channels show things of one kind,
    as in Stacked MNIST: what one channel teaches serves all."""

    def __post_init__(self) -> None:
        check_limits(self)
        if self.channels == 2:
            raise ValueError("channels must be 1 (grey) or 3 (colour), got 2")
        if self.class_weight > 0 and (self.num_classes < 2 or self.num_packed > 1):
            raise ValueError(
                "class_weight above 0 needs num_classes of at least 2 and num_packed of 1, got"
                f" {self.class_weight} with {self.num_classes} classes and {self.num_packed} packed"
            )

    @property
    def num_branches(self) -> int:
        """Parts of an image that pass the convolutions apart."""
        return self.channels if self.per_channel_branches else 1

    def grids(self) -> list[tuple[int, int]]:
        """Rows and columns of each grid, from the finest to the coarsest."""
        return grids_of(self.height, self.width, self.patch_size)

    def widths(self) -> list[int]:
        """Feature maps on each grid, from the finest to the coarsest."""
        return widths_of(self.base_width, self.max_width, len(self.grids()))
