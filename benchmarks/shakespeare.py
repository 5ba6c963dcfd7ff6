"""Tiny Shakespeare as nanoGPT splits it: what the token models' benchmarks train and score on."""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor

NUM_HELD_OUT = 50_000
"""Characters at the end of the training part on which choices are made and weights fitted."""


def text() -> str:
    """The whole text; ends the program with a line where it is absent."""
    path = Path(os.environ.get("ATELIER_DATA", ".")) / "tinyshakespeare" / "input.txt"
    if not path.exists():
        sys.exit("this benchmark needs tinyshakespeare/input.txt below $ATELIER_DATA")
    return path.read_text(encoding="utf-8")


def characters() -> tuple[Tensor, Tensor, int]:
    """The first 90 % and the last 10 % as ids, (N,) int64 each, and the size of the alphabet."""
    whole = text()
    alphabet = {character: index for index, character in enumerate(sorted(set(whole)))}
    ids = torch.tensor([alphabet[character] for character in whole])
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:], len(alphabet)
