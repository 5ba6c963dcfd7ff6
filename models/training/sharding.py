"""Batches in parts, so that a training's result does not depend on the number of its processes.

A batch is a function of (seed, step). It is cut into a fixed number of shards, and each shard's
loss and gradients are computed with the same shapes and the same noise wherever that happens; the
processes gather them, add them in one order, and make the same update each. A ring all-reduce adds
in an order that depends on how many processes there are; here the order is a tree over the shards,
which does not: neighbours first, then neighbouring pairs, and so on. A process therefore sends one
sum where it has two, four or eight neighbouring shards.

What mixes the examples of a batch (the GAN's pairs and packs, the class order of its batches, the
diffusion model's spread of times, a loss that is no mean over examples) mixes those of a shard
here, so another number of shards is another training; one process of several shards is not.

The processes are those of torch.distributed's default group, where there is one. Reference for the
usual way, by buckets and a ring: Li et al. 2020, "PyTorch Distributed: Experiences on accelerating
data parallel training".
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from models.training.config import FitConfig


class GroupBroken(ConnectionError):
    """Another process of the training is gone."""


class GroupDisagrees(RuntimeError):
    """The processes of a training no longer make the same updates."""


class Shards:
    """The parts of each batch, and which of them this process computes: neighbouring ones.

    count: parts of a batch. rank, world_size: which of how many processes; count must be a multiple
    of world_size.
    """

    def __init__(self, count: int, rank: int = 0, world_size: int = 1) -> None:
        if count % world_size:
            raise ValueError(f"{count} shards cannot be shared evenly by {world_size} processes")
        self.count, self.world_size = count, world_size
        self._num_own = count // world_size
        self.own = range(rank * self._num_own, (rank + 1) * self._num_own)
        """The parts that are computed here."""
        self._last = 0.0

    def part(self, batch: Any, shard: int) -> Any:
        """One part of a batch: tensors (B, ...), None, or tuples of these, to (B / count, ...).

        Raises ValueError for a batch that cannot be cut evenly.
        """
        if isinstance(batch, tuple):
            return tuple(self.part(each, shard) for each in batch)
        if batch is None:
            return None
        size, rest = divmod(len(batch), self.count)
        if rest or not size:
            raise ValueError(
                f"a batch of {len(batch)} examples cannot be cut into {self.count} equal shards;"
                " set batch_size to a multiple of shards, and no larger than the training split"
            )
        return batch[shard * size : (shard + 1) * size].clone()

    def backward(
        self,
        terms_of: Callable[[int], dict[str, Tensor]],
        loss: str,
        parameters: Sequence[nn.Parameter],
        buffers: Sequence[Tensor] = (),
    ) -> dict[str, Tensor]:
        """Leave the gradient of the mean loss of all shards in `.grad`; gives the mean terms.

        terms_of: the scalars of one shard, by name, among them `loss`; it seeds its own noise.
        buffers: what a forward pass may change (spectral norms). Every shard sees them as they
        are now, and what the first one makes of them stays.
        Raises GroupBroken where another process is gone, GroupDisagrees where one has made other
        updates.
        """
        before = [buffer.clone() for buffer in buffers]
        summed: list[Tensor] = []
        sparse: list[list[Tensor]] = []
        changed: list[tuple[Tensor, Tensor]] = []
        names: list[str] = []
        for shard in self.own:
            for parameter in parameters:
                parameter.grad = None
            versions = [buffer._version for buffer in buffers]
            terms = terms_of(shard)
            terms[loss].backward()  # type: ignore[no-untyped-call]
            names = list(terms)
            told = torch.stack([term.detach().to(parameters[0].dtype) for term in terms.values()])
            gradients = [p.grad for p in parameters if p.grad is not None]
            dense = [each.reshape(-1) for each in gradients if not each.is_sparse]
            summed.append(torch.cat([*dense, told]))
            sparse.append([each for each in gradients if each.is_sparse])
            is_first = shard == self.own.start
            for buffer, version, value in zip(buffers, versions, before, strict=True):
                if buffer._version != version:  # by the code alone: alike in every shard
                    changed += [(buffer, buffer.clone())] if is_first else []
                    _put(value, buffer)
        total = self._total(summed) / self.count
        for buffer, value in changed:
            sent = value.cpu()
            if self.world_size > 1:
                _unless_broken(distributed.broadcast, sent, 0)
            _put(sent, buffer)
        _hand_out(parameters, total, self._all_sparse(sparse))
        return dict(zip(names, total[len(total) - len(names) :].unbind(), strict=True))

    def agree(self, norm: Tensor) -> None:
        """Note the norm of the gradient that was applied: compared between processes later."""
        if self.world_size > 1:
            self._last = float(norm)

    def _total(self, rows: list[Tensor]) -> Tensor:
        """The sum of all shards' rows, those of other processes too."""
        is_subtree = self._num_own & (self._num_own - 1) == 0
        mine = [tree_sum(rows)] if is_subtree else rows
        if self.world_size == 1:
            return tree_sum(mine)
        witness = mine[0].new_tensor([self._last])
        gathered = self._gathered(torch.stack([torch.cat([row, witness]) for row in mine]))
        if not (gathered[:, -1] == witness).all():
            raise GroupDisagrees(
                "the processes of this training no longer agree: after the last update they say"
                f" {sorted({float(each) for each in gathered[:, -1]})}"
            )
        return tree_sum(list(gathered[:, :-1]))

    def _all_sparse(self, shards: list[list[Tensor]]) -> list[Tensor]:
        """Sparse gradients, those of every shard one after the other: a row may come twice.

        shards: of each shard of this process. They hold as many rows in every shard, since no
        duplicates were joined.
        """
        found = []
        for parts in zip(*shards, strict=True):
            indices = torch.stack([part._indices() for part in parts])
            values = torch.stack([part._values() for part in parts])
            if self.world_size > 1:
                indices, values = self._gathered(indices), self._gathered(values)
            flat = indices.transpose(0, 1).flatten(1), values.flatten(0, 1) / self.count
            found.append(torch.sparse_coo_tensor(*flat, parts[0].shape, check_invariants=False))
        return found

    def _gathered(self, mine: Tensor) -> Tensor:
        """What every process has of its shards (n, ...), in the order of shards: (count, ...)."""
        sent = mine.cpu().contiguous()  # gloo knows no GPU's memory for this
        gathered = sent.new_empty(self.world_size * len(sent), *sent.shape[1:])
        _unless_broken(distributed.all_gather_into_tensor, gathered, sent)
        return gathered.to(mine.device)


def shards_of(config: FitConfig) -> Shards | None:
    """The parts of a training's batches; None where they are computed at once."""
    if config.shards == 1:
        return None
    if distributed.is_available() and distributed.is_initialized():
        return Shards(config.shards, distributed.get_rank(), distributed.get_world_size())
    return Shards(config.shards)


def tree_sum(rows: Sequence[Tensor]) -> Tensor:
    """The sum of tensors, in an order that only their number decides: neighbours first."""
    level = list(rows)
    while len(level) > 1:
        pairs = [level[at] + level[at + 1] for at in range(0, len(level) - 1, 2)]
        level = pairs + level[2 * len(pairs) :]
    return level[0]


def _hand_out(parameters: Sequence[nn.Parameter], total: Tensor, sparse: list[Tensor]) -> None:
    """Put gradients in place: dense ones from one flat tensor, in the order of parameters."""
    waiting, at = iter(sparse), 0
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = next(waiting)
            continue
        end = at + parameter.numel()
        # A fused optimizer pairs the numbers of a channels-last weight by their place in memory.
        parameter.grad = torch.empty_like(parameter).copy_(total[at:end].view(parameter.shape))
        at = end


def _put(value: Tensor, into: Tensor) -> None:
    with torch.no_grad():
        into.copy_(value)


def _unless_broken(collective: Callable[..., Any], *arguments: Any) -> None:
    try:
        collective(*arguments)
    except RuntimeError as error:  # gloo's own, for a closed connection and for a time-out
        raise GroupBroken(str(error).partition("\n")[0]) from error
