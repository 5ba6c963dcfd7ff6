import math
from dataclasses import replace

import pytest
import torch

from models.gpt.config import GptConfig
from models.gpt.model import Gpt, make_optimizer, ngram_rows
from models.gpt.muon import MuonWithAdam, orthogonalised
from models.text.decoding import generate
from models.training.batches import TokenBatches
from models.training.checkpoint import TrainingState, num_parameters
from models.training.config import FitConfig
from models.training.loops import likelihood_steps

CONFIG = GptConfig(
    vocabulary_size=11,
    context_length=8,
    num_layers=2,
    num_heads=2,
    width=16,
    max_ngram=3,
    ngram_rows=64,
)


def busy_gpt(**options):
    """A GPT with no zero weights: at initialisation every block is the identity."""
    torch.manual_seed(5)
    model = Gpt(replace(CONFIG, **options))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def random_tokens(*shape):
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(1))


def test_a_future_token_never_changes_a_past_logit():
    model, tokens = busy_gpt(), random_tokens(1, 8)
    logits = model(tokens)[0]
    for position in range(8):
        changed = tokens.clone()
        changed[0, position] = (changed[0, position] + 1) % 11
        difference = (model(changed)[0] - logits).abs().amax(dim=-1)

        assert torch.equal(difference[:position], torch.zeros(position))
        assert (difference[position:] > 1e-4).all()  # every later token does see it


def test_the_order_of_past_tokens_matters():
    model = busy_gpt()
    one, other = model(torch.tensor([[1, 2, 3]])), model(torch.tensor([[2, 1, 3]]))

    assert (one[0, -1] - other[0, -1]).abs().max() > 1e-3


def test_an_ngram_has_the_same_row_wherever_it_stands():
    rows = ngram_rows(torch.tensor([[5, 1, 2, 3, 1, 2, 9, 1, 2]]), 3, 1000)[0]  # (T, 2)
    pairs, triples = rows[:, 0], rows[:, 1]

    assert pairs[2] == pairs[5] == pairs[8]  # 1 2
    assert len(set(pairs.tolist())) == 7
    assert triples[2] != triples[5] != triples[8]  # 5 1 2, 3 1 2, 9 1 2
    assert len(set(triples.tolist())) == 9
    assert pairs.max() < 1000 <= triples.min()
    assert triples.max() < 2000


def test_ngrams_spread_over_the_rows():
    tokens = torch.cartesian_prod(torch.arange(60), torch.arange(60))
    rows = ngram_rows(tokens, 2, 4096)[:, 1, 0]

    # 3600 balls in 4096 urns at random leave 4096 * exp(-3600 / 4096) = 1701 of them empty.
    assert len(rows.unique()) > 4096 - 1850


def test_an_untrained_model_is_uniform():
    terms = Gpt(CONFIG).losses((random_tokens(4, 8), random_tokens(4, 8)), 0)

    assert terms["loss"].item() == pytest.approx(math.log(11), rel=1e-6)


def test_the_parameters_can_be_counted_by_hand():
    # Embedding and head 2 * 11 * 16; per layer 4 attention matrices of 16 * 16 and 2 of 16 * 64;
    # 64 rows for pairs and 64 for triples.
    blocks = 2 * (4 * 16 * 16 + 2 * 16 * 64)
    assert num_parameters(Gpt(CONFIG)) == 2 * 11 * 16 + blocks + 2 * 64 * 16
    assert num_parameters(Gpt(replace(CONFIG, max_ngram=1))) == 2 * 11 * 16 + blocks


def test_one_batch_can_be_learned_by_heart():
    windows = random_tokens(4, 9)
    windows[:, 0] = torch.arange(4)  # nothing else tells the four texts apart at their start
    inputs, targets = windows[:, :-1], windows[:, 1:]
    fit = FitConfig(steps=60, batch_size=4, learning_rate=0.02, warmup_steps=5)
    torch.manual_seed(0)
    model = Gpt(CONFIG)
    optimizer = make_optimizer(model, fit)
    for step in likelihood_steps(model, optimizer, lambda _: (inputs, targets), fit):
        loss = step.numbers()["loss"]

    assert loss < 0.05


@pytest.mark.parametrize(("start", "stride"), [(0, None), (0, 8), (1, 3), (5, None), (17, 8)])
def test_a_score_is_that_of_a_window_with_enough_context(start, stride):
    """The first scored token of a window has 8 - stride + 1 inputs behind it, the last all 8."""
    model, tokens = busy_gpt(), random_tokens(30)
    scores = model.score(tokens, start, stride)
    stride = stride or 4

    assert scores.shape == (30 - start,)
    for position in range(max(1, start), 30):
        num_inputs = 8 - stride + 1 + (position - max(1, start)) % stride
        last = max(1, start) + (position - max(1, start)) // stride * stride + stride - 1
        num_inputs += max(0, last - 29)  # the last window is moved back to the end of the text
        window = tokens[None, max(0, position - num_inputs) : position]
        expected = model(window)[0, -1].log_softmax(-1)[tokens[position]]
        assert scores[position - start] == pytest.approx(expected.item(), abs=1e-5)
    if start == 0:
        assert scores[0] == pytest.approx(-math.log(11))


def test_a_stride_of_one_gives_every_token_the_full_context():
    model, tokens = busy_gpt(), random_tokens(20)
    expected = model(tokens.unfold(0, 8, 1)[:-1])[:, -1].log_softmax(-1)  # (12, V)

    torch.testing.assert_close(
        model.score(tokens, 8, 1), expected.gather(1, tokens[8:, None])[:, 0]
    )


@pytest.mark.parametrize("stride", [0, 9])
def test_a_stride_that_skips_tokens_is_refused(stride):
    with pytest.raises(ValueError, match=f"stride must lie between 1 and .* = 8, got {stride}"):
        busy_gpt().score(random_tokens(30), 0, stride)


@pytest.mark.parametrize("num_tokens", [0, 1, 2])
def test_very_short_texts_can_be_scored(num_tokens):
    scores = busy_gpt().score(random_tokens(num_tokens))

    assert scores.shape == (num_tokens,)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("lengths", [[1] * 8, [5, 3], [1, 4, 1, 2], [8]])
def test_a_stream_with_cached_keys_equals_the_whole_forward(lengths):
    model, tokens = busy_gpt(), random_tokens(3, 8)
    stream = model.stream(3)
    for end, length in zip(torch.tensor(lengths).cumsum(0), lengths, strict=True):
        log_probs = stream.feed(tokens[:, end - length : end])
        expected = model(tokens[:, :end])[:, -1].log_softmax(-1)
        torch.testing.assert_close(log_probs, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [[1] * 30, [7, 5, 1, 1, 13, 2, 1], [30]])
def test_a_long_stream_sees_at_least_the_latest_half_context(lengths):
    """Past context_length it starts again from the latest 4 of 8 tokens, and grows from there."""
    model, tokens = busy_gpt(), random_tokens(2, 30)
    stream = model.stream(2)
    end = num_visible = 0
    for length in lengths:
        log_probs = stream.feed(tokens[:, end : end + length])
        end, num_visible = end + length, num_visible + length
        if num_visible > 8:
            num_visible = 4
        expected = model(tokens[:, end - num_visible : end])[:, -1].log_softmax(-1)
        torch.testing.assert_close(log_probs, expected, atol=1e-5, rtol=1e-5)


def test_sampling_runs_past_the_context_and_repeats_itself():
    model = busy_gpt(dropout=0.5).train()
    samples = [
        generate(model, random_tokens(3), num_tokens=20, num_sequences=2, seed=4) for _ in range(2)
    ]

    assert samples[0].shape == (2, 20)
    assert torch.equal(samples[0], samples[1])


def test_an_interrupted_training_with_dropout_ends_as_an_uninterrupted_one():
    fit = FitConfig(steps=12, batch_size=4, learning_rate=0.02, warmup_steps=3, weight_decay=0.1)
    batches = TokenBatches(random_tokens(100), 8, fit.batch_size, seed=3)

    def begun(seed):
        torch.manual_seed(seed)
        model = Gpt(replace(CONFIG, dropout=0.2))
        return TrainingState({"gpt": model}, {"gpt": make_optimizer(model, fit)})

    def train(state, until):
        model, optimizer = state.modules["gpt"], state.optimizers["gpt"]
        for step in likelihood_steps(model, optimizer, batches.at, fit, start=state.step):
            state.step = step.step
            if step.step == until:
                break

    whole = begun(1)
    train(whole, 12)
    first, second = begun(1), begun(2)
    train(first, 5)
    second.restore(*first.snapshot())
    train(second, 12)

    weights, resumed = whole.snapshot()[0], second.snapshot()[0]
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert any("momentum" in name for name in weights)
    assert any("square" in name for name in weights)


@pytest.mark.parametrize("kind", ["dropout", "ngram_dropout"])
def test_dropout_acts_in_training_only(kind):
    model, tokens = (
        busy_gpt(**({"dropout": 0.0, "ngram_dropout": 0.0} | {kind: 0.5})),
        random_tokens(1, 8),
    )

    assert torch.equal(model(tokens), model(tokens))
    assert not torch.equal(model.train()(tokens), model(tokens))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers must be between 1 and 256, got 0"),
        ({"max_ngram": 0}, "max_ngram must be between 1 and 32, got 0"),
        ({"width": 18}, r"width must be a multiple of 2 \* num_heads = 4.* got 18"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"embedding_rate": 0.0}, "embedding_rate must be above 0 and at most 100, got 0.0"),
    ],
)
def test_contradictory_shapes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        busy_gpt(**options)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 48, 16), (2, 16, 48)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    random = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    u, _, v = torch.linalg.svd(random, full_matrices=False)
    values = torch.logspace(0, -2.2, 16)  # over their norm, the smallest is still above 0.003
    result = orthogonalised(5 * (u * values) @ v)

    assert torch.linalg.svdvals(result).min() > 0.79
    assert torch.linalg.svdvals(result).max() < 1.21
    # u v is the nearest orthogonal matrix; the polynomials move no singular vector.
    assert ((result - u @ v).norm(dim=(1, 2)) / (u @ v).norm(dim=(1, 2))).max() < 0.2


def test_muon_ignores_the_size_of_a_gradient():
    def moved(gradient_scale):
        matrix = torch.nn.Parameter(torch.zeros(4, 4))
        optimizer = MuonWithAdam([matrix], [], matrix_rate=0.1, other_rate=0.1)
        matrix.grad = gradient_scale * torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
        optimizer.step()
        return matrix.detach()

    torch.testing.assert_close(moved(1.0), moved(1e-3), atol=1e-5, rtol=1e-4)
    # A step of rate 0.1 has singular values near 0.1.
    assert float(torch.linalg.svdvals(moved(1.0)).mean()) == pytest.approx(0.1, rel=0.2)


def test_the_adam_half_equals_that_of_torch():
    start = torch.randn(5, generator=torch.Generator().manual_seed(0))
    mine, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = [
        MuonWithAdam([], [mine], matrix_rate=0.1, other_rate=0.01),
        torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.95), eps=1e-10),
    ]
    for step in range(1, 6):
        for parameter in (mine, theirs):
            parameter.grad = torch.sin(parameter.detach() * step)
        for optimizer in optimizers:
            optimizer.step()

    torch.testing.assert_close(mine, theirs)


def test_embeddings_and_head_learn_at_a_share_of_the_rate():
    optimizer = make_optimizer(busy_gpt(embedding_rate=0.25), FitConfig(learning_rate=0.04))

    assert {group["kind"]: group["lr"] for group in optimizer.param_groups} == pytest.approx(
        {"muon": 0.04, "adam": 0.01}
    )


def test_a_table_moves_as_far_by_a_gradient_of_all_its_rows():
    rows = torch.tensor([[1, 4, 4], [0, 4, 2]])
    tables = [torch.nn.Parameter(torch.zeros(6, 3)) for _ in range(2)]
    for is_sparse, table in zip((True, False), tables, strict=True):
        optimizer = MuonWithAdam([], [table], matrix_rate=1.0, other_rate=0.1, tables=[table])
        for chosen in rows:
            optimizer.zero_grad()
            embedded = torch.nn.functional.embedding(chosen, table, sparse=is_sparse)
            (embedded * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
            optimizer.step()

    assert torch.equal(tables[0] != 0, tables[1] != 0)
    torch.testing.assert_close(tables[0], tables[1])


def test_a_sparse_gradient_moves_only_its_rows():
    table = torch.nn.Parameter(torch.zeros(5, 2))
    optimizer = MuonWithAdam([], [table], matrix_rate=1.0, other_rate=0.1, betas=(0.9, 0.75))
    rows = torch.tensor([3, 1, 3])
    for _ in range(2):
        embedded = torch.nn.functional.embedding(rows, table, sparse=True)
        optimizer.zero_grad()
        (embedded * torch.tensor([2.0, -1.0])).sum().backward()
        optimizer.step()

    # Gradient g, mean square g^2 / 4, then 7 g^2 / 16: steps of 0.1 * 2 and 0.1 * 4 / sqrt(7),
    # whatever the size of g; the row that occurs twice moves no further.
    expected = 0.1 * (2 + 4 / math.sqrt(7)) * torch.tensor([-1.0, 1.0])
    assert torch.equal(table.detach()[[0, 2, 4]], torch.zeros(3, 2))
    torch.testing.assert_close(table.detach()[[1, 3]], expected.expand(2, 2))
