"""The whole command with real servers: killed, without its servers, and beside a rival."""

import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from faults.contention import Contention
from faults.tally import Tally

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^([a-z]+-(?:vae|gan|ngram|gpt)) +(\d+) +(champion|challenger)", re.MULTILINE)
PROGRESS = re.compile(r"training digits-vae: (\d+)/(\d+)")
TRAINED = r"training digits-vae: (\d+)/\1 "
MAX_SLOWDOWN = 1.5
LOCKED = "database is locked"
BEATING = ("prefect.server.utilities.worker_channel", "docket.dependencies")
"""Loggers of what Prefect's server does every few seconds, unasked."""


class Studio:
    """A home with its two servers, and the command in processes of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.logs = home / "logs"
        kept = ("ATELIER_", "PREFECT_", "MLFLOW_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
        self.environment = {**clean, "ATELIER_HOME": str(home)}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Begin a command; its output goes to a file.

        The servers get ports that no other installation asks for: while one of ours is away, a
        stranger's would answer in its place.
        """
        if arguments[0] in ("run", "up") and not (self.home / "servers.json").exists():
            ports = ("--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
            arguments += ports
        self.logs.mkdir(parents=True, exist_ok=True)
        number = len(list(self.logs.glob("command-*.log")))
        with (self.logs / f"command-{number}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "atelier", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=ROOT,
                env=self.environment,
            )
        process.log = self.logs / f"command-{number}.log"  # type: ignore[attr-defined]
        return process

    def run(self, *arguments: str) -> tuple[int, str]:
        """A command to its end: exit code and output."""
        process = self.start(*arguments)
        return process.wait(), output_of(process)

    def server(self, name: str) -> dict[str, Any]:
        """What the home knows of one of its servers."""
        found: dict[str, Any] = json.loads((self.home / "servers.json").read_text())[name]
        return found

    def versions(self) -> set[tuple[str, str]]:
        """All registered versions, as (name, content digest); raises if one stands twice."""
        from mlflow.tracking import MlflowClient

        registry = MlflowClient(self.server("mlflow")["url"])
        found = [
            (version.name, version.tags["content_digest"])
            for version in registry.search_model_versions()
        ]
        assert len(found) == len(set(found)), f"a version was registered twice: {found}"
        return set(found)

    def open_runs(self) -> int:
        """How many MLflow runs are open."""
        from mlflow.tracking import MlflowClient

        runs = MlflowClient(self.server("mlflow")["url"])
        experiment = runs.get_experiment_by_name("atelier")
        return len(runs.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'"))

    def repeated_tasks(self) -> list[str]:
        """The names of tasks that have more than one run of the same key."""
        from mlflow.tracking import MlflowClient

        runs = MlflowClient(self.server("mlflow")["url"])
        experiment = runs.get_experiment_by_name("atelier")
        tasks = [
            (run.info.run_name, run.data.tags["atelier.key"])
            for run in runs.search_runs([experiment.experiment_id], max_results=1000)
            if "mlflow.parentRunId" in run.data.tags and "atelier.key" in run.data.tags
        ]
        return sorted({name for name, key in tasks if tasks.count((name, key)) > 1})

    def curve(self, run_name: str, metric: str) -> list[tuple[int, float]]:
        """(step, seconds since 1970) of a metric of the latest run of a name, as they arrived."""
        from mlflow.tracking import MlflowClient

        runs = MlflowClient(self.server("mlflow")["url"])
        experiment = runs.get_experiment_by_name("atelier")
        (run, *_) = runs.search_runs(
            [experiment.experiment_id], f"attributes.run_name = '{run_name}'"
        )
        points = runs.get_metric_history(run.info.run_id, metric)
        return [(point.step, point.timestamp / 1000) for point in points]


def free_port() -> int:
    """A port that is free now, from the range that nobody prefers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def output_of(process: "subprocess.Popen[str]") -> str:
    """What a command has printed so far."""
    text: str = process.log.read_text()  # type: ignore[attr-defined]
    return text


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all below it."""
    parent = psutil.Process(pid)
    for process in [*parent.children(recursive=True), parent]:
        process.kill()


def wait_for(process: "subprocess.Popen[str]", pattern: str, seconds: float = 120) -> bool:
    """Wait until a command has printed something; False when it ended or took too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if re.search(pattern, output_of(process)):
            return True
        time.sleep(0.1)
    return re.search(pattern, output_of(process)) is not None


QUICK = ("run", "--preset", "quick", "--models", "vae,ngram")
LONG = ("--preset", "standard", "--models", "vae")


def kill_commands(
    killed: Studio, num_kills: int, dice: random.Random, scratch: Path, tally: Tally
) -> None:
    """Kill whole runs at random moments; then one run must finish all, registering once."""
    whole = Studio(scratch / "whole-run")
    code, printed = whole.run(*QUICK)
    if code:
        tally.note(f"an uninterrupted run failed: {printed[-500:]}")
    expected = whole.versions()
    whole.run("down")
    killed.run("up")
    for _ in range(num_kills):
        process = killed.start(*QUICK)
        time.sleep(dice.uniform(2.0, 18.0))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            tally.kills += 1
        process.wait()
    tally.sequences += 1
    code, printed = killed.run(*QUICK)
    again, _ = killed.run(*QUICK)
    if code or again:
        tally.note(f"after {num_kills} kills a run failed: {printed[-500:]}")
    elif killed.versions() == expected:
        tally.identical += 1
    else:
        tally.note(f"after {num_kills} kills the registry differs: {killed.versions()}")
    _count_leftovers(killed, tally)
    print(f"  whole runs: {num_kills} kills", flush=True)


def stop_servers_in_between(studio: Studio, seconds_away: float, tally: Tally) -> None:
    """Kill a server while a model trains, start it again later; all must arrive, once."""
    studio.run("up")
    for seed, name in enumerate(("mlflow", "prefect"), start=50):
        tally.outages += 1
        with Contention() as contention:
            run = studio.start("run", *LONG, "--seed", str(seed))
            if not wait_for(run, PROGRESS.pattern):
                tally.note(f"no training to interrupt: {output_of(run)[-500:]}")
                continue
            server = studio.server(name)
            kill_tree(server["pid"])
            away = time.time()
            time.sleep(seconds_away)
            back = time.time()
            studio.run("up", f"--{name}-port", str(server["port"]))
            code = run.wait()
        points = studio.curve("digits-vae", "loss")
        total = int(PROGRESS.findall(output_of(run))[-1][1])
        every = max(1, total // 200)
        steps = [step for step, _ in points]
        busier = contention.growth(away, back)
        measured = _slowdown([at for _, at in points], away, back)
        # Where others' work ended meanwhile, dividing by it would make a steady step look slow.
        slowdown = measured / max(1.0, busier)
        if code:
            tally.note(f"{name} was away: {output_of(run)[-700:]}")
        elif steps != sorted({*range(every, total + 1, every), total}):
            tally.note(f"{name} was away: {len(steps)} numbers arrived, not as told: {steps}")
        elif slowdown > MAX_SLOWDOWN:
            tally.note(f"{name} was away: training took {slowdown:.2f} times as long for a step")
        else:
            tally.outages_survived += 1
        print(
            f"  {name} killed, and back after {seconds_away:.0f} s: {len(steps)} numbers in order,"
            f" a step took {slowdown:.2f} times as long meanwhile (the machine was"
            f" {busier:.2f} times as busy)",
            flush=True,
        )
        _count_leftovers(studio, tally)


def stop_prefect_after_training(studio: Studio, seconds_away: float, tally: Tally) -> None:
    """Kill Prefect's server as training ends: what comes then must wait for it, not fail.

    First comes the evaluation, whose scorecard is published while the server is away.
    """
    studio.run("up")
    tally.outages += 1
    before = studio.versions()
    run = studio.start(*QUICK, "--seed", "52")
    if not wait_for(run, TRAINED):
        tally.note(f"no training to wait for: {output_of(run)[-500:]}")
        return
    server = studio.server("prefect")
    kill_tree(server["pid"])
    time.sleep(seconds_away)
    had_ended = run.poll() is not None
    refused, said = studio.run("up", "--prefect-port", str(server["port"]))
    code = run.wait()
    if refused:  # as when another program took the port meanwhile
        tally.note(f"prefect did not come back: {said[-300:]}")
        return
    added = {name for name, _ in studio.versions() - before}
    if code:
        tally.note(f"prefect was away after training: {output_of(run)[-700:]}")
    elif had_ended:
        tally.note("prefect was killed after training, and the run did without it")
    elif "digits-vae" not in added:
        tally.note(f"prefect was away after training: registered were {added}")
    else:
        tally.outages_survived += 1
    print(f"  prefect killed after training, and back after {seconds_away:.0f} s", flush=True)
    _count_leftovers(studio, tally)


def _slowdown(times: list[float], away: float, back: float) -> float:
    """How many times as long a step took between two moments, by the median."""
    gaps = [(later, later - earlier) for earlier, later in pairwise(times)]
    during = [gap for at, gap in gaps if away < at <= back]
    besides = [gap for at, gap in gaps if at <= away or at > back]
    return median(during) / median(besides) if during and besides else math.inf


def run_rivals(studio: Studio, tally: Tally) -> None:
    """Two commands at once on one home: with the same settings, then with different ones."""
    studio.run("up")
    studio.run(*QUICK)  # counting knows no seed: here it is done
    for seeds in (("70", "70"), ("71", "72")):
        tally.rivals += 1
        before = studio.versions()
        rivals = [studio.start(*QUICK, "--seed", seed) for seed in seeds]
        codes = [rival.wait() for rival in rivals]
        printed = [output_of(rival) for rival in rivals]
        added = {name for name, _ in studio.versions() - before}
        locked = [text for text in printed if LOCKED in text]
        for log in _server_logs(studio):
            locked += locked_requests(log)
        if any(codes):
            tally.note(f"rivals of seeds {seeds} ended with {codes}: {printed[0][-500:]}")
        elif len({tuple(ROW.findall(text)) for text in printed}) > 1 and seeds[0] == seeds[1]:
            tally.note(f"rivals of one seed saw different versions: {printed}")
        elif added != {"digits-vae"}:
            tally.note(f"rivals of seeds {seeds} registered {added}")
        elif locked:
            tally.note(f"a database was locked, and somebody was told: {locked[0][:500]}")
        else:
            tally.rivals_at_peace += 1
        _count_leftovers(studio, tally)
    print("  rivals: of one seed, and of two", flush=True)


def locked_requests(log: str) -> list[str]:
    """The records of a server's log that tell of a locked database, but for Prefect's own beats.

    The loops of Prefect's server that write again by themselves a few seconds later begin to read,
    then write in the same transaction; SQLite answers that at once, without waiting, where somebody
    else has written in between. Nothing that was asked for is lost by it.
    """
    records = re.split(r"^(?=\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", log, flags=re.MULTILINE)
    return [
        each
        for each in records
        if LOCKED in each and not any(f"| {name} - " in each for name in BEATING)
    ]


def _server_logs(studio: Studio) -> list[str]:
    return [path.read_text(errors="replace") for path in studio.logs.glob("*-server.log")]


def _count_leftovers(studio: Studio, tally: Tally) -> None:
    if repeated := studio.repeated_tasks():
        tally.note(f"one task, several MLflow runs: {repeated}")
    tally.orphans += studio.open_runs()
    tally.count_temporary_files(studio.home)
