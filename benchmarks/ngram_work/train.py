"""From a text file to a usable n-gram model in a file: what `lmplz` does, as a process of its own.

Bytes are tokens, which for ASCII text makes them characters. Without a folder all happens in
memory, estimates included; with one, counting spills into it and keeps within MEMORY bytes, and the
estimates are left to whoever opens the model.

    python -m benchmarks.ngram_work.train TEXT MODEL ORDER [FOLDER MEMORY]
"""

import sys
from zipfile import ZipFile

import numpy as np

from models.ngram.config import NgramConfig
from models.ngram.external_sort import ExternalSortConfig
from models.ngram.model import NgramModel


def _main(text: str, path: str, order: int, spill: ExternalSortConfig | None) -> None:
    config = NgramConfig(order=order)
    model = NgramModel.fit(np.memmap(text, np.uint8, "r"), 256, config, spill)
    if spill is None:
        for k in range(1, order + 1):
            model.backoffs(k)
    arrays = [("seen_tokens", model.seen_tokens)]
    for k, table in enumerate(model.tables, 1):
        arrays += [(f"keys_{k}", table.keys), (f"counts_{k}", table.counts)]
        arrays += [(f"num_left_{k}", table.num_left)]
    del model, table  # so that each array leaves memory when it is written
    with ZipFile(path, "w") as archive:
        while arrays:
            name, array = arrays.pop()
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array)
            del array


if __name__ == "__main__":
    place = (
        ExternalSortConfig(folder=sys.argv[4], memory_bytes=int(sys.argv[5]))
        if sys.argv[4:]
        else None
    )
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), place)
