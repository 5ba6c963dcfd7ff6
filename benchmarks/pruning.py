"""What pruning saves: a search with `--prune halving` and the same search without it.

Both try the same settings of a small VAE on the digits: the sampler is `random`, which learns
nothing from trials, and both train with the schedule that halving needs. So the two differ in what
was not trained only. Compared are the times from the end of the first training to the end of the
last, the best values (pruning may end what would have become the best), and the steps.

    python -m benchmarks.pruning [--trials 16] [--steps 900] [--seeds 3]
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measured import record
from benchmarks.search import ours

RATE = "vae.training.learning_rate=log:1e-4..3e-2"
SIZE = "vae.model.latent_size=4..32"


def main() -> None:
    """Search twice with each seed, and record what is compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    times, bests, same = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            whole = _search(Path(folder) / f"whole-{seed}", options, seed, "none")
            pruned = _search(Path(folder) / f"pruned-{seed}", options, seed, "halving")
            if [each["values"] for each in whole[1]] != [each["values"] for each in pruned[1]]:
                raise SystemExit(f"seed {seed}: the two searches tried different settings")
            best, best_of_pruned = _best(whole[1]), _best(pruned[1])
            times.append(pruned[0] / whole[0])
            bests.append(best_of_pruned[0] / best[0])
            same += best == best_of_pruned
            print(
                f"seed {seed}: {whole[0]:.1f} s without pruning, {pruned[0]:.1f} s with it; best"
                f" {best[0]:.5g} (trial {best[1]}), {best_of_pruned[0]:.5g} (trial"
                f" {best_of_pruned[1]}); {_ended(pruned[1])} of {options.trials} pruned",
                flush=True,
            )
    print(f"the same best trial, with the same value: {same} of {options.seeds} seeds")
    print(f"load after: {os.getloadavg()[0]:.1f}", flush=True)
    seeds = range(options.seeds)
    record("search_pruning_time_ratio", times, "of the time without pruning", seeds=seeds)
    record("search_pruning_best_ratio", bests, "of the best value without pruning", seeds=seeds)


def _search(
    home: Path, options: argparse.Namespace, seed: int, prune: str
) -> tuple[float, list[Any]]:
    """The time of a search between its first and its last training's end, and its trials."""
    steps, schedule = f"vae.training.steps={options.steps}", "vae.training.schedule=wsd"
    ends, trials = ours(
        home,
        *("vae", "--images", "digits", "--preset", "quick", "--sampler", "random"),
        *("--vary", RATE, "--vary", SIZE, "--set", steps),
        *(("--prune", prune) if prune == "halving" else ("--set", schedule)),
        *("--trials", str(options.trials), "--seed", str(seed)),
    )
    return max(ends) - min(ends), trials


def _best(trials: list[Any]) -> tuple[float, int]:
    """The lowest value of those trained to the end, and the trial's number."""
    whole = [each for each in trials if each["outcome"]["state"] == "complete"]
    return min((each["outcome"]["value"], each["number"]) for each in whole)


def _ended(trials: list[Any]) -> int:
    return sum(each["outcome"]["state"] == "pruned" for each in trials)


if __name__ == "__main__":
    main()
