"""The settings of the VAE."""

import math
from dataclasses import dataclass
from typing import Literal

from models.settings import check_limits, setting

Likelihood = Literal["bernoulli", "logistic"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeConfig:
    """The shape of a VAE and what it minimises."""

    channels: int = setting(1, ge=1, le=3, fixed_by="the images")
    """1 for grey images, 3 for colour."""
    height: int = setting(28, ge=8, le=64, fixed_by="the images")
    """Rows of pixels."""
    width: int = setting(28, ge=8, le=64, fixed_by="the images")
    """Columns of pixels."""
    latent_size: int = setting(24, ge=1, le=4096)
    """Units of the latent point z."""
    base_width: int = setting(16, ge=1, le=1024)
    """Feature maps of the first level; every further level has twice as many, at most 4 times."""
    hidden_size: int = setting(256, ge=1, le=65_536)
    """Units of the dense layer between the flattened feature maps and z, on both sides."""
    num_residual_blocks: int = setting(0, ge=0, le=64)
    """Residual blocks after every pooling and before every upsampling."""
    dropout: float = setting(0.0, ge=0, lt=1)
    """Fraction of the dense layers' units dropped while training."""
    likelihood: Likelihood = "bernoulli"
    """"bernoulli" models binary pixels: training draws them afresh from the grey levels at each
    step (dynamic binarisation). "logistic" models the 256 levels of each pixel and channel."""
    num_importance_samples: int = setting(1, ge=1, le=1000)
    """Draws of z per image while training; above 1 the loss is the IWAE bound."""
    kl_warmup_steps: int = setting(0, ge=0, le=10_000_000)
    """Steps over which the weight of the KL rises to 1."""
    free_bits_nats: float = setting(0.0, ge=0, le=1000)
    """KL per latent unit (batch mean) below which a unit is not pressed further down."""
    num_mixture_components: int = setting(30, ge=1, le=1000)
    """Gaussians of the mixture that can be fitted on the codes, for sampling."""

    def __post_init__(self) -> None:
        check_limits(self)
        if self.channels == 2:
            raise ValueError("channels must be 1 (grey) or 3 (colour), got 2")
        if self.free_bits_nats and self.num_importance_samples > 1:
            raise ValueError(
                "free_bits_nats needs num_importance_samples = 1, whose KL is exact per unit; got"
                f" {self.free_bits_nats} with {self.num_importance_samples} samples"
            )

    @property
    def num_levels(self) -> int:
        """How often the encoder halves an image: until the larger side is at most 7."""
        return math.ceil(math.log2(max(self.height, self.width) / 7))

    @property
    def level_widths(self) -> list[int]:
        """Feature maps of every level, from the image inwards."""
        return [self.base_width * min(2**level, 4) for level in range(self.num_levels)]

    @property
    def inner_size(self) -> tuple[int, int]:
        """Height and width of the feature maps that are flattened."""
        scale = 2**self.num_levels
        return math.ceil(self.height / scale), math.ceil(self.width / scale)
