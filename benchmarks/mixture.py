"""Two token models as one: their probabilities, mixed by how well each has done lately.

At each token the log-odds of the first member are a constant plus the decayed sum of how much
better it predicted the tokens before: Bayes' rule for "which of the two is writing", with a memory
that fades. Weights depend on the past alone, so the mixture is a distribution over next tokens.

References: Herbster and Warmuth 1998, "Tracking the best expert"; Willems et al. 1995 (mixing in
data compression).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.text.decoding import TokenModel

MEMORY = 64
"""Tokens back from which a success still counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureConfig:
    """How the members' weights come about."""

    bias: float = 0.0
    """Log-odds of the first member when nothing is known."""
    trust: float = 0.0
    """How much a nat of recent advantage moves the log-odds; 0 leaves the weights constant."""
    decay: float = 0.9
    """Fraction of an advantage that is left one token later."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bias) and math.isfinite(self.trust)):
            raise ValueError(f"bias and trust must be finite, got {self.bias} and {self.trust}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must lie between 0 and 1, got {self.decay}")


class TokenMixture:
    """A token model made of two: it scores and streams like either."""

    def __init__(self, first: TokenModel, second: TokenModel, config: MixtureConfig) -> None:
        if first.vocabulary_size != second.vocabulary_size:
            raise ValueError(
                "both members must know the same tokens, got vocabularies of"
                f" {first.vocabulary_size} and {second.vocabulary_size}"
            )
        self.first, self.second, self.config = first, second, config

    @property
    def vocabulary_size(self) -> int:
        """Token ids run from 0 to vocabulary_size - 1."""
        return self.first.vocabulary_size

    @property
    def context_length(self) -> int:
        """At most this many tokens before a token influence its probability."""
        return max(self.first.context_length, self.second.context_length) + MEMORY

    def score(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Natural log-probabilities of tokens[start:], (N,) int64 to (N - start,)."""
        scores = self.first.score(tokens), self.second.score(tokens)
        return mixed_scores(*scores, self.config)[start:]

    def stream(self, num_sequences: int) -> "MixtureStream":
        """A stream of `num_sequences` empty texts."""
        return MixtureStream(self, num_sequences)


class MixtureStream:
    """Texts that grow token by token, and how well each member has predicted them."""

    def __init__(self, mixture: TokenMixture, num_sequences: int) -> None:
        self.config = mixture.config
        self._streams = [m.stream(num_sequences) for m in (mixture.first, mixture.second)]
        self._log_probs: list[Tensor] = []
        self._advantages: list[Tensor] = []  # the latest MEMORY ones, newest first, each (B, 1)

    def feed(self, tokens: Tensor) -> Tensor:
        """Append (B, t) int64, t >= 1; returns log-probabilities of the next token, (B, V)."""
        for token in tokens.unbind(dim=1):
            if self._log_probs:
                first, second = (known.gather(1, token[:, None]) for known in self._log_probs)
                self._advantages = [first - second, *self._advantages[: MEMORY - 1]]
            self._log_probs = [stream.feed(token[:, None]).float() for stream in self._streams]
        log_odds = torch.full_like(self._log_probs[0][:, :1], self.config.bias)
        for age, advantage in enumerate(self._advantages):
            log_odds += self.config.trust * self.config.decay**age * advantage
        return _mixed(self._log_probs[0], self._log_probs[1], log_odds)


def mixed_scores(first: Tensor, second: Tensor, config: MixtureConfig) -> Tensor:
    """The mixture's log-probabilities of a text from those of its members, all (N,)."""
    settings = (torch.tensor(value) for value in (config.bias, config.trust, config.decay))
    return _mixed(first, second, _log_odds(first, second, *settings))


def fitted_mixture(first: Tensor, second: Tensor) -> MixtureConfig:
    """The weights under which the members together predict a held-out text best.

    first, second: the members' natural log-probabilities of the same text, (N,) each.
    """
    first, second = first.double(), second.double()
    raw = torch.tensor([0.0, -2.0, 2.0], dtype=torch.float64, requires_grad=True)

    def settings() -> tuple[Tensor, Tensor, Tensor]:
        return raw[0], F.softplus(raw[1]), raw[2].sigmoid()

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -_mixed(first, second, _log_odds(first, second, *settings())).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer = torch.optim.LBFGS([raw], max_iter=100, line_search_fn="strong_wolfe")
    optimizer.step(loss)  # type: ignore[no-untyped-call]
    bias, trust, decay = (float(value.detach()) for value in settings())
    return MixtureConfig(bias=bias, trust=trust, decay=decay)


def _log_odds(first: Tensor, second: Tensor, bias: Tensor, trust: Tensor, decay: Tensor) -> Tensor:
    """Log-odds of the first member at each token, from the tokens before it: (N,).

    bias, trust, decay: scalars, on the CPU whatever the device of the scores.
    """
    # Token t sees the advantages of t - MEMORY to t - 1.
    advantages = F.pad(first - second, (MEMORY, 0))[:-1]
    bias, trust, decay = (setting.to(advantages) for setting in (bias, trust, decay))
    ages = torch.arange(MEMORY - 1, -1, -1).to(advantages)
    fading = decay**ages
    remembered = F.conv1d(advantages[None, None], fading[None, None])[0, 0]
    return bias + trust * remembered


def _mixed(first: Tensor, second: Tensor, log_odds: Tensor) -> Tensor:
    """The logarithm of the weighted mean of two probabilities."""
    return torch.logaddexp(F.logsigmoid(log_odds) + first, F.logsigmoid(-log_odds) + second)
