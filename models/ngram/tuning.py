"""Tuning an n-gram model: discounts and the weights of the orders, by likelihood of a hold-out.

The model counts the first part of the training text; on the rest, the probability of each token is
a differentiable function of a few numbers per order, because the counts stay as they are. The same
numbers then serve a model that counts the whole text.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.memory_maps import release
from models.ngram.config import NUM_FEATURES, NUM_TUNED, NgramConfig, TuningConfig
from models.ngram.counting import UNKNOWN
from models.ngram.external_sort import ExternalSortConfig
from models.ngram.keys import BEGIN, Integers
from models.ngram.model import NgramModel
from models.ngram.smoothing import ContextCounts

PRIOR_DEVIATION = 2.0
"""How far, as a standard deviation, logits are expected to lie from where they start."""
FOLLOWERS_AT_ONCE = 1 << 20
"""N-grams whose counts are summed up at once."""
PARTS_OF_A_TABLE = 16
"""Look-ups go through a table in order, and give back its pages so many times."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What K orders counted at each of M places. The second axis is the kind of count."""

    vocabulary_size: int
    shares: Tensor
    """(K, 2, M) the token's count over the context's total."""
    token_class: Tensor
    """(K, 2, 3, M) over the context's total: 1 where the token's count is 1, 2, 3 or more."""
    classes: Tensor
    """(K, 2, 3, M) over the context's total: how many tokens have count 1, 2, 3 or more."""
    features: Tensor
    """(K, NUM_FEATURES, M)."""
    is_seen: Tensor
    """(K, M) whether anything was counted after the context."""


def tune(
    tokens: NDArray[np.integer],
    vocabulary_size: int,
    config: NgramConfig,
    tuning: TuningConfig | None = None,
    spill: ExternalSortConfig | None = None,
) -> NgramConfig:
    """The config with `tuned` set to what makes the end of the text likeliest, given the rest.

    tokens: (N,) the training text. Fit the returned config on all of it. spill: as for counting.
    Raises ValueError for a text too short to hold anything out.
    """
    tuning = tuning or TuningConfig()
    num_held_out = min(tuning.max_held_out, int(len(tokens) * tuning.holdout_fraction))
    if num_held_out < 1:
        raise ValueError(
            f"the training text has {len(tokens)} tokens, too few to hold out"
            f" {tuning.holdout_fraction} of them; use a longer text or the plain model"
        )
    split = len(tokens) - num_held_out
    plain = replace(config, tuned=None)
    model = NgramModel.fit(tokens[:split], vocabulary_size, plain, spill)
    context_start = max(0, split - model.context_length)
    evidence = gather(model, np.asarray(tokens[context_start:], np.int64), split - context_start)
    rows = _fitted(evidence, config.order, tuning.num_iterations)
    return replace(config, tuned=tuple(map(tuple, rows.tolist())))


def gather(model: NgramModel, tokens: Integers, start: int) -> Evidence:
    """The evidence at tokens[start:], read from a model's counts.

    Of tables, which may be larger than memory, what follows the contexts there is read alone.
    """
    symbols = model.symbols(tokens, is_beginning=False)
    places = np.flatnonzero(symbols != BEGIN)[start:]
    parts: list[list[NDArray[Any]]] = [[], [], [], [], []]
    context_ranks = np.zeros(len(symbols), np.int64)
    for k in range(1, model.config.order + 1):
        ranks = _ranks(model, k, context_ranks, symbols)
        contexts, where = np.unique(context_ranks[places], return_inverse=True)
        if len(contexts) and contexts[0] == UNKNOWN:  # it is then found by the index -1
            contexts, where = contexts[1:], where - 1
        counts_of_kinds = _counts(model, k, ranks[places])
        sums_of_kinds = _sums_after(model, k, contexts)
        kinds = [
            _at(where, counts, sums)
            for counts, sums in zip(counts_of_kinds, sums_of_kinds, strict=True)
        ]
        sums = sums_of_kinds[1]
        features = np.append(sums.features(), np.zeros((NUM_FEATURES, 1)), axis=1)
        for part, columns in zip(parts, zip(*kinds, strict=True), strict=False):
            part.append(np.stack(columns))
        parts[3].append(features[:, where].astype(np.float32))
        parts[4].append(np.append(sums.totals, 0)[where] > 0)
        context_ranks = np.append(UNKNOWN, ranks[:-1])
    stacked = [torch.from_numpy(np.stack(part)) for part in parts]
    return Evidence(model.vocabulary_size, *stacked)


def _ranks(model: NgramModel, order: int, contexts: Integers, symbols: Integers) -> Integers:
    """As `NgramModel.extended`, of a part of the table after the other."""
    ranks = np.empty(len(symbols), np.int64)
    for some in np.array_split(np.lexsort((symbols, contexts)), PARTS_OF_A_TABLE):
        ranks[some] = model.extended(order, contexts[some], symbols[some])
        release(*model.tables[order - 1].arrays)
    return ranks


def _counts(model: NgramModel, order: int, ranks: Integers) -> tuple[Integers, Integers]:
    """As `NgramModel.counts_at`, of a part of the table after the other."""
    neighbours, occurrences = np.empty_like(ranks), np.empty_like(ranks)
    for some in np.array_split(np.argsort(ranks), PARTS_OF_A_TABLE):
        neighbours[some], occurrences[some] = model.counts_at(order, ranks[some])
        release(*model.tables[order - 1].arrays)
    return neighbours, occurrences


def _sums_after(
    model: NgramModel, order: int, contexts: Integers
) -> tuple[ContextCounts, ContextCounts]:
    """What was counted after contexts, (C,) ranks in order, by kind: neighbours, occurrences."""
    table = model.tables[order - 1]
    bounds = []
    for some in np.array_split(contexts, PARTS_OF_A_TABLE):
        wanted = (some * model.num_symbols, (some + 1) * model.num_symbols)
        bounds.append([np.searchsorted(table.keys, each) for each in wanted])
        release(table.keys)
    firsts, ends = (np.concatenate(each) for each in zip(*bounds, strict=True))
    lengths = ends - firsts
    part_of = np.cumsum(lengths) // FOLLOWERS_AT_ONCE
    kinds: tuple[list[ContextCounts], list[ContextCounts]] = ([], [])
    for some in np.split(np.arange(len(contexts)), np.flatnonzero(np.diff(part_of)) + 1):
        followers = lengths[some]
        own = np.repeat(np.arange(len(some)), followers)
        before = np.cumsum(followers) - followers
        ranks = np.arange(len(own)) + (firsts[some] - before)[own]
        for parts, counts in zip(kinds, model.counts_at(order, ranks), strict=True):
            parts.append(ContextCounts.of(counts, own, len(some)))
        release(*table.arrays)
    neighbours, occurrences = map(ContextCounts.joined, kinds)
    return neighbours, occurrences


def _at(
    contexts: Integers, counts: Integers, sums: ContextCounts
) -> tuple[NDArray[np.float32], ...]:
    """Share, class of the token, classes of the context, at M places and for one kind of count.

    contexts: (M,) where sums tells of each place's context, -1 for an unseen one. counts: (M,).
    """
    totals = np.maximum(np.append(sums.totals, 0)[contexts], 1).astype(np.float32)
    token_class = np.minimum(counts, 3) == np.array([[1], [2], [3]])
    classes = np.append(sums.classes, np.zeros((3, 1)), axis=1)[:, contexts]
    return (
        (counts / totals).astype(np.float32),
        (token_class / totals).astype(np.float32),
        (classes / totals).astype(np.float32),
    )


def probabilities(evidence: Evidence, rows: Tensor) -> Tensor:
    """The probability of each place's token under tuned numbers. rows: (K, 14). Returns (M,)."""
    num_orders, _, num_places = evidence.shares.shape
    discounts = rows[:, :6].reshape(num_orders * 2, 1, 3).sigmoid() * torch.tensor([1.0, 2.0, 3.0])
    taken = discounts @ evidence.token_class.view(-1, 3, num_places)
    freed = discounts @ evidence.classes.view(-1, 3, num_places)
    logits = rows[:, 6:].reshape(num_orders, 2, NUM_FEATURES) @ evidence.features
    weights = torch.cat([logits, torch.zeros(num_orders, 1, num_places)], dim=1).softmax(dim=1)
    counted = weights[:, :2]
    # Rounding in single precision must not push a share below 0.
    kept = (evidence.shares - taken.view_as(evidence.shares)).clamp_min(0)
    shares = (counted * kept).sum(dim=1)
    backoffs = weights[:, 2] + (counted * freed.view_as(evidence.shares)).sum(dim=1)
    shares = torch.where(evidence.is_seen, shares, 0.0)
    backoffs = torch.where(evidence.is_seen, backoffs, 1.0)
    probs = torch.full((num_places,), 1 / evidence.vocabulary_size)
    for share, backoff in zip(shares, backoffs, strict=True):
        probs = share + backoff * probs
    return probs


def _fitted(evidence: Evidence, order: int, iterations: int) -> Tensor:
    """The numbers that maximise likelihood times a broad Gaussian prior: (K, 14)."""
    start = torch.zeros(order, NUM_TUNED)
    start[:, [6, 6 + NUM_FEATURES]] = 2.0  # trust counts rather than the order below
    rows = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([rows], max_iter=iterations, line_search_fn="strong_wolfe")
    num_places = evidence.shares.shape[2]

    def loss() -> Tensor:
        optimizer.zero_grad()
        distance = ((rows - start) / PRIOR_DEVIATION).square().sum() / 2
        nats = -probabilities(evidence, rows).log().mean() + distance / num_places
        nats.backward()  # type: ignore[no-untyped-call]
        return nats

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return rows.detach()
