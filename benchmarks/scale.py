"""One training on several processes: what two save, and what shards cost.

Trained are the standard recipes of three families, on digits and on Python's documentation, as a
run trains them but for checkpoints and pages. Each turn times some steps of

    whole    batches at once, on as many threads as there are cores: what a run does by default
    single   the same on one thread
    one      batches in 4 shards, in one process of one thread
    two      the same in two processes

one after the other, so that a busy machine disturbs all alike; a time is the median of a turn's
steps, and rows are ratios of times of one turn. `one` and `two` must end with the same weights, or
nothing is recorded. The times of starting processes, and of validating, are left out.

    python -m benchmarks.scale [--steps 60] [--turns 3] [--families vae gan gpt]
"""

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from benchmarks.measured import record

SHARDS = 4
NUM_WARM = 5
"""Steps at the beginning of a turn that are not timed."""
FAMILIES_TIMED = ("vae", "gan", "gpt")
SO_MANY_STEPS = 100_000
"""Of the trainings that are timed: long enough that none validates while it is timed."""


def main() -> None:
    """Time all variants in turns, and record the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--families", nargs="*", default=FAMILIES_TIMED)
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ATELIER_HOME"] = str(Path(folder) / "home")
        for family in options.families:
            _compare(family, options.steps, options.turns)
    print(f"load after: {os.getloadavg()[0]:.1f}", flush=True)


def _compare(family: str, steps: int, turns: int) -> None:
    data, plan = _prepared(family)
    sharded = _with_shards(plan, SHARDS)
    variants = {
        "whole": replace(plan, threads=len(os.sched_getaffinity(0))),
        "single": replace(plan, threads=1),
        "one": sharded,
        "two": replace(sharded, processes=2),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    weights: dict[str, str] = {}
    for turn in range(turns):
        for name, each in variants.items():
            seconds, weights[name] = timed(data, each, steps)
            times[name].append(seconds)
            print(f"{family}, turn {turn}, {name}: {seconds * 1000:.2f} ms a step", flush=True)
        if weights["one"] != weights["two"]:
            raise SystemExit(f"{family}: two processes made other weights than one")
    print(f"{family}: two processes made the same weights as one")
    for row, above, below, words in (
        ("two_processes_time_ratio", "two", "one", f"{SHARDS} shards in one process, one thread"),
        ("shards_time_ratio", "one", "single", "whole batches, one thread"),
        ("two_processes_time_ratio_whole", "two", "whole", "whole batches, a thread for each core"),
    ):
        record(
            f"scale_{family}_{row}",
            [a / b for a, b in zip(times[above], times[below], strict=True)],
            f"times the seconds of a step: {words}",
            seeds=range(turns),
            seconds=statistics.median(times[above]),
        )


def _prepared(family: str) -> tuple[Any, Any]:
    """Data of a family, and a plan by its standard recipe."""
    from flows.train import planned
    from tasks.data.ingestion import ingest_images, ingest_text
    from tasks.data.tokenization import tokenize_corpus
    from tasks.families.table import FAMILIES

    chosen = FAMILIES[family]
    data: Any
    if chosen.data == "images":
        data = ingest_images.fn("digits")
    else:
        data = tokenize_corpus.fn(ingest_text.fn("pydocs"))
    given = {f"{family}.training.steps": SO_MANY_STEPS}
    return data, planned(chosen, data, "standard", 0, given)


def _with_shards(plan: Any, shards: int) -> Any:
    training = replace(plan.settings["training"], shards=shards)
    return replace(plan, settings={**plan.settings, "training": training})


def timed(data: Any, plan: Any, steps: int) -> tuple[float, str]:
    """The median seconds of a step of a training, and the sha256 of what it then knows."""
    from tasks.training.device import computing_threads
    from tasks.training.examples import splits_of
    from tasks.training.ranks import Ranks

    with computing_threads(plan.threads_of_a_process), Ranks(plan, data) as ranks:
        make = resolve_name(plan.training)
        training = make(splits_of(data), torch.device("cpu"), **plan.settings)
        ranks.begin(training)
        each, since = [], time.monotonic()
        for step in training.steps():
            now = time.monotonic()
            each.append(now - since)
            since = now
            if step.step == NUM_WARM + steps:
                break
        return statistics.median(each[NUM_WARM:]), _digest_of(training.state)


def _digest_of(state: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.snapshot()[0].items()):
        digest.update(name.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
