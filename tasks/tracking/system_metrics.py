"""What training takes of the machine, as numbers that MLflow shows under "System metrics"."""

import psutil
import torch


class SystemMetrics:
    """Reads this process's use of processor and memory; a reading takes well below a millisecond.

    MLflow's own monitor is a thread that sends numbers with requests of its own; these travel with
    the other numbers of the run.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # counts from here on

    def numbers(self) -> dict[str, float]:
        """Since the last reading: per cent of one core; and now: MB of memory, also of the GPU."""
        with self._process.oneshot():
            found = {
                "system/process_cpu_percent": self._process.cpu_percent(),
                "system/process_memory_megabytes": self._process.memory_info().rss / 1e6,
            }
        found["system/machine_memory_percent"] = psutil.virtual_memory().percent
        if torch.cuda.is_available():
            found["system/gpu_memory_megabytes"] = torch.cuda.memory_allocated() / 1e6
        return found
