"""The tables of results, made from benchmarks/results.json.

python -m benchmarks.table          the README's: one or two of each family
python -m benchmarks.table --all    every row, by subject: docs/results.md
"""

import sys
from typing import Any

from benchmarks.measured import RESULTS, rows_of

HEAD = "| result | measured | unit | seconds | reference | command |\n|---|---|---|---|---|---|"
HEADLINES = (
    "ngram_char_tuned_nats",
    "ngram_train_time_ratio_kenlm",
    "gpt_cpu_protocol_a_nats",
    "vae_mnist_nll_nats",
    "gan_digits_fidelity",
    "diffusion_digits_frechet",
)
"""The rows of the README, in the order in which they are read."""
SUBJECTS = {
    "Text: n-gram": ("ngram_",),
    "Text: a mixture of counts": ("mixture_",),
    "Text: GPT": ("gpt_",),
    "Images: VAE": ("vae_",),
    "Images: GAN": ("gan_",),
    "Images: diffusion": ("diffusion_",),
    "The gate": ("gate_",),
    "Search": ("search_",),
    "Running, training together, serving": ("",),
}
"""Headings of docs/results.md, and how the names of their rows begin; the last takes the rest."""


def table(names: tuple[str, ...]) -> str:
    """Rows as Markdown, in the order of the names."""
    rows = {str(row["name"]): row for row in rows_of(RESULTS)}
    return "\n".join([HEAD, *(_line(rows[name]) for name in names or sorted(rows))])


def page() -> str:
    """All rows, each once, below the heading of its subject."""
    left = sorted(str(row["name"]) for row in rows_of(RESULTS))
    parts = []
    for subject, beginnings in SUBJECTS.items():
        names = tuple(name for name in left if name.startswith(beginnings))
        left = [name for name in left if name not in names]
        if names:
            parts.append(f"## {subject}\n\n{table(names)}")
    return "\n\n".join(parts)


def _line(row: dict[str, Any]) -> str:
    spread = "" if row["spread"] is None else f" ± {_number(row['spread'], 2)}"
    seeds = f" ({len(row['seeds'])} seeds)" if len(row["seeds"]) > 1 else ""
    beside = row["reference"]
    if row["reference_value"] is not None:
        beside = f"{beside}: {_number(row['reference_value'], 5)}"
    value = f"{_number(row['value'], 5)}{spread}{seeds}"
    seconds = "" if row["seconds"] is None else _number(row["seconds"], 3)
    cells = (f"`{row['name']}`", value, row["unit"], seconds, beside, f"`{row['command']}`")
    return f"| {' | '.join(cells)} |"


def _number(value: float, digits: int) -> str:
    """Thousands with commas, and else so many significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


if __name__ == "__main__":
    print(page() if "--all" in sys.argv else table(HEADLINES))
