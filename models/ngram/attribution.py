"""How an n-gram model came to a probability: which orders spoke, and what backing off left each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import numpy as np

from models.ngram.backoff import BackoffModel
from models.ngram.counting import UNKNOWN, check_ids
from models.ngram.stream import NgramStream


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """What one order contributed to a probability."""

    order: int
    context: tuple[int, ...]
    """The last order - 1 tokens; shorter where the sentence began."""
    count: int
    """Kneser-Ney's count: how often token followed context in the highest order, after how many
    different tokens the two came in lower ones."""
    occurrences: int
    """How often token followed context."""
    share: float
    """u: the token's share of the discounted counts after this context; 0 if never seen there."""
    backoff: float
    """The weight of the next lower order after this context; 1 for an unseen context."""
    weight: float
    """What the higher orders left to this one: the product of their back-offs. weight * share is
    this order's part of the model's probability."""
    probability: float
    """share + backoff * probability of the next lower order."""


def explained(model: BackoffModel, context: Sequence[int], token: int) -> list[Level]:
    """How the probability of `token` after `context` came about, from order 1 upwards.

    context: the tokens before it from the beginning of the text, or at least context_length of
    them. The last level's probability is the model's: what all orders add, and the rest, weight
    times back-off of order 1, shared evenly by the vocabulary.
    """
    check_ids(token, token, model.vocabulary_size)
    stream = NgramStream(model, 1)
    stream.append(np.array([context], np.int64))
    symbol = model.symbol_of[[token]]
    orders = range(1, model.config.order + 1)
    places = [int(contexts[0]) for contexts in stream.contexts]
    ranks = [int(model.extended(k, stream.contexts[k - 1], symbol)[0]) for k in orders]
    shares = [float(model.shares(k)[rank]) for k, rank in zip(orders, ranks, strict=True)]
    backoffs = [float(model.backoffs(k)[place]) for k, place in zip(orders, places, strict=True)]
    weights = [*accumulate(reversed(backoffs[1:]), mul, initial=1.0)][::-1]
    sentence = _since_last(model.config.sentence_end, context)
    levels: list[Level] = []
    probability = 1 / model.vocabulary_size
    for k, rank, share, backoff, weight in zip(
        orders, ranks, shares, backoffs, weights, strict=True
    ):
        probability = share + backoff * probability
        count, occurrences = _counts(model, k, rank)
        levels.append(
            Level(
                order=k,
                context=sentence[max(0, len(sentence) - k + 1) :],
                count=count,
                occurrences=occurrences,
                share=share,
                backoff=backoff,
                weight=weight,
                probability=probability,
            )
        )
    return levels


def _counts(model: BackoffModel, order: int, rank: int) -> tuple[int, int]:
    """Kneser-Ney's count of an n-gram, and its occurrences."""
    if rank == UNKNOWN:
        return 0, 0
    table = model.tables[order - 1]
    occurrences, num_left = int(table.counts[rank]), int(table.num_left[rank])
    return num_left or occurrences, occurrences


def _since_last(sentence_end: int | None, context: Sequence[int]) -> tuple[int, ...]:
    """The tokens of the sentence that is being written."""
    reversed_context = list(reversed(context))
    if sentence_end not in reversed_context:
        return tuple(context)
    return tuple(reversed(reversed_context[: reversed_context.index(sentence_end)]))
