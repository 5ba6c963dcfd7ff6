import math

import pytest
import torch
from torch import Tensor

from benchmarks.mixture import MixtureConfig, TokenMixture, fitted_mixture, mixed_scores
from models.ngram.config import NgramConfig
from models.ngram.model import NgramModel
from models.text.decoding import generate


def text(seed: int, length: int = 2000) -> Tensor:
    """Tokens of which each third repeats the one before it."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 6, (length,), generator=generator)
    tokens[2::3] = tokens[1::3][: len(tokens[2::3])]
    return tokens


def member(order: int, seed: int = 0) -> NgramModel:
    return NgramModel.fit(text(seed).numpy(), 6, NgramConfig(order=order))


@pytest.fixture
def mixture() -> TokenMixture:
    return TokenMixture(member(3), member(1), MixtureConfig(bias=0.3, trust=0.2, decay=0.8))


def test_weights_by_hand() -> None:
    first = torch.tensor([0.5, 0.25, 0.5]).log()
    second = torch.tensor([0.125, 0.5, 0.25]).log()
    config = MixtureConfig(bias=0.0, trust=1.0, decay=0.5)

    # The odds begin even; 4 : 1 after the first token; then the half of that, times 1 : 2.
    odds = [1.0, 4.0, math.sqrt(4.0) / 2]
    weights = [odd / (1 + odd) for odd in odds]
    w = torch.tensor(weights)
    expected = w * first.exp() + (1 - w) * second.exp()
    torch.testing.assert_close(mixed_scores(first, second, config).exp(), expected)


def test_members_of_different_precision_mix_alike() -> None:
    first, second = torch.rand(2, 100, generator=torch.Generator().manual_seed(0)).log()
    config = MixtureConfig(bias=0.3, trust=0.2, decay=0.8)

    expected = mixed_scores(first.double(), second.double(), config)
    torch.testing.assert_close(mixed_scores(first, second.double(), config), expected)
    torch.testing.assert_close(mixed_scores(first, second, config).double(), expected)


def test_next_token_probabilities_sum_to_one(mixture: TokenMixture) -> None:
    stream = mixture.stream(4)
    tokens = text(1, 40).view(4, 10)

    for token in tokens.split(1, dim=1):
        total = stream.feed(token).exp().sum(dim=1)
        torch.testing.assert_close(total, torch.ones(4), rtol=0, atol=1e-5)


def test_streaming_and_scoring_agree(mixture: TokenMixture) -> None:
    tokens = text(2, 150)  # more than the memory holds
    scores = mixture.score(tokens)
    stream = mixture.stream(1)

    streamed = [
        stream.feed(tokens[None, t : t + 1])[0, tokens[t + 1]] for t in range(len(tokens) - 1)
    ]
    # A stream says nothing of the first token, so it begins to compare members one later.
    first, second = mixture.first.score(tokens), mixture.second.score(tokens)
    without = mixed_scores(first[1:], second[1:], mixture.config)
    torch.testing.assert_close(torch.stack(streamed), without.float(), rtol=0, atol=1e-4)
    assert len(scores) == len(tokens)


def test_the_future_has_no_influence(mixture: TokenMixture) -> None:
    tokens = text(3, 60)
    changed = tokens.clone()
    changed[40] = (changed[40] + 1) % 6

    torch.testing.assert_close(mixture.score(tokens)[:40], mixture.score(changed)[:40])


def test_fitting_finds_weights_that_beat_both_members_and_constant_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    writer = torch.randint(0, 2, (200,), generator=generator).repeat_interleave(20)  # takes turns
    good, bad = math.log(0.6), math.log(0.1)
    first = torch.where(writer == 0, good, bad)
    second = torch.where(writer == 1, good, bad)

    config = fitted_mixture(first, second)
    mixed = mixed_scores(first, second, config).mean()
    constant = torch.logaddexp(first, second).sub(math.log(2)).mean()

    assert config.trust > 0.1
    assert mixed > constant + 0.1
    assert mixed > max(first.mean(), second.mean()) + 0.1


def test_a_mixture_writes_like_any_token_model(mixture: TokenMixture) -> None:
    tokens = generate(mixture, torch.tensor([1, 2]), num_tokens=12, num_sequences=3, seed=5)

    assert tokens.shape == (3, 12)
    assert int(tokens.max()) < 6
    again = generate(mixture, torch.tensor([1, 2]), num_tokens=12, num_sequences=3, seed=5)
    torch.testing.assert_close(tokens, again)


def test_members_must_share_a_vocabulary() -> None:
    other = NgramModel.fit(text(0).numpy(), 7, NgramConfig(order=1))

    with pytest.raises(ValueError, match="vocabularies of 6 and 7"):
        TokenMixture(member(2), other, MixtureConfig())


@pytest.mark.parametrize("field", [{"decay": 1.5}, {"decay": -0.1}, {"bias": math.inf}])
def test_settings_that_make_no_sense_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        MixtureConfig(**field)
