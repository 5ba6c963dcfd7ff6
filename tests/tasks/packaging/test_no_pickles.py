"""Nothing that the program writes is a pickle; here: the scan that says so finds them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

Scan = Callable[[Path], tuple[int, list[Path]]]


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch", "numpy"])
def test_the_scan_finds_pickles(tmp_path: Path, kind: str, scan_for_pickles: Scan) -> None:
    path = tmp_path / "harmless.json"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif kind == "numpy":
        with path.open("wb") as file:
            np.save(file, np.array([{}], dtype=object))
    else:
        torch.save(torch.ones(2), path, _use_new_zipfile_serialization=kind == "torch")

    assert scan_for_pickles(tmp_path) == (1, [path])


def test_the_scan_passes_what_we_write(tmp_path: Path, scan_for_pickles: Scan) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "weights.safetensors")
    np.save(tmp_path / "ids.npy", np.arange(3))
    (tmp_path / "config.json").write_text("{}")

    assert scan_for_pickles(tmp_path) == (3, [])
