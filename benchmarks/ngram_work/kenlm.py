"""KenLM beside ours: its `lmplz` and `query`, from the folder that KENLM_BIN names.

To build them (Debian's packages: cmake g++ libboost-all-dev zlib1g-dev libbz2-dev liblzma-dev):

    git clone https://github.com/kpu/kenlm && mkdir kenlm/build && cd kenlm/build
    cmake .. -DCMAKE_BUILD_TYPE=Release -DKENLM_MAX_ORDER=12 && make -j lmplz query
    export KENLM_BIN=$PWD/bin
"""

import math
import os
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FASTEST_MEMORY = "200M"
"""By default lmplz takes 80 % of the memory, and longer to do so than to count a small text."""


def binaries() -> Path | None:
    """The folder with lmplz and query, or None when it is not named.

    Raises FileNotFoundError when a named folder lacks them.
    """
    named = os.environ.get("KENLM_BIN")
    if not named:
        return None
    folder = Path(named)
    if missing := [name for name in ("lmplz", "query") if not (folder / name).is_file()]:
        raise FileNotFoundError(f"KENLM_BIN={named} has no {' and no '.join(missing)}")
    return folder


def spelled(text: str) -> str:
    """A text as one line of characters that are words to KenLM.

    The final newline matters: without it, lmplz drops the end of the text and misaligns back-offs.
    """
    words = {" ": "<sp>", "\n": "<nl>"}
    return " ".join(words.get(character, character) for character in text) + "\n"


def lmplz(folder: Path, text: Path, order: int, memory: str | None) -> list[str]:
    """The command that estimates a model and writes it beside the text; memory None: default."""
    limit = ["-S", memory] if memory else []
    files = ["--text", str(text), "--arpa", str(text.with_suffix(".arpa"))]
    options = ["-o", str(order), "--discount_fallback", "-T", f"{text.parent}/"]
    return [str(folder / "lmplz"), *options, *limit, *files]


def scores(folder: Path, arpa: Path, line: str) -> NDArray[np.float64]:
    """Natural log-probabilities of a line's words and its end under a model."""
    done = subprocess.run(
        [str(folder / "query"), "-v", "word", str(arpa)],
        input=line,
        capture_output=True,
        text=True,
        check=True,
    )
    words = [part for part in done.stdout.split("\t") if "=" in part]  # word=id length log10
    return np.array([float(part.split(" ")[2]) for part in words]) * math.log(10)
