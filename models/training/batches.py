"""Seeded batches: a batch is a pure function of (seed, step).

Nothing remembers a position in the data, so a run that was killed resumes with exactly the batches
it would have seen, and two runs of one seed see the same data in the same order.
The rows of a batch are read from where the data lie (`models.training.stored_data`), in the process
that trains: a DataLoader would only add work.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from models.training.stored_data import Rows


def seed_at(seed: int, step: int, stream: int = 0, *within: int) -> int:
    """Mix a run's seed, a step and a stream number into one 64-bit seed.

    Streams keep independent uses of randomness (data order, noise, evaluation) apart.
    within: numbers of parts of the step, such as a shard; trailing zeros change nothing.
    """
    mixed = np.random.SeedSequence([seed, stream, step, *within])
    return int(mixed.generate_state(1, np.uint64)[0])


def generator_at(seed: int, step: int, stream: int = 0, device: str = "cpu") -> torch.Generator:
    """A torch generator that depends on nothing but its arguments."""
    return torch.Generator(device=device).manual_seed(seed_at(seed, step, stream))


DATA_STREAM = 0
NOISE_STREAM = 1
INITIAL_STREAM = 2


class ImageBatches:
    """Batches of a uint8 image tensor, each epoch in a new order, without replacement.

    images: (N, C, H, W) uint8, whose rows come to the device that trains. A last, incomplete batch
    of an epoch is dropped; a data set smaller than one batch is served whole, but for what cannot
    be cut into `shards` equal parts.
    """

    def __init__(self, images: "Rows", batch_size: int, seed: int, shards: int = 1) -> None:
        assert images.dtype == torch.uint8 and images.ndim == 4, (images.dtype, images.shape)
        self.images = images
        self.batch_size = min(batch_size, len(images) // shards * shards)
        self.seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    def indices_at(self, step: int) -> Tensor:
        """Which images one step sees: (B,) int64."""
        epoch, position = divmod(step, len(self.images) // self.batch_size)
        if epoch != self._epoch:
            generator = generator_at(self.seed, epoch, DATA_STREAM)
            order = torch.randperm(len(self.images), generator=generator)
            self._epoch, self._order = epoch, order.to(self.images.device)
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]

    def at(self, step: int) -> Tensor:
        """The batch of one step: (B, C, H, W) float32 in [0, 1]."""
        return self.images[self.indices_at(step)].float() / 255


class TokenBatches:
    """Batches of windows at random positions of one token sequence.

    tokens: (N,) integers, which come to the device that trains; N must exceed context_length.
    """

    def __init__(self, tokens: "Rows", context_length: int, batch_size: int, seed: int) -> None:
        if len(tokens) <= context_length:
            raise ValueError(
                f"the training text has {len(tokens)} tokens; a context of {context_length} needs"
                " more: use a longer text or a shorter context_length"
            )
        self.tokens = tokens
        self.context_length = context_length
        self.batch_size = batch_size
        self.seed = seed
        self._offsets = torch.arange(context_length + 1, device=tokens.device)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one step, each (B, T) int64; targets are inputs shifted by one."""
        generator = generator_at(self.seed, step, DATA_STREAM)
        num_starts = len(self.tokens) - self.context_length
        starts = torch.randint(num_starts, (self.batch_size, 1), generator=generator)
        moved = starts.to(self.tokens.device, non_blocking=True)  # else a GPU is waited for
        windows = self.tokens[moved + self._offsets].long()  # (B, T + 1)
        return windows[:, :-1], windows[:, 1:]
