"""Interpolated modified Kneser-Ney: the next token predicted by counting, without a neural network.

Each order k refines the order below it: p_k(w | h) = u_k(h, w) + backoff_k(h) p_{k-1}(w | h'),
where u_k is the share of w in the discounted counts after the context h, backoff_k(h) is the mass
that discounting freed there, and h' is h without its first token. Order 0 is uniform. A tuned
config (`models.ngram.tuning`) changes u and backoff; all else stays.

References: Chen & Goodman 1998, "An empirical study of smoothing techniques for language
modeling"; Heafield et al. 2013, "Scalable modified Kneser-Ney language model estimation" (KenLM,
whose numbers this model reproduces).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.memory_maps import release
from models.ngram.attribution import Level, explained
from models.ngram.backoff import BackoffModel, symbols_of
from models.ngram.config import NgramConfig
from models.ngram.counting import MarkedText, NgramTable, check_ids, count_ngrams
from models.ngram.external_sort import ExternalSortConfig
from models.ngram.keys import BEGIN, Integers
from models.ngram.smoothing import Floats
from models.ngram.stream import NgramStream

if TYPE_CHECKING:  # counting needs NumPy alone, and torch takes longer to import than to count
    from torch import Tensor

SCORED_AT_ONCE = 1 << 18


class NgramModel(BackoffModel):
    """A table of counts and what follows from it: the probability of every token after any other.

    Tokens are ids in 0 to vocabulary_size - 1; ids that the training text lacks share the mass that
    unigram discounting freed evenly with all others. At the start of a text the context is the mark
    of a sentence's beginning.
    """

    @classmethod
    def fit(
        cls,
        tokens: NDArray[np.integer],
        vocabulary_size: int,
        config: NgramConfig | None = None,
        spill: ExternalSortConfig | None = None,
    ) -> "NgramModel":
        """Count a text. tokens: (N,) ids in 0 to vocabulary_size - 1, N >= 1.

        With `spill`, counting keeps within its memory, whatever the text's length, and the tables
        are mapped from disk; the model is the same. Raises OSError when that disk is full.
        """
        config = config or NgramConfig()
        if len(tokens) == 0:
            raise ValueError("the training text has no tokens; an n-gram model needs at least one")
        if config.sentence_end is not None:
            check_ids(config.sentence_end, config.sentence_end, vocabulary_size)
        seen_tokens = _seen_tokens(tokens, vocabulary_size)
        text = MarkedText(tokens, symbols_of(seen_tokens, vocabulary_size), config.sentence_end)
        tables = count_ngrams(text, len(seen_tokens) + 1, config.order, spill)
        return cls(config, vocabulary_size, seen_tokens, tables)

    def score(self, tokens: "Tensor", start: int = 0) -> "Tensor":
        """Natural log-probabilities of tokens[start:], each given the tokens before it.

        tokens: (N,) int64, the beginning of a text. Returns (N - start,) float64.
        """
        import torch

        ids = tokens.cpu().numpy()
        if len(ids):
            check_ids(int(ids.min()), int(ids.max()), self.vocabulary_size)
        parts = [np.empty(0)]
        for first in range(start, len(ids), SCORED_AT_ONCE):
            context_start = max(0, first - self.context_length)
            probs = self._probabilities(
                ids[context_start : first + SCORED_AT_ONCE], is_beginning=context_start == 0
            )
            parts.append(np.log(probs[first - context_start :]))
        return torch.from_numpy(np.concatenate(parts)).to(tokens.device)

    def _probabilities(self, ids: Integers, is_beginning: bool) -> Floats:
        """Probability of each token given those before it: (n,) to (n,)."""
        symbols = self.symbols(ids, is_beginning=is_beginning)
        probs = np.full(len(symbols), 1 / self.vocabulary_size)
        for k, contexts, ranks in self.ranked(symbols):
            probs = self.shares(k)[ranks] + self.backoffs(k)[contexts] * probs
        predicted: Floats = probs[symbols != BEGIN]
        return predicted

    def stream(self, num_sequences: int) -> NgramStream:
        """Texts that grow side by side."""
        return NgramStream(self, num_sequences)

    def explain(self, context: Sequence[int], token: int) -> list[Level]:
        """How the probability of `token` after `context` came about, from order 1 upwards.

        context: the tokens before it from the beginning of the text, or at least context_length of
        them. The last level's probability is the model's.
        """
        return explained(self, context, token)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole model, but for its config: counts by order, from which all else follows."""
        named = {"seen_tokens": self.seen_tokens, "vocabulary_size": np.array(self.vocabulary_size)}
        for k, table in enumerate(self.tables, 1):
            named |= {f"keys_{k}": table.keys, f"counts_{k}": table.counts}
            named |= {f"num_left_{k}": table.num_left}
        return named

    def tensors(self) -> "dict[str, Tensor]":
        """The same as tensors."""
        import torch

        return {name: torch.from_numpy(array) for name, array in self.arrays().items()}

    @classmethod
    def from_tensors(cls, config: NgramConfig, tensors: "Mapping[str, Tensor]") -> "NgramModel":
        """Rebuild a model from its `tensors()` and the config it was fitted with."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        tables = [
            NgramTable(arrays[f"keys_{k}"], arrays[f"counts_{k}"], arrays[f"num_left_{k}"])
            for k in range(1, config.order + 1)
        ]
        return cls(config, int(arrays["vocabulary_size"]), arrays["seen_tokens"], tables)


def _seen_tokens(tokens: NDArray[np.integer], vocabulary_size: int) -> Integers:
    """The ids that occur in a text, a part at a time, as NumPy counts copies of 64 bits each."""
    is_seen = np.zeros(vocabulary_size, bool)
    for first in range(0, len(tokens), SCORED_AT_ONCE):
        part = tokens[first : first + SCORED_AT_ONCE]
        check_ids(int(part.min()), int(part.max()), vocabulary_size)
        is_seen |= np.bincount(part, minlength=vocabulary_size) > 0
        release(tokens)
    return np.flatnonzero(is_seen)
