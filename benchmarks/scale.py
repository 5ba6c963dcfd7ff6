"""One training on several processes, and many on several nodes: what two save, and what it costs.

Trained are the standard recipes of three families, on digits and on Python's documentation, as a
run trains them but for checkpoints and pages. Each turn times some steps of

    whole    batches at once, on as many threads as there are cores: what a run does by default
    single   the same on one thread
    one      batches in 4 shards, in one process of one thread
    two      the same in two processes

one after the other, so that a busy machine disturbs all alike; a time is the median of a turn's
steps, and rows are ratios of times of one turn. `one` and `two` must end with the same weights, or
nothing is recorded. The times of starting processes, and of validating, are left out.

Then the same search of a small VAE runs in one and in two processes of this machine, and on one and
on two Ray nodes of one CPU, and rows are ratios of trials a minute from the end of the first trial
on: of one turn, with another study or none where the four differ. The nodes share this machine, so
two of them save what two processes save, and what is measured is what Ray costs.

    python -m benchmarks.scale [--steps 60] [--turns 3] [--families vae gan gpt] [--trials 8]
"""

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from benchmarks.measured import record
from benchmarks.ray_nodes import RayNodes
from benchmarks.search import answer_of, ours, per_minute

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
    parser.add_argument("--trials", type=int, default=8, help="0: no search is timed")
    parser.add_argument("--trial-steps", type=int, default=600)
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ATELIER_HOME"] = str(Path(folder) / "home")
        for family in options.families:
            _compare(family, options.steps, options.turns)
        if options.trials and find_spec("ray") is None:
            print("no search is timed: Ray is not installed; it is the extra `ray`")
        elif options.trials:
            _compare_runners(Path(folder), options.trials, options.trial_steps, options.turns)
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


# Many trainings -------------------------------------------------------------------------------


def _compare_runners(folder: Path, trials: int, steps: int, turns: int) -> None:
    rates: dict[tuple[str, int], list[float]] = {}
    studies = []
    for turn in range(turns):
        for runner in ("processes", "ray"):
            for number in (1, 2):
                home = folder / f"{runner}-{number}-{turn}"
                rate, study = _searched(home, runner, number, trials, steps)
                rates.setdefault((runner, number), []).append(rate)
                studies.append(study)
                print(f"turn {turn}, {runner}, {number} at a time: {rate:.1f} trials a minute")
    if any(each != studies[0] for each in studies):
        raise SystemExit("a search on Ray gave another study than one in processes")
    print("the same study in one and two processes, and on one and two nodes", flush=True)
    for row, above, below, words in (
        ("one_node_rate_ratio", ("ray", 1), ("processes", 1), "of one process's"),
        ("two_nodes_rate_ratio", ("ray", 2), ("processes", 2), "of two processes'"),
        ("two_nodes_gain", ("ray", 2), ("ray", 1), "of one node's"),
        ("two_workers_gain", ("processes", 2), ("processes", 1), "of one process's"),
    ):
        record(
            f"scale_search_{'' if above[0] == 'processes' else 'ray_'}{row}",
            [a / b for a, b in zip(rates[above], rates[below], strict=True)],
            f"trials a minute, {words}, both on this machine",
            seeds=range(turns),
        )


def _searched(home: Path, runner: str, number: int, trials: int, steps: int) -> tuple[float, Any]:
    """Trials a minute of a search in a fresh home, so many at a time, and its study."""
    asked = [
        *("vae", "--images", "digits", "--preset", "quick", "--trials", str(trials)),
        *("--vary", "vae.training.learning_rate=log:1e-3..1e-2", "--workers", str(number)),
        *("--set", f"vae.training.steps={steps}"),
    ]
    if runner == "processes":
        ends, found = ours(home, *asked)
        return per_minute(ends), answer_of(found)
    with RayNodes(number) as nodes:
        before = dict(os.environ)
        os.environ.update(nodes.environment)
        try:
            ends, found = ours(home, *asked, "--runner", "ray:auto")
        finally:
            for name in nodes.environment:
                os.environ.pop(name)
            os.environ.update(before)
    return per_minute(ends), answer_of(found)


if __name__ == "__main__":
    main()
