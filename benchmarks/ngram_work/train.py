"""From a text file to a usable n-gram model in a file: what `lmplz` does, as a process of its own.

Bytes are tokens, which for ASCII text makes them characters. Without a folder all happens in
memory, estimates included; with one, counting spills into it and keeps within MEMORY bytes, and the
estimates are left to whoever opens the model.

    python -m benchmarks.ngram_work.train TEXT MODEL ORDER [FOLDER MEMORY]
"""

import sys

import numpy as np

from models.ngram import NgramConfig, NgramModel
from models.ngram_spilling import SpillConfig


def _main(text: str, path: str, order: int, spill: SpillConfig | None) -> None:
    tokens = np.memmap(text, np.uint8, "r")
    model = NgramModel.fit(tokens, 256, NgramConfig(order=order), spill)
    arrays = {"seen_tokens": model.seen_tokens}
    for k, table in enumerate(model.tables, 1):
        arrays |= {f"keys_{k}": table.keys, f"counts_{k}": table.counts}
        arrays |= {f"num_left_{k}": table.num_left}
        if spill is None:
            model.shares(k), model.backoffs(k)
    np.savez(path, **arrays)


if __name__ == "__main__":
    place = SpillConfig(folder=sys.argv[4], memory_bytes=int(sys.argv[5])) if sys.argv[4:] else None
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), place)
