"""What measuring a likelihood of images gives, whatever model has one."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Likelihood:
    """The likelihood of held-out images."""

    metrics: dict[str, float]
    """By name; "test_nll_nats" among them."""
    nats: np.ndarray
    """(N,) Negative log-likelihood of each image."""
    unit: str
    """What the numbers are of, such as "binarised pixels"; others are not compared."""
    failed_checks: list[str]
    """What must keep the model from being used, in words."""
