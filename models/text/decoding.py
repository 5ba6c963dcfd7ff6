"""Sampling text from any token model: temperature, top-k, top-p and min-p.

A token model may be a transformer or a table of counts: it says which log-probability each next
token has, and everything else happens here.

References: Holtzman et al. 2020, "The curious case of neural text degeneration" (top-p);
Nguyen et al. 2025, "Turning up the heat: min-p sampling" (min-p).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.training.batches import generator_at

SAMPLING_STREAM = 3


class TokenStream(Protocol):
    """Texts that grow side by side, and what may come next in each."""

    def feed(self, tokens: Tensor) -> Tensor:
        """Append tokens, (B, t) int64 with t >= 1, to the B texts.

        Returns the natural log-probabilities of the token after all that was fed: (B, V).
        """
        ...


class TokenModel(Protocol):
    """What the decoder and the evaluation ask of a model of token sequences."""

    @property
    def vocabulary_size(self) -> int:
        """Token ids run from 0 to vocabulary_size - 1."""
        ...

    @property
    def context_length(self) -> int:
        """At most this many tokens before a token influence its probability."""
        ...

    def score(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Natural log-probabilities of tokens[start:], each given the tokens before it.

        tokens: (N,) int64. Returns (N - start,).
        """
        ...

    def stream(self, num_sequences: int) -> TokenStream:
        """A stream of `num_sequences` empty texts."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodingConfig:
    """How freely to sample. The defaults sample from the model as it is.

    The filters act in the order of the fields, each on what the ones before it left.
    """

    temperature: float = 1.0
    """Log-probabilities are divided by this; towards 0 the likeliest token always wins."""
    top_k: int = 0
    """Only the k likeliest tokens; 0 allows all."""
    top_p: float = 1.0
    """Only the fewest likeliest tokens that together have at least this probability."""
    min_p: float = 0.0
    """Only tokens at least this fraction as likely as the likeliest; 0 allows all."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(
                f"temperature must be a positive number, got {self.temperature};"
                " a small one such as 0.01 always takes the likeliest token"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or positive, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie above 0 and at most at 1 (off), got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must lie between 0 (off) and 1, got {self.min_p}")


def filtered_log_probs(log_probs: Tensor, config: DecodingConfig) -> Tensor:
    """The distribution that is sampled from, as log-probabilities: (B, V) to (B, V) float64.

    Excluded tokens get -inf, the others are normalised again. Of equally likely tokens at the
    border the ones with lower ids stay. At least one token always stays.
    """
    peak = log_probs.max(dim=-1, keepdim=True).values
    # With the peak at 0, no temperature, however small, can push every token to -inf.
    tempered = ((log_probs - peak).double() / config.temperature).log_softmax(dim=-1)
    if config.top_k == 0 and config.top_p == 1 and config.min_p == 0:
        return tempered
    ranked, tokens = tempered.sort(dim=-1, descending=True, stable=True)
    if config.top_k:
        ranked[:, config.top_k :] = -math.inf
    if config.top_p < 1:
        probs = ranked.softmax(dim=-1)
        mass_before = probs.cumsum(dim=-1) - probs
        ranked = ranked.masked_fill(mass_before >= config.top_p, -math.inf)
    if config.min_p:
        too_rare = ranked < ranked[:, :1] + math.log(config.min_p)
        ranked = ranked.masked_fill(too_rare, -math.inf)
    kept = torch.empty_like(ranked).scatter_(-1, tokens, ranked)
    return kept.log_softmax(dim=-1)


def generate(
    model: TokenModel,
    prompt: Tensor,
    *,
    num_tokens: int,
    num_sequences: int = 1,
    config: DecodingConfig | None = None,
    seed: int = 0,
) -> Tensor:
    """Continue a prompt in several independent ways.

    prompt: (t,) int64 with t >= 1, on the model's device. Returns (num_sequences, num_tokens)
    int64: the continuations without the prompt. The same seed gives the same tokens; torch's
    global generator is neither read nor moved.
    """
    if num_tokens < 1 or num_sequences < 1:
        raise ValueError(
            f"num_tokens and num_sequences must be at least 1, got {num_tokens} and {num_sequences}"
        )
    tokens = generated(
        model,
        prompt,
        num_tokens=num_tokens,
        num_sequences=num_sequences,
        config=config,
        seed=seed,
    )
    return torch.cat(list(tokens), dim=1)


@torch.inference_mode()
def generated(
    model: TokenModel,
    prompt: Tensor,
    *,
    num_tokens: int,
    num_sequences: int = 1,
    config: DecodingConfig | None = None,
    seed: int = 0,
) -> Iterator[Tensor]:
    """What `generate` gives, token by token as it is written: num_tokens times (B, 1) int64."""
    if len(prompt) == 0:
        raise ValueError("the prompt is empty; give at least one token, for example a newline")
    config = config or DecodingConfig()
    generator = generator_at(seed, 0, SAMPLING_STREAM)
    uniforms = torch.rand(
        num_tokens, num_sequences, 1, generator=generator, dtype=torch.float64
    ).to(prompt.device)
    stream = model.stream(num_sequences)
    fed = prompt.expand(num_sequences, -1)  # (B, t)
    for uniform in uniforms:
        fed = _sample(filtered_log_probs(stream.feed(fed), config), uniform)  # (B, 1)
        yield fed


def _sample(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative probability passes a uniform number: (B, 1)."""
    cumulative = log_probs.exp().cumsum(dim=-1)
    tokens = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return tokens.clamp_(max=log_probs.shape[-1] - 1)
