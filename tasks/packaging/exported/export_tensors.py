"""Weights from a safetensors file, and modules that were written for NumPy, with PyTorch alone."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MASK = 0xFFFFFFFF


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name: a length, a header in JSON, then their bytes."""
    content = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
        if start == end:
            tensors[name] = torch.empty(shape, dtype=dtype)
        else:
            part = content[begin + start : begin + end]
            tensors[name] = torch.frombuffer(part, dtype=dtype).reshape(shape)
    return tensors


def imported(folder: Path, *names: str) -> list[Any]:
    """Modules of an exported model, which lie in its folder.

    PyTorch needs no NumPy, and they take one function of it: where there is none, that one stands
    in for it while they are imported.
    """
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    stands_in = importlib.util.find_spec("numpy") is None
    if stands_in:
        numpy: Any = ModuleType("numpy")
        numpy.random, numpy.uint64 = SimpleNamespace(SeedSequence=SeedSequence), "uint64"
        sys.modules["numpy"] = numpy
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        if stands_in:
            del sys.modules["numpy"]


class SeedSequence:
    """NumPy's mixing of several numbers into one seed (O'Neill's seed_seq), as far as is needed."""

    def __init__(self, numbers: list[int]) -> None:
        entropy: list[int] = []
        for number in numbers:
            words = max(1, (number.bit_length() + 31) // 32)
            entropy += [number >> 32 * word & _MASK for word in range(words)]
        self._constant, self._factor = 0x43B0D7E5, 0x931E8875
        self._pool = [self._hashed(word) for word in [*entropy, 0, 0, 0, 0][:4]]
        for source in range(4):
            for target in range(4):
                if source != target:
                    self._mix(target, self._pool[source])
        for word in entropy[4:]:
            for target in range(4):
                self._mix(target, word)

    def generate_state(self, num_words: int, dtype: object) -> list[int]:
        """So many numbers of 64 bits."""
        self._constant, self._factor = 0x8B51F9DD, 0x58F38DED
        words = [self._hashed(self._pool[place % 4]) for place in range(2 * num_words)]
        return [low | high << 32 for low, high in zip(words[::2], words[1::2], strict=True)]

    def _hashed(self, word: int) -> int:
        word ^= self._constant
        self._constant = self._constant * self._factor & _MASK
        word = word * self._constant & _MASK
        return word ^ word >> 16

    def _mix(self, target: int, word: int) -> None:
        mixed = self._pool[target] * 0xCA01F9DD - self._hashed(word) * 0x4973F715 & _MASK
        self._pool[target] = mixed ^ mixed >> 16
