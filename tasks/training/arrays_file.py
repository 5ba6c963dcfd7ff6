"""Arrays as a safetensors file, written a part at a time: a model of counts may exceed memory.

The bytes are those of `safetensors.torch.save`, which holds all of a file in memory, twice.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.memory_maps import release

_DTYPES = {
    **{"<u8": "U64", "<i8": "I64", "<f8": "F64", "<f4": "F32", "<u4": "U32", "<i4": "I32"},
    **{"<f2": "F16", "<u2": "U16", "<i2": "I16", "|i1": "I8", "|u1": "U8", "|b1": "BOOL"},
}
"""The library's names of kinds of numbers, in the order in which it writes them."""
_ALIGNMENT = 8
_BYTES_AT_ONCE = 1 << 24


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays; the pages of those that are mapped are given back as they are written."""
    order = list(_DTYPES)
    names = sorted(arrays, key=lambda name: (order.index(arrays[name].dtype.str), name))
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        array = arrays[name]
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": _DTYPES[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            flat = arrays[name].reshape(-1)
            at_once = _BYTES_AT_ONCE // flat.itemsize
            for first in range(0, len(flat), at_once):
                file.write(np.ascontiguousarray(flat[first : first + at_once]).data)
                release(flat)
