"""The settings of the n-gram model."""

import math
from dataclasses import dataclass

from models.settings import check_limits, setting

NUM_FEATURES = 4
"""Numbers that tell the tuned form of a context."""
NUM_TUNED = 6 + 2 * NUM_FEATURES
"""Numbers per order in the tuned form."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NgramConfig:
    """The defaults are plain modified Kneser-Ney."""

    order: int = setting(7, ge=1, le=64)
    """Tokens in the longest n-gram, the predicted one included."""
    sentence_end: int | None = setting(None, ge=0)
    """Token id after which the context starts afresh; none takes the text as one sentence."""
    fallback_discounts: tuple[float, float, float] = (0.5, 1.0, 1.5)
    """For n-grams seen once, twice and more often, in orders whose counts determine none."""
    tuned: tuple[tuple[float, ...], ...] | None = setting(None, fixed_by="tuning")
    """What `models.ngram.tuning.tune` found: per order the numbers of a `Mixture`, in a row."""

    def __post_init__(self) -> None:
        check_limits(self)
        # JSON turns tuples into lists.
        object.__setattr__(self, "fallback_discounts", tuple(self.fallback_discounts))
        limits = zip(self.fallback_discounts, (1, 2, 3), strict=True)
        if not all(0 < discount <= limit for discount, limit in limits):
            raise ValueError(
                "fallback_discounts must lie above 0 and at most at 1, 2 and 3, got"
                f" {self.fallback_discounts}"
            )
        if self.tuned is not None:
            object.__setattr__(self, "tuned", tuple(map(tuple, self.tuned)))
            if [len(row) for row in self.tuned] != [NUM_TUNED] * self.order:
                raise ValueError(
                    f"tuned must hold {NUM_TUNED} numbers for each of {self.order} orders, got rows"
                    f" of {[len(row) for row in self.tuned]}; tune again after changing the order"
                )
            if not all(math.isfinite(number) for row in self.tuned for number in row):
                raise ValueError("tuned holds numbers that are not finite; tune again")


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningConfig:
    """How much text decides, and for how long."""

    holdout_fraction: float = setting(0.1, gt=0, lt=1)
    """The end of the training text that is held out."""
    max_held_out: int = setting(100_000, ge=1)
    """Tokens held out at most: time and memory grow with them."""
    num_iterations: int = setting(60, ge=1, le=100_000)
    """Of L-BFGS."""

    def __post_init__(self) -> None:
        check_limits(self)
