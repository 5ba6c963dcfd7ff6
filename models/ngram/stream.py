"""Texts that grow token by token under an n-gram model, many side by side.

What a text remembers is one rank per order: that of the context it ends with.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.ngram.backoff import BackoffModel
from models.ngram.counting import UNKNOWN, check_ids
from models.ngram.keys import BEGIN, Integers
from models.ngram.smoothing import Floats

if TYPE_CHECKING:
    from torch import Tensor


class NgramStream:
    """The state of B texts: for each order, the rank of the context that each text ends with."""

    def __init__(self, model: BackoffModel, num_sequences: int) -> None:
        self.model = model
        self.contexts = np.full((model.config.order, num_sequences), UNKNOWN, np.int64)
        self._followers: dict[int, tuple[Integers, Integers, Integers]] = {}
        """By order, what can follow the texts as they are; known once that was asked."""
        self._begin(np.ones(num_sequences, bool))

    def feed(self, tokens: "Tensor") -> "Tensor":
        """Append tokens, (B, t) int64, t >= 0.

        Returns the natural log-probabilities of the token after all that was fed: (B, V) float64.
        """
        import torch

        self.append(tokens.cpu().numpy())
        return torch.from_numpy(self._log_probs()).to(tokens.device)

    def append(self, ids: Integers) -> None:
        """Append tokens, (B, t), t >= 0, without asking what follows."""
        if ids.size:
            check_ids(int(ids.min()), int(ids.max()), self.model.vocabulary_size)
        for column in ids.T[-max(1, self.model.context_length) :]:  # nothing earlier matters
            self._advance(column)

    def _begin(self, where: NDArray[np.bool_]) -> None:
        self.contexts[0] = 0  # the empty context
        self.contexts[1:, where] = UNKNOWN
        self.contexts[1:2, where] = BEGIN

    def _advance(self, ids: Integers) -> None:
        symbols = self.model.symbol_of[ids]
        followers, self._followers = self._followers, {}
        for k in range(self.model.context_length, 0, -1):  # each from the order below, still old
            if k in followers:  # several times faster than to search the table
                texts, following, ranks = followers[k]
                is_it = following == symbols[texts]
                self.contexts[k] = UNKNOWN
                self.contexts[k, texts[is_it]] = ranks[is_it]
            else:
                self.contexts[k] = self.model.extended(k, self.contexts[k - 1], symbols)
        if self.model.config.sentence_end is not None:
            self._begin(ids == self.model.config.sentence_end)

    def _log_probs(self) -> Floats:
        """What low orders say is looked up, higher ones add to it: (B, V)."""
        model, num_texts = self.model, self.contexts.shape[1]
        rows, num_dense = np.zeros(num_texts, np.int64), len(model.dense.first_rows)
        for first_row, contexts in zip(model.dense.first_rows, self.contexts, strict=False):
            rows = np.where(contexts >= 0, first_row + contexts, rows)
        scale = np.ones(num_texts)
        added = []
        for k in range(model.config.order, num_dense, -1):
            contexts = self.contexts[k - 1]
            texts, symbols, ranks = self._followers[k] = model.followers(k, contexts)
            added.append((texts, symbols, model.shares(k)[ranks] * scale[texts]))
            scale *= model.backoffs(k)[contexts]
        probs = model.dense.probs[rows] * scale[:, None]  # (B, S)
        for texts, symbols, shares in added:
            probs[texts, symbols] += shares
        # Nothing was added to column BEGIN, so it holds what each unseen token has.
        log_probs: Floats = np.log(probs)[:, np.maximum(model.symbol_of, BEGIN)]
        return log_probs
