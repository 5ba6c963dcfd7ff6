"""Trials per minute: our search against Optuna alone, which calls the same training function.

Both try learning rates of a small VAE on the digits, from the present recipe on, with the same
sampler and seed, on one thread, and measure each trial on the validation split. Optuna alone keeps
its study in memory: no Prefect, MLflow, store, checkpoints or pictures. It runs before and after
our search, so that a busy machine disturbs both alike. What comes before the end of the first
trial (servers, imports, data) is left out. Our search is the command that people type; when a
trial ended is when its line came. Then a fresh home with two workers must give the same study, and
trial 0 must have the value that Optuna alone measures, to the last bit.

    python -m benchmarks.search [--trials 8] [--steps 200]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from benchmarks.measured import record
from tasks.store.files import project_root

MAX_SECONDS = 1.5
SEED = 0
NAME = "measured"
VARIED, LOW, HIGH = "vae.training.learning_rate", 1e-3, 1e-2
NOT_OF_THE_ANSWER = ("seconds", "run_id")


def main() -> None:
    """Run each search, compare and record them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ATELIER_HOME"] = str(Path(folder) / "alone")
        before = alone(options.trials, options.steps)
        ends, trials = ours(Path(folder) / "one", *_asked(options, workers=1))
        after = alone(options.trials, options.steps)
        _, study_of_two = ours(Path(folder) / "two", *_asked(options, workers=2))
    print(f"load after: {os.getloadavg()[0]:.1f}", flush=True)
    if answer_of(trials) != answer_of(study_of_two):
        raise SystemExit("two workers gave another study than one")
    values = trials[0]["outcome"]["value"], before[0][1], after[0][1]
    if len(set(values)) > 1:
        raise SystemExit(f"trial 0 has several values: {values}")
    print("two workers gave the same study as one, and Optuna alone the same trial 0")
    _record(trials, ends, [[end for end, _ in each] for each in (before, after)])


def _record(trials: list[Any], ends: list[float], alone_ends: list[list[float]]) -> None:
    own, references = per_minute(ends), [per_minute(each) for each in alone_ends]
    reference = statistics.fmean(references)
    print(f"Optuna alone, before and after: {references[0]:.1f}, {references[1]:.1f} a minute")
    record(
        "search_trials_per_minute",
        own,
        "trials a minute",
        reference="Optuna alone",
        reference_value=reference,
    )
    record("search_trials_ratio_optuna", own / reference, "of Optuna alone's trials a minute")
    taken = [later - earlier for earlier, later in pairwise(ends)]
    beyond = [
        seconds - each["outcome"]["seconds"]
        for seconds, each in zip(taken, trials[1:], strict=True)
    ]
    record(
        "search_overhead_seconds",
        statistics.median(beyond),
        "s a trial beyond its training",
        reference="at most",
        reference_value=MAX_SECONDS,
    )


def per_minute(ends: list[float]) -> float:
    """Trials a minute after the first one, from the times in seconds at which trials ended."""
    return 60 * (len(ends) - 1) / (max(ends) - min(ends))


def answer_of(trials: list[Any]) -> list[Any]:
    """A study without what no two runs share: times, and names of runs."""
    return [
        {
            **each,
            "outcome": {
                name: value
                for name, value in each["outcome"].items()
                if name not in NOT_OF_THE_ANSWER
            },
        }
        for each in trials
    ]


# Our search -----------------------------------------------------------------------------------


def _asked(options: argparse.Namespace, *, workers: int) -> list[str]:
    return [
        *(
            "vae",
            "--images",
            "digits",
            "--preset",
            "quick",
            "--vary",
            f"{VARIED}=log:{LOW}..{HIGH}",
        ),
        *("--set", f"vae.training.steps={options.steps}", "--trials", str(options.trials)),
        *("--workers", str(workers), "--seed", str(SEED)),
    ]


def ours(home: Path, *arguments: str) -> tuple[list[float], list[Any]]:
    """When each trial of a search in a fresh home ended, in seconds, and its study."""
    home.mkdir()
    try:
        command = ("search", *arguments, "--name", NAME, "--fresh-seeds", "0")
        ends = _ends(home, *command)
        told = _run(home, "search", "--show", NAME, "--json")
        return ends, json.loads(told.stdout.read())["trials"]  # type: ignore[union-attr]
    finally:
        _run(home, "down").communicate()


def _ends(home: Path, *arguments: str) -> list[float]:
    running, ends, lines = _run(home, *arguments), [], []
    assert running.stdout is not None
    for line in running.stdout:
        lines.append(line)
        if is_end_of_trial(line):
            ends.append(time.perf_counter())
    if running.wait():
        raise SystemExit("".join(lines))
    return ends


def is_end_of_trial(line: str) -> bool:
    """Whether a line of the command tells that a trial ended."""
    _, _, told = line.partition("  ")
    words = told.split()
    return len(words) > 2 and words[0] == "trial" and words[1].rstrip(":").isdigit()


def _run(home: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "atelier", *arguments],
        env={
            **os.environ,
            "ATELIER_HOME": str(home),
            "PYTHONPATH": str(project_root()),
            "PYTHONUNBUFFERED": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# Optuna alone ---------------------------------------------------------------------------------


def alone(trials: int, steps: int) -> list[tuple[float, float]]:
    """When each trial of Optuna's ended, in seconds, and its value."""
    from atelier.services import process_settings

    process_settings.apply_settings()
    import optuna

    from flows.train import planned
    from tasks.data.ingestion import ingest_images
    from tasks.families.table import FAMILIES
    from tasks.search.study import RANDOM_TRIALS
    from tasks.search.trial import use_threads
    from tasks.training.examples import splits_of

    use_threads(1)
    family, data = FAMILIES["vae"], ingest_images.fn("digits")
    splits, given = splits_of(data), {"vae.training.steps": steps}
    told: list[tuple[float, float]] = []

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float(VARIED, LOW, HIGH, log=True)
        settings = given if trial.number == 0 else {**given, VARIED: rate}
        value = trained_and_measured(family, splits, planned(family, data, "quick", SEED, settings))
        told.append((time.perf_counter(), value))
        return value

    sampler = optuna.samplers.TPESampler(seed=SEED, n_startup_trials=RANDOM_TRIALS)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    first = planned(family, data, "quick", SEED, given).settings["training"]
    study.enqueue_trial({VARIED: first.learning_rate})
    study.optimize(objective, n_trials=trials)
    return told


def trained_and_measured(family: Any, splits: Any, plan: Any) -> float:
    """Nats per validation image after the training of a plan, in plain loops."""
    import torch

    from models.vae.model import Vae
    from models.vae.training import VaeTraining
    from tasks.evaluation.result import EVALUATION_SEED

    training = VaeTraining(splits, torch.device("cpu"), **plan.settings)
    for _ in training.steps():
        pass
    kept = training.finish("")
    model = Vae(kept.config)
    model.load_state_dict(kept.tensors)
    likelihood = resolve_name(family.likelihood)
    return float(likelihood(model.eval(), splits.validation, EVALUATION_SEED).nats.mean())


if __name__ == "__main__":
    main()
