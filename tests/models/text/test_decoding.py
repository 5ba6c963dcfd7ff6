import math
from collections import Counter

import pytest
import torch

from benchmarks.mixture import MixtureConfig, TokenMixture
from models.gpt.config import GptConfig
from models.gpt.model import Gpt
from models.ngram.config import NgramConfig
from models.ngram.model import NgramModel
from models.text.decoding import DecodingConfig, filtered_log_probs, generate, generated

PROBS = [0.4, 0.3, 0.2, 0.1]


class FixedModel:
    """A token model whose next token never depends on the text; it keeps what it was fed."""

    context_length = 5

    def __init__(self, probs):
        self.log_probs = torch.tensor(probs).log()
        self.vocabulary_size = len(probs)
        self.fed = []

    def score(self, tokens, start=0):
        return self.log_probs[tokens[start:]]

    def stream(self, num_sequences):
        assert num_sequences > 0
        return self

    def feed(self, tokens):
        self.fed.append(tokens.clone())
        return self.log_probs.expand(len(tokens), -1)


class CountingModel(FixedModel):
    """After token t comes t + 1, always: shows that each sample is fed back."""

    def feed(self, tokens):
        following = (tokens[:, -1] + 1) % self.vocabulary_size
        return torch.nn.functional.one_hot(following, self.vocabulary_size).float().log()


def filtered(probs=PROBS, **options):
    log_probs = torch.tensor([probs], dtype=torch.float64).log()
    return filtered_log_probs(log_probs, DecodingConfig(**options)).exp()[0].tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        # Squared and divided by their sum: 0.16 + 0.09 + 0.04 + 0.01 = 0.3.
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_k": 99}, [0.4, 0.3, 0.2, 0.1]),
        # 0.4 + 0.3 reaches 0.65; for 0.75 the third is needed.
        ({"top_p": 0.65}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.75}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"top_p": 1e-9}, [1, 0, 0, 0]),
        # At least 0.6 * 0.4 = 0.24.
        ({"min_p": 0.6}, [4 / 7, 3 / 7, 0, 0]),
        ({"min_p": 1.0}, [1, 0, 0, 0]),
        # Among the three likeliest, the first two have 7/9 = 0.78 of the mass.
        ({"top_k": 3, "top_p": 0.77}, [4 / 7, 3 / 7, 0, 0]),
        # Tempering comes first: 16/30 alone passes a half.
        ({"temperature": 0.5, "top_p": 0.5}, [1, 0, 0, 0]),
        # And so for min-p: (0.2 / 0.4) ** 2 = 0.25 is below 0.3.
        ({"temperature": 0.5, "min_p": 0.3}, [16 / 25, 9 / 25, 0, 0]),
    ],
)
def test_filters_leave_the_probabilities_worked_by_hand(options, expected):
    assert filtered(**options) == pytest.approx(expected, abs=1e-12)


def test_filters_put_each_probability_back_at_its_token():
    assert filtered([0.1, 0.4, 0.2, 0.3], top_k=2) == pytest.approx([0, 4 / 7, 0, 3 / 7])


def test_ties_at_the_border_keep_the_lower_ids():
    assert filtered([0.25] * 4, top_k=2) == pytest.approx([0.5, 0.5, 0, 0])


@pytest.mark.parametrize("temperature", [1e-3, 1e-40, 5e-324])
def test_a_temperature_near_zero_takes_the_likeliest_token(temperature):
    probs = filtered([0.2, 0.3, 0.5, 0.0], temperature=temperature)

    assert probs == pytest.approx([0, 0, 1, 0], abs=1e-12)


def test_an_impossible_token_stays_impossible():
    assert filtered([0.5, 0.0, 0.5, 0.0], temperature=50.0)[1::2] == [0, 0]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("min_p", math.nan),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} must .* got {value}"):
        DecodingConfig(**{option: value})


def test_the_same_seed_gives_the_same_tokens():
    model, prompt = FixedModel(PROBS), torch.tensor([1])
    first = generate(model, prompt, num_tokens=20, num_sequences=3, seed=7)
    torch.manual_seed(99)
    again = generate(model, prompt, num_tokens=20, num_sequences=3, seed=7)
    other = generate(model, prompt, num_tokens=20, num_sequences=3, seed=8)

    assert first.shape == (3, 20)
    assert first.dtype == torch.int64
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_sampling_does_not_move_the_global_generator():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    generate(FixedModel(PROBS), torch.tensor([0]), num_tokens=5)

    assert torch.equal(torch.rand(2), expected)


def test_samples_follow_the_distribution():
    tokens = generate(
        FixedModel([0.4, 0.0, 0.6]), torch.tensor([0]), num_tokens=50, num_sequences=200, seed=1
    )
    counts = Counter(tokens.flatten().tolist())

    assert counts[1] == 0
    # Binomial: the standard deviation of the share among 10 000 draws is 0.0049.
    assert counts[0] / 10_000 == pytest.approx(0.4, abs=0.02)


def test_the_stream_sees_the_prompt_once_and_then_each_sample():
    model = FixedModel(PROBS)
    tokens = generate(model, torch.tensor([3, 1, 2]), num_tokens=4, num_sequences=2)

    assert model.fed[0].tolist() == [[3, 1, 2], [3, 1, 2]]
    assert torch.equal(torch.cat(model.fed[1:], dim=1), tokens[:, :-1])


def test_each_sample_is_the_context_of_the_next():
    tokens = generate(CountingModel([0.1] * 10), torch.tensor([6]), num_tokens=6)

    assert tokens.tolist() == [[7, 8, 9, 0, 1, 2]]


def test_impossible_requests_are_refused():
    model = FixedModel(PROBS)
    with pytest.raises(ValueError, match="prompt is empty"):
        generate(model, torch.tensor([], dtype=torch.long), num_tokens=1)
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        generate(model, torch.tensor([0]), num_tokens=0)


def gpt():
    """Every weight random: as it is built, a GPT finds all tokens equally likely."""
    torch.manual_seed(5)
    model = Gpt(GptConfig(vocabulary_size=9, context_length=8, num_layers=1, num_heads=1, width=8))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return model


def ngram():
    text = torch.randint(9, (500,), generator=torch.Generator().manual_seed(2))
    return NgramModel.fit(text.numpy(), 9, NgramConfig(order=3))


def mixture():
    return TokenMixture(gpt(), ngram(), MixtureConfig(bias=0.5, trust=0.3, decay=0.9))


@pytest.mark.parametrize("make", [gpt, ngram, mixture])
@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_the_strictest_filters_make_every_model_take_its_likeliest_token(make, options):
    model, prompt = make(), torch.tensor([3, 1])
    stream, fed, likeliest = model.stream(1), prompt[None], []
    for _ in range(12):  # past the context of the GPT
        fed = stream.feed(fed).argmax(dim=1, keepdim=True)
        likeliest.append(int(fed))
    config = DecodingConfig(**options)
    tokens = generate(model, prompt, num_tokens=12, num_sequences=2, config=config, seed=1)

    assert tokens.tolist() == [likeliest, likeliest]


@pytest.mark.parametrize("make", [gpt, ngram, mixture])
def test_every_model_is_sampled_at_its_own_probabilities_and_tempered_ones(make):
    model, prompt = make(), torch.tensor([3, 1])
    log_probs = model.stream(1).feed(prompt[None])[0].double()
    for temperature in (1.0, 0.5, 2.0):
        config = DecodingConfig(temperature=temperature)
        drawn = generate(model, prompt, num_tokens=1, num_sequences=4000, config=config)
        shares = torch.bincount(drawn[:, 0], minlength=9) / 4000
        expected = (log_probs / temperature).softmax(dim=0)

        # The standard deviation of a share is at most 0.008.
        assert (shares - expected).abs().max() < 0.035


def test_tokens_come_one_by_one_and_are_those_of_the_whole():
    model = FixedModel(PROBS)
    prompt = torch.tensor([0])
    options = {"num_tokens": 5, "num_sequences": 2, "seed": 3}

    singles = generated(model, prompt, **options)
    first = next(singles)

    assert first.shape == (2, 1)
    torch.testing.assert_close(
        torch.cat([first, *singles], dim=1), generate(model, prompt, **options)
    )
