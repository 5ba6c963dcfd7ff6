"""From a text file to a tuned n-gram model in a file, as a training does it, and what it took.

Bytes are tokens. Prints the seconds, and the peak of resident memory in all and beside what the
interpreter and its libraries (PyTorch above all) hold before anything is read.

    python -m benchmarks.ngram_work.fit TEXT FOLDER ORDER
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from models.ngram.config import NgramConfig, TuningConfig
from models.ngram.training import NgramTraining
from models.training.protocol import TextData
from tasks.training.arrays_file import write_arrays


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _main(text: str, folder: str, order: int) -> None:
    before, began = _peak_mb(), time.perf_counter()
    tokens = np.memmap(text, np.uint8, "r")
    data = TextData(train=tokens, validation=tokens[:1], vocabulary_size=256)
    config, tuning = NgramConfig(order=order), TuningConfig()
    training = NgramTraining(data, torch.device("cpu"), config, tuning)
    kept = training.finish(folder)
    arrays = {name: each for name, each in kept.tensors.items() if isinstance(each, np.ndarray)}
    write_arrays(Path(folder) / "model", arrays)
    seconds, peak = time.perf_counter() - began, _peak_mb()
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "beside_mb": peak - before}))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
