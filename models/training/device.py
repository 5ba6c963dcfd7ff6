"""What is asked of a GPU: the same bits every time, and matrix products at speed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def make_repeatable() -> None:
    """Let PyTorch choose kernels that give the same bits again, wherever it has such.

    Needs CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment before the GPU is first used. A kernel
    that has no such variant warns and is taken as it is. Products keep 10 bits of 23 (TF32): so
    were the results on a GPU in docs/experiments.md measured.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Memory that is filled before it is used need not be filled with NaN first.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.enable_cudnn_sdp(False)  # its gradient has no such variant
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True


@contextmanager
def strict(is_wanted: bool = True) -> Iterator[None]:
    """Insist on kernels that give the same bits, where `make_repeatable` has asked for them.

    Attention's gradient has such a variant, and takes it only where nothing else is allowed.
    """
    was_asked = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if is_wanted and was_asked:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_asked, warn_only=only_warned)
