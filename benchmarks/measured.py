"""The table of measured results: benchmarks add rows to benchmarks/results.json, and print them."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from models.training.device import make_repeatable

RESULTS = Path(__file__).parent / "results.json"


def record(
    name: str,
    values: float | Sequence[float],
    unit: str,
    *,
    seeds: Sequence[int] = (),
    seconds: float | None = None,
    reference: str = "",
    reference_value: float | None = None,
) -> None:
    """Print a result and put it into the table, in place of an older row of that name.

    values: one number, or one for each seed: their mean and standard deviation are stored.
    seconds: wall time of one measurement (of one seed), where it matters.
    reference: what it is compared with, and under which protocol.
    """
    numbers = [float(values)] if isinstance(values, int | float) else [float(v) for v in values]
    row = {
        "name": name,
        "value": statistics.fmean(numbers),
        "unit": unit,
        "spread": statistics.stdev(numbers) if len(numbers) > 1 else None,
        "seeds": list(seeds),
        "seconds": seconds,
        "reference": reference,
        "reference_value": reference_value,
        "command": " ".join(["python -m", _module(), *sys.argv[1:]]),
        "machine": machine(),
    }
    rows = [old for old in rows_of(RESULTS) if old["name"] != name] + [row]
    rows.sort(key=lambda each: str(each["name"]))
    temporary = RESULTS.with_suffix(".partial")
    temporary.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(RESULTS)
    spread = "" if row["spread"] is None else f" ± {row['spread']:.3g} ({len(numbers)} seeds)"
    beside = "" if reference_value is None else f"; {reference}: {reference_value:.5g}"
    print(f"{name}: {row['value']:.5g} {unit}{spread}{beside}", flush=True)


def named_on(device: torch.device | str, name: str) -> str:
    """The name of a row measured on a device: on a GPU `gpt_cuda_seconds` for `gpt_seconds`."""
    family, _, rest = name.partition("_")
    kind = torch.device(device).type
    return name if kind == "cpu" else f"{family}_{kind}_{rest}"


def prepare(device: str) -> None:
    """Ask of a GPU what the product asks of it: the same bits again (models/training/device.py)."""
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        make_repeatable()


def rows_of(path: Path) -> list[dict[str, object]]:
    """The rows that were measured so far."""
    if not path.exists():
        return []
    rows: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def machine() -> str:
    """The machine in words that compare: processor kind, cores that we may use, GPU, PyTorch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"{platform.machine()}, {cores} cores, {gpu}, torch {torch.__version__}"


def _module() -> str:
    """The dotted name of the benchmark that is running."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else "benchmarks"
