"""Where a training runs."""

import torch


def training_device() -> torch.device:
    """The GPU where there is one, set to give the same bits again, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # Needs CUBLAS_WORKSPACE_CONFIG, which `atelier.services.local_servers.apply_settings` sets
    # before imports. A kernel that has no such variant warns and is taken as it is.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False  # by default convolutions keep 10 bits of 23
    return torch.device("cuda")
