"""A GPT, written from scratch: a decoder-only transformer that predicts the next token.

It differs from GPT-2 in rotary positions, normalised queries and keys, RMSNorm without parameters,
squared ReLU, projections that start at zero, Muon for the matrices, and hashed embeddings of the
last few tokens together (n-grams), which lower the loss of a short training most.

References: Radford et al. 2019 (GPT-2); Su et al. 2021 (rotary positions); So et al. 2021
(squared ReLU); Jordan et al. 2024 (Muon, modded-nanogpt); Karpathy's nanoGPT and nanochat.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from models.gpt.config import GptConfig
from models.gpt.muon import MuonWithAdam
from models.training.config import FitConfig

SCORED_TOKENS = 8192
"""Tokens that `score` reads at a time, which bounds its memory."""


class KeyValueCache:
    """The keys and values of one layer for the tokens seen so far."""

    def __init__(self) -> None:
        self.keys = self.values = torch.empty(0)
        self.length = 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Append (B, H, t, D) of new tokens; returns all keys, all values and who may see whom."""
        if self.length:
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        num_seen, self.length = self.length, keys.shape[2]
        self.keys, self.values = keys, values
        ones = torch.ones(self.length - num_seen, self.length, dtype=torch.bool, device=keys.device)
        return keys, values, ones.tril(diagonal=num_seen)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalised queries and keys."""

    def __init__(self, config: GptConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        # Query, key and value matrices: three for the optimizer, one for the multiplication.
        self.inputs = nn.Parameter(torch.empty(3, config.width, config.width))
        self.output = nn.Parameter(torch.empty(config.width, config.width))

    def forward(self, x: Tensor, rotation: Tensor, cache: KeyValueCache | None) -> Tensor:
        """What each token gathers from itself and those before it: (B, T, C) to (B, T, C)."""
        B, T, C = x.shape
        projected = F.linear(x, self.inputs.view(3 * C, C))  # (B, T, 3C)
        heads = projected.view(B, T, 3 * self.num_heads, -1)
        queries_keys, v = heads[:, :, : 2 * self.num_heads], heads[:, :, 2 * self.num_heads :]
        queries_keys = normalised(queries_keys).to(projected.dtype)  # half as many bytes on a GPU
        turned = rotated(queries_keys, rotation.to(projected.dtype))
        q, k = turned.transpose(1, 2).chunk(2, dim=1)
        v = v.transpose(1, 2)  # (B, H, T, D)
        mask = None
        if cache is not None:
            k, v, mask = cache.extend(k, v)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return F.linear(y.transpose(1, 2).flatten(2), self.output)


class Block(nn.Module):
    """Attention, then a feed-forward network with squared ReLU, each added to the residual."""

    def __init__(self, config: GptConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.attention = Attention(config)
        self.expand = nn.Parameter(torch.empty(4 * config.width, config.width))
        self.contract = nn.Parameter(torch.empty(config.width, 4 * config.width))

    def forward(self, x: Tensor, rotation: Tensor, cache: KeyValueCache | None) -> Tensor:
        """The residual stream after this block: (B, T, C) to (B, T, C)."""
        gathered = self.attention(normalised(x), rotation, cache)
        x = x + F.dropout(gathered, self.dropout, self.training)
        hidden = F.linear(normalised(x), self.expand).relu()  # (B, T, 4C)
        hidden = hidden * hidden  # faster than square() on a CPU
        return x + F.dropout(F.linear(hidden, self.contract), self.dropout, self.training)


class Gpt(nn.Module):
    """A distribution over the next token at every position of a sequence."""

    is_capturable = True
    needs_strict_kernels = True  # the gradient of attention

    def __init__(self, config: GptConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocabulary_size, config.width))
        num_ngram_rows = (config.max_ngram - 1) * config.ngram_rows
        self.ngram_embedding = nn.Parameter(torch.empty(num_ngram_rows, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = nn.Parameter(torch.empty(config.vocabulary_size, config.width))
        self.rotation: Tensor
        rotation = rotary_table(config.context_length, config.width // config.num_heads)
        self.register_buffer("rotation", rotation, persistent=False)
        self.initialise()

    @property
    def vocabulary_size(self) -> int:
        """Token ids run from 0 to vocabulary_size - 1."""
        return self.config.vocabulary_size

    @property
    def context_length(self) -> int:
        """Most tokens that a prediction can see."""
        return self.config.context_length

    def initialise(self) -> None:
        """Draw every weight from torch's global generator.

        embedding          normal, deviation 1
        inputs, expand     uniform, deviation 1 / sqrt(width)
        all others         zero: n-grams add nothing, blocks are the identity, the model is uniform
        """
        bound = math.sqrt(3 / self.config.width)
        for name, weight in self.named_parameters():
            match name.split(".")[-1]:
                case "embedding":
                    nn.init.normal_(weight)
                case "inputs" | "expand":
                    nn.init.uniform_(weight, -bound, bound)
                case _:
                    nn.init.zeros_(weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the token after each: (B, T) int64, T <= context_length, to (B, T, V)."""
        return F.linear(self.hidden(tokens), self.head)

    def hidden(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        """The last hidden states, (B, t, C), of the t latest tokens: those not in the caches."""
        num_seen, end = caches[0].length if caches else 0, tokens.shape[1]
        assert end <= self.context_length, (end, self.context_length)
        rotation = self.rotation[:, num_seen:end]
        x = normalised(self.embedded(tokens)[:, num_seen:])
        x = F.dropout(x, self.config.dropout, self.training)
        for index, block in enumerate(self.blocks):
            x = block(x, rotation, caches[index] if caches else None)
        return normalised(x)

    def embedded(self, tokens: Tensor) -> Tensor:
        """The sum of the embeddings of the n-grams that end at each token: (B, T, C)."""
        x = F.embedding(tokens, self.embedding)
        if self.config.max_ngram == 1:
            return x
        rows = ngram_rows(tokens, self.config.max_ngram, self.config.ngram_rows)
        # Sparse gradients, as a step touches few of the rows; a GPU would have to tell the CPU
        # how many, and is faster with all of them.
        is_sparse = not self.ngram_embedding.is_cuda
        ngrams = F.embedding(rows, self.ngram_embedding, sparse=is_sparse)  # (B, T, n - 1, C)
        if self.training and self.config.ngram_dropout:
            kept = F.dropout(torch.ones_like(ngrams[..., :1]), self.config.ngram_dropout)
            ngrams = ngrams * kept
        return x + ngrams.sum(dim=2)

    def losses(self, batch: tuple[Tensor, Tensor], step: int | Tensor) -> dict[str, Tensor]:
        """Mean negative log-likelihood in nats per token of (inputs, targets), each (B, T).

        On a GPU matrices are multiplied in bfloat16; a CPU may lack units for it.
        """
        inputs, targets = batch
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=inputs.is_cuda):
            logits = self(inputs)
        return {"loss": F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())}

    @torch.inference_mode()
    def score(self, tokens: Tensor, start: int = 0, stride: int | None = None) -> Tensor:
        """Natural log-probabilities of tokens[start:], (N,) int64 to (N - start,).

        The text is read in windows of context_length, `stride` apart (half a context by default),
        and each window scores its last `stride` tokens: a token sees at least
        context_length - stride of the tokens before it, where there are that many. The first token
        of the text has nothing before it and counts as uniform. Puts the model in evaluation mode.
        """
        self.eval()
        stride = max(1, self.context_length // 2) if stride is None else stride
        if not 1 <= stride <= self.context_length:
            raise ValueError(
                f"stride must lie between 1 and context_length = {self.context_length},"
                f" got {stride}"
            )
        log_probs = torch.full(tokens.shape, -math.log(self.vocabulary_size), device=tokens.device)
        if len(tokens) < 2:
            return log_probs[start:]
        num_inputs = min(self.context_length, len(tokens) - 1)
        firsts = torch.arange(max(start, 1), len(tokens), stride, device=tokens.device)
        begins = (firsts + stride - 1 - num_inputs).clamp(0, len(tokens) - 1 - num_inputs)
        offsets = torch.arange(num_inputs + 1, device=tokens.device)
        batch_size = max(1, SCORED_TOKENS // num_inputs)
        for at in range(0, len(firsts), batch_size):
            first = firsts[at : at + batch_size, None]  # (B, 1)
            positions = begins[at : at + batch_size, None] + offsets  # (B, T + 1)
            window = tokens[positions]
            losses = F.cross_entropy(
                self(window[:, :-1]).transpose(1, 2), window[:, 1:], reduction="none"
            )  # (B, T)
            targets = positions[:, 1:]
            is_scored = (targets >= first) & (targets < first + stride)
            log_probs[targets[is_scored]] = -losses[is_scored]
        return log_probs[start:]

    def stream(self, num_sequences: int) -> "GptStream":
        """A stream of `num_sequences` empty texts. Puts the model in evaluation mode."""
        self.eval()
        return GptStream(self, num_sequences)


class GptStream:
    """Texts that grow token by token, with cached keys and values.

    A prediction is exactly that of `Gpt.forward` on the latest tokens: on all of them as long as
    they fit into context_length. When they no longer fit, the stream starts again from the latest
    half context, so a prediction sees at least the latest context_length // 2 tokens.
    """

    def __init__(self, model: Gpt, num_sequences: int) -> None:
        self.model = model
        device = model.embedding.device
        self.visible = torch.empty(num_sequences, 0, dtype=torch.long, device=device)
        self._caches = [KeyValueCache() for _ in model.blocks]

    @torch.inference_mode()
    def feed(self, tokens: Tensor) -> Tensor:
        """Append (B, t) int64, t >= 1; returns log-probabilities of the next token, (B, V)."""
        assert tokens.shape[1] > 0 and len(tokens) == len(self.visible), tokens.shape
        self.visible = torch.cat([self.visible, tokens], dim=1)
        if self.visible.shape[1] > self.model.context_length:
            half = max(1, self.model.context_length // 2)
            self.visible = self.visible[:, -half:]
            self._caches = [KeyValueCache() for _ in self._caches]
        last = self.model.hidden(self.visible, self._caches)[:, -1]
        return F.linear(last, self.model.head).log_softmax(dim=-1)


def make_optimizer(model: Gpt, fit: FitConfig) -> Optimizer:
    """The optimizer of the recipe: Muon for the blocks' matrices, Adam for embeddings and head."""
    return MuonWithAdam(
        model.blocks.parameters(),
        [model.embedding, model.ngram_embedding, model.head],
        tables=[model.ngram_embedding],
        matrix_rate=fit.learning_rate,
        other_rate=fit.learning_rate * model.config.embedding_rate,
        weight_decay=fit.weight_decay,
    )


def normalised(x: Tensor) -> Tensor:
    """Scale to a root mean square of 1 along the last dimension: RMSNorm without a gain."""
    return F.rms_norm(x, (x.shape[-1],))


def ngram_rows(tokens: Tensor, longest: int, num_rows: int) -> Tensor:
    """The row of each n-gram that ends at each token: (B, T) to (B, T, longest - 1).

    Orders 2 to `longest` have `num_rows` rows each, found by a polynomial hash modulo a prime.
    N-grams that reach before the first token hold the number -1 there.
    """
    prime = 2_147_483_647
    code, previous, rows = tokens, tokens, []
    for order in range(longest - 1):
        previous = F.pad(previous, (1, 0), value=-1)[:, :-1]
        code = (code * 1_000_003 + previous + 1) % prime
        rows.append(code * 40_503 % prime % num_rows + order * num_rows)
    return torch.stack(rows, dim=-1)


def rotary_table(num_positions: int, head_width: int) -> Tensor:
    """Cosines and sines of each position's angles: (2, T, D / 2)."""
    frequencies = 10_000.0 ** (-torch.arange(0, head_width, 2) / head_width)
    angles = torch.outer(torch.arange(num_positions).float(), frequencies)
    return torch.stack([angles.cos(), angles.sin()])


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair of dimensions of x, (B, T, H, D), by the angle of its position."""
    cos, sin = rotation[:, :, None]  # each (T, 1, D / 2)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
