"""From counts to probabilities: discounted shares of n-grams and back-off weights of contexts.

Plain Kneser-Ney subtracts three discounts per order. The tuned form lets every context choose how
far to trust each kind of count, from how much was seen there and how evenly, which plain discounts
cannot express: a context seen forty times with one continuation deserves more trust than one seen
forty times with twenty.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.ngram.config import NUM_FEATURES
from models.ngram.keys import Integers

Floats = NDArray[np.float64]


def estimated_discounts(counts: Integers) -> tuple[float, float, float] | None:
    """What to subtract from the counts 1, 2 and 3 or more of one order (Chen & Goodman, eq. 26).

    None where the counts of counts do not determine positive discounts.
    """
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if min(n1, n2, n3) == 0:
        return None
    y = n1 / (n1 + 2 * n2)
    d1, d2, d3 = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
    return (d1, d2, d3) if 0 < d1 <= 1 and 0 < d2 <= 2 and 0 < d3 <= 3 else None


def discounted(
    counts: Integers, contexts: Integers, num_contexts: int, discounts: Sequence[float] | Floats
) -> tuple[Floats, Floats]:
    """Shares of the n-grams in their context, and the mass freed there; 1 without any count."""
    discount_of = np.array([0.0, *discounts])[np.minimum(counts, 3)]
    totals = _summed(counts, contexts, num_contexts)
    freed = _summed(discount_of, contexts, num_contexts)
    freed = np.divide(freed, totals, out=np.ones(num_contexts), where=totals > 0)
    shares: Floats = (counts - discount_of) / totals[contexts]
    return shares, freed


@dataclass(frozen=True, slots=True)
class ContextCounts:
    """What was counted after each context of one order."""

    totals: Floats
    """(C,) sum of the counts."""
    classes: Floats
    """(3, C) how many different tokens have count 1, 2, and 3 or more."""

    @classmethod
    def of(cls, counts: Integers, contexts: Integers, num_contexts: int) -> "ContextCounts":
        """Sum up the counts of n-grams, (n,), by their contexts."""
        at_most_3 = np.minimum(counts, 3)
        classes = np.bincount(contexts * 4 + at_most_3, minlength=num_contexts * 4)
        totals = _summed(counts, contexts, num_contexts)
        return cls(totals, classes.reshape(-1, 4).T[1:].astype(np.float64))

    @classmethod
    def joined(cls, parts: Sequence["ContextCounts"]) -> "ContextCounts":
        """The counts of several groups of contexts, one after the other."""
        return cls(
            np.concatenate([np.empty(0), *(part.totals for part in parts)]),
            np.concatenate([np.empty((3, 0)), *(part.classes for part in parts)], axis=1),
        )

    def features(self) -> Floats:
        """What tells how far a context can be trusted, each of order one: (NUM_FEATURES, C).

        A constant, how much was seen, how many different tokens, and which part of them once.
        """
        num_tokens = np.maximum(self.classes.sum(axis=0), 1)
        return np.stack(
            [
                np.ones(len(self.totals)),
                np.log2(np.maximum(self.totals, 1)) / 4 - 1,
                np.log2(num_tokens) / 2 - 1,
                self.classes[0] / num_tokens - 0.5,
            ]
        )


@dataclass(frozen=True, slots=True)
class Mixture:
    """How one order weighs three opinions: neighbour counts, occurrence counts, the order below.

    Kneser-Ney's neighbour counts say how freely a token follows, occurrences how often it did. The
    weights are a softmax of functions linear in `context_features`, the order below having 0.
    """

    discount_logits: Floats
    """(2, 3) D_i = i sigmoid(logit) for counts 1, 2 and 3 or more, by kind of count."""
    weight_logits: Floats
    """(2, NUM_FEATURES) coefficients of the two kinds of count."""

    @classmethod
    def of(cls, row: Sequence[float]) -> "Mixture":
        """The mixture that one row of `NgramConfig.tuned` describes."""
        numbers = np.array(row)
        return cls(numbers[:6].reshape(2, 3), numbers[6:].reshape(2, NUM_FEATURES))

    def discounts(self) -> Floats:
        """(2, 3)."""
        discounts: Floats = np.array([1, 2, 3]) / (1 + np.exp(-self.discount_logits))
        return discounts

    def weights(self, features: Floats) -> Floats:
        """(NUM_FEATURES, C) to (3, C): of neighbour counts, occurrences, the order below."""
        logits = np.vstack([self.weight_logits @ features, np.zeros(features.shape[1])])
        odds = np.exp(logits - logits.max(axis=0))
        weights: Floats = odds / odds.sum(axis=0)
        return weights


def mixed(
    mixture: Mixture,
    neighbours: Integers,
    occurrences: Integers,
    contexts: Integers,
    num_contexts: int,
) -> tuple[Floats, Floats]:
    """Shares of the n-grams, (n,), and back-off weights of the contexts, (C,), in the tuned form.

    neighbours, occurrences: (n,) both kinds of count. contexts: (n,) the context of each n-gram.
    """
    sums = ContextCounts.of(occurrences, contexts, num_contexts)
    weights = mixture.weights(sums.features())
    shares, backoffs = np.zeros(len(contexts)), weights[2]
    kinds = zip((neighbours, occurrences), weights, mixture.discounts(), strict=False)
    for counts, weight, discounts in kinds:
        counted, freed = discounted(counts, contexts, num_contexts, discounts)
        shares += weight[contexts] * counted
        backoffs += weight * freed
    return shares, np.where(sums.totals > 0, backoffs, 1.0)


def _summed(values: Integers | Floats, contexts: Integers, num_contexts: int) -> Floats:
    """The sum of the values that belong to each context: (n,) to (C,)."""
    sums: Floats = np.bincount(contexts, values, minlength=num_contexts).astype(float, copy=False)
    return sums
