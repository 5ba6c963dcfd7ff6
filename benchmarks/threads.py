"""Training beside a busy neighbour: OpenMP's defaults against what the program sets by itself.

Each turn starts two processes that train the same small GPT, one with the defaults, one with
`atelier.services.process_settings.apply_settings`, which makes idle OpenMP threads sleep instead of
spin. Each trains alone first and then beside a process that only counts; a slowdown is the ratio of
the two median times of a step. With two threads and a neighbour on two cores 1.33 would be a fair
share of the time, and 2 where each step waits for the thread that shares its core. Spinning threads
lose far more, because what they wait for does not run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from atelier.services.process_settings import apply_settings

SETTINGS = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
NUM_TURNS, STEPS, MAX_SECONDS = 3, 12, 20.0


def main() -> None:
    """Measure in turns, and record both slowdowns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=NUM_TURNS)
    parser.add_argument("--measure", choices=["default", "passive"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure(options.measure)))
        return
    from benchmarks.measured import record  # it imports torch, which a measured process must not

    alone: dict[str, list[float]] = {"default": [], "passive": []}
    slowdowns: dict[str, list[float]] = {"default": [], "passive": []}
    for turn in range(options.turns):
        for policy, found in slowdowns.items():
            quiet, busy = _turn(policy)
            alone[policy].append(quiet)
            found.append(busy / quiet)
            print(f"turn {turn}, {policy}: {quiet:.3f} s a step alone,", end=" ")
            print(f"{busy:.3f} s beside a busy process: {busy / quiet:.2f} times", flush=True)
    for policy, found in slowdowns.items():
        record(
            f"threads_busy_slowdown_{policy}",
            found,
            "times the seconds of a step alone",
            seeds=range(options.turns),
            seconds=statistics.median(alone[policy]),
            reference="the other policy",
            reference_value=statistics.fmean(slowdowns[_other(policy)]),
        )


def _other(policy: str) -> str:
    return "passive" if policy == "default" else "default"


def _turn(policy: str) -> tuple[float, float]:
    """Seconds of a step alone and beside a neighbour, in a process that nobody else configured."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.threads", "--measure", policy],
            env=environment | {"ATELIER_HOME": home},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    alone, busy = json.loads(done.stdout.splitlines()[-1])
    return alone, busy


def _measure(policy: str) -> tuple[float, float]:
    """Train alone, then beside a process that only counts; median seconds of a step in each."""
    if policy == "passive":
        apply_settings()
    alone = _seconds_per_step()
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        return alone, _seconds_per_step()
    finally:
        neighbour.kill()
        neighbour.wait()


def _seconds_per_step() -> float:
    """The median over some steps; fewer where they are slow."""
    # Imported here: the settings must be in the environment before torch is.
    import torch

    from models.gpt.config import GptConfig
    from models.gpt.model import Gpt, make_optimizer
    from models.training.batches import TokenBatches
    from models.training.config import FitConfig
    from models.training.loops import likelihood_steps

    config, fit = GptConfig(vocabulary_size=65), FitConfig(steps=1000, batch_size=16)
    torch.manual_seed(0)
    model, tokens = Gpt(config), torch.randint(65, (100_000,))
    batches = TokenBatches(tokens, config.context_length, fit.batch_size, fit.seed)
    steps = likelihood_steps(model, make_optimizer(model, fit), batches.at, fit)
    next(steps)
    times: list[float] = []
    while len(times) < STEPS and (len(times) < 2 or sum(times) < MAX_SECONDS):
        started_at = time.monotonic()
        next(steps)
        times.append(time.monotonic() - started_at)
    return statistics.median(times)


if __name__ == "__main__":
    main()
