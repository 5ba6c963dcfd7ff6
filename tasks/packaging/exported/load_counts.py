"""Write with an exported model of counts. Needs NumPy alone.

On the command line: `python load.py --prompt "The" --tokens 300 --seed 0`. In a program:

    from load import load
    text = load().write("The", num_tokens=300, seed=0)

`tables.npz` holds, for each order k, the sorted n-grams (`keys_k`: the n-gram's context, as its
place one order below, times the number of symbols, plus its last symbol), how often they occurred
(`counts_k`) and how many different tokens stood to their left (`num_left_k`).
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tasks.packaging.exported.export_tokens import Tokens
from tasks.packaging.exported.export_writing import told_by, write_from_command_line

MODULES = ("{family}.model",)
"""Of the model's own, which it needs."""
SHARED = ("export_tokens", "export_writing")
SAMPLING_STREAM = 3


class CountedModel:
    """An exported table of counts that writes."""

    def __init__(self, folder: Path) -> None:
        facts, config, vocabulary, sampling = told_by(folder)
        self.tokens = Tokens(vocabulary)
        self.prompt: str = sampling["prompt"]
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        code: Any = importlib.import_module(f"{facts['package']}.{facts['family']}.model")
        arrays = np.load(folder / "tables.npz", allow_pickle=False)
        tables = [
            code.NgramTable(*(arrays[f"{part}_{k}"] for part in ("keys", "counts", "num_left")))
            for k in range(1, config["order"] + 1)
        ]
        size = int(arrays["vocabulary_size"])
        known = code.NgramConfig(**config)
        self.model: Any = code.NgramModel(known, size, arrays["seen_tokens"], tables)

    def write(
        self,
        prompt: str = "",
        num_tokens: int = 300,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> str:
        """A continuation of a prompt, without it; an empty one takes the model's own.

        The same seed gives the same text.
        """
        stream = self.model.stream(1)
        fed, written = self.tokens.encode(prompt or self.prompt), []
        for uniform in uniforms(seed, num_tokens):
            stream.append(np.array([fed]))
            (log_probs,) = stream._log_probs()
            cumulative = filtered(log_probs, temperature, top_k, top_p).cumsum()
            token = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
            fed = [min(token, len(cumulative) - 1)]
            written += fed
        return self.tokens.decode(written)


def uniforms(seed: int, number: int) -> Any:
    """What PyTorch's generator draws for the seed of a text: (number,) float64 in [0, 1)."""
    mixed = np.random.SeedSequence([seed, SAMPLING_STREAM, 0]).generate_state(1, np.uint64)[0]
    twister = np.random.RandomState(int(mixed) & 0xFFFFFFFF)
    high, low = twister.randint(0, 1 << 32, (number, 2), np.uint32).astype(np.uint64).T
    return ((high << np.uint64(32) | low) & np.uint64((1 << 53) - 1)) / 2.0**53


def filtered(log_probs: Any, temperature: float, top_k: int, top_p: float) -> Any:
    """The probabilities (V,) that are drawn from: the likeliest tokens, by number and by mass."""
    tempered = (log_probs - log_probs.max()) / temperature
    probs = np.exp(tempered)
    probs /= probs.sum()
    ranked = np.argsort(-probs, kind="stable")
    if top_k:
        probs[ranked[top_k:]] = 0
        probs /= probs.sum()
    if top_p < 1:
        mass_before = probs[ranked].cumsum() - probs[ranked]
        probs[ranked[mass_before >= top_p]] = 0
    return probs / probs.sum()


def load(folder: str | Path | None = None) -> CountedModel:
    """The model of a folder, by default of the one in which this file lies."""
    return CountedModel(Path(folder) if folder is not None else Path(__file__).resolve().parent)


if __name__ == "__main__":
    write_from_command_line(load)
