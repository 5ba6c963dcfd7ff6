"""The settings of the GPT."""

from dataclasses import dataclass

from models.settings import check_limits, setting


@dataclass(frozen=True, kw_only=True, slots=True)
class GptConfig:
    """The shape of a GPT."""

    vocabulary_size: int = setting(256, ge=1, fixed_by="the tokenizer")
    """Number of token ids."""
    context_length: int = setting(128, ge=1, le=65_536)
    """Most tokens that a prediction can see."""
    num_layers: int = setting(4, ge=1, le=256)
    """Transformer blocks."""
    num_heads: int = setting(4, ge=1, le=256)
    """Attention heads of each block."""
    width: int = setting(128, ge=2, le=16_384)
    """Numbers per token in the residual stream."""
    max_ngram: int = setting(5, ge=1, le=32)
    """Embeddings of the last 2, 3, ... max_ngram tokens are added to the token's own."""
    ngram_rows: int = setting(16_384, ge=1, le=1 << 26)
    """Rows of each of these tables; n-grams share rows by their hash."""
    ngram_dropout: float = setting(0.3, ge=0, lt=1)
    """Fraction of n-grams left out while training, so that no prediction rests on one alone."""
    dropout: float = setting(0.0, ge=0, lt=1)
    """Fraction of activations dropped while training."""
    embedding_rate: float = setting(1.0, gt=0, le=100)
    """Learning rate of embeddings and head, as a share of the matrices' rate."""

    def __post_init__(self) -> None:
        check_limits(self)
        if self.width % (2 * self.num_heads):
            raise ValueError(
                f"width must be a multiple of 2 * num_heads = {2 * self.num_heads}, so that each"
                f" head has an even number of dimensions to rotate, got {self.width}"
            )
