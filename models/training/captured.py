"""Whole updates as CUDA graphs: one launch where there were hundreds of small kernels.

The models here are small, so on a GPU most of a step's time goes into launching kernels. A graph
records the launches of one update, forward and backward pass, clipping and optimizers, and replays
them on what lies in the same memory: batches and numbers that change from step to step (rates, the
step itself) are written there before. The first updates run as they are, since libraries and
optimizers set themselves up in them; the same kernels give the same bits either way.

Reference: Nguyen et al. 2021, "Accelerating PyTorch with CUDA graphs".
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.training.device import strict

PLAIN_UPDATES = 3
"""Updates that run as they are before one is recorded."""


def can_be_captured(model: object, parameters: list[nn.Parameter]) -> bool:
    """Whether a model's updates are replayed: on a GPU, and if the model says that it bears it.

    Such a model (`is_capturable`) asks the CPU nothing while it computes a loss, draws its noise
    on the device, and takes the step, or the progress, as a tensor.
    """
    return parameters[0].is_cuda and bool(getattr(model, "is_capturable", False))


class Captured:
    """An update that is recorded after a few calls and replayed from then on.

    update: works on the same tensors at every call, and returns one that tells what it did. It is
    overwritten by the next call. On a CPU every call runs the update. is_strict: see
    `models.training.device.strict`.
    """

    def __init__(
        self, update: Callable[[], Tensor], device: torch.device, *, is_strict: bool = False
    ) -> None:
        self._update = update
        self._is_strict = is_strict
        self._num_plain = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._told = torch.empty(0)
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self) -> Tensor:
        """Run the update once."""
        if self._stream is None:
            return self._update()
        if self._graph is None:
            if self._num_plain < PLAIN_UPDATES:
                self._num_plain += 1
                return self._run_aside(self._stream)
            self._record(self._stream)
        assert self._graph is not None
        self._graph.replay()
        return self._told

    def _run_aside(self, stream: torch.cuda.Stream) -> Tensor:
        """On the stream that records: PyTorch keeps some things apart for each stream."""
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), strict(self._is_strict):
            told = self._update()
        torch.cuda.current_stream().wait_stream(stream)
        told.record_stream(torch.cuda.current_stream())
        return told

    def _record(self, stream: torch.cuda.Stream) -> None:
        # Kernels are not run, only noted. Other threads may go on using the GPU meanwhile.
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        with recording, strict(self._is_strict):
            self._told = self._update()
        self._graph = graph


class Watch:
    """Stops updates on the device once a loss or a gradient is not finite; the CPU asks later.

    Asking at every step would make the GPU wait for the CPU. `broken` is 0.0 or 1.0 and stays;
    optimizers that know `found_inf` leave weights as they are while it is 1.
    """

    def __init__(self, device: torch.device) -> None:
        self.broken = torch.zeros((), device=device)
        self._seen = torch.zeros(4, device=device)

    def look(self, network: int, step: Tensor, loss: Tensor, norm: Tensor) -> None:
        """Note one update's loss and gradient norm, unless an earlier one was broken."""
        loss = loss.detach().float()
        now = torch.stack([torch.full_like(loss, network), step, loss, norm])
        self._seen.copy_(torch.where(self.broken > 0, self._seen, now))
        is_broken = (~torch.isfinite(loss + norm)).float()
        self.broken.copy_(torch.maximum(self.broken, is_broken))

    def verdict(self) -> tuple[int, int, float, float] | None:
        """Network, step (from 0), loss and gradient norm of the first broken update, if any."""
        if not float(self.broken):
            return None
        network, step, loss, norm = self._seen.tolist()
        return int(network), int(step), loss, norm


def put_on_device(optimizer: Optimizer, device: torch.device, watch: Watch) -> None:
    """Make an optimizer read what changes from step to step, its rates first, from the device."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = torch.full((), float(group["lr"]), device=device)
        if "updates" in group:
            group["updates"] = torch.full((), int(group["updates"]), device=device)
    optimizer.found_inf = watch.broken  # type: ignore[attr-defined]


def step_of(optimizer: Optimizer) -> None:
    """`optimizer.step()`, also while it is recorded: PyTorch's own want to be told."""
    told = [group for group in optimizer.param_groups if "capturable" in group]
    for group in told:
        group["capturable"] = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    optimizer.step()
    for group in told:
        group["capturable"] = False


def held(batch: Any) -> Any:
    """A copy of a batch (tensors, None, or tuples of these) whose memory updates read."""
    if isinstance(batch, tuple):
        return tuple(held(part) for part in batch)
    return None if batch is None else batch.clone(memory_format=torch.contiguous_format)


def refill(memory: Any, batch: Any) -> None:
    """Write another batch into what `held` gave."""
    if isinstance(memory, tuple):
        for old, new in zip(memory, batch, strict=True):
            refill(old, new)
    elif memory is not None:
        memory.copy_(batch)


def stacked(terms: Mapping[str, Tensor]) -> Tensor:
    """Scalars by name as one tensor, in their order: (N,) float32."""
    return torch.stack([term.detach().float() for term in terms.values()])
