"""What logging costs: training with its numbers going to an MLflow server, and without, in turns.

Two equal trainings take turns of some ten seconds, so that both meet the machine's noise. A turn
that logs ends when the server has its numbers: the wait, which a training has once and not at every
turn, is counted, so the share (the median over pairs of turns) is an upper bound. Turns of ten
seconds differ by several per cent on a shared machine, so the processor time is told besides: what
the journal's calls and its thread took, and what the server took, less what it takes when idle.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil

from atelier.services import local_servers, process_settings, server_records
from benchmarks.measured import record

MAX_SHARE = 0.02
STEPS, STEPS_OF_A_TURN = 1500, 750
SECONDS_BETWEEN_LOOKS = 0.002


def main() -> None:
    """Run so many pairs of trainings, and record both shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainings", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ATELIER_HOME"] = folder
        process_settings.apply_settings()
        local_servers.ensure_servers()
        try:
            _measure(options.trainings)
        finally:
            local_servers.stop_servers()


def _measure(trainings: int) -> None:
    from tasks.data.ingestion import ingest_images
    from tasks.tracking.runs import open_run

    images = ingest_images.fn("digits")
    shares: list[float] = []
    own: list[float] = []
    servers: list[float] = []
    for _ in range(trainings):
        with open_run("logged") as run_id:
            journal = _timed_journal(run_id)
            seconds, server_seconds = _turns(images, journal, shares)
            journal.close()
            own.append(journal.seconds / seconds)
            servers.append(server_seconds / seconds)
            _check_arrival(run_id)
    limit: dict[str, Any] = {"reference": "at most", "reference_value": MAX_SHARE}
    record("metric_logging_share", statistics.median(shares), "of wall time", **limit)
    record("metric_logging_processor_share", statistics.fmean(own), "of wall time", **limit)
    record("metric_logging_server_share", servers, "of one core")


def _turns(images: Any, journal: Any, shares: list[float]) -> tuple[float, float]:
    """Two trainings in turns; adds a share for each pair.

    Returns the seconds of the one told, and those of the server's processor time that it cost.
    """
    total = of_server = 0.0
    with _training(images, _Nothing()) as silent, _training(images, journal) as told:
        for pair in range(STEPS // STEPS_OF_A_TURN):
            seconds = {}
            for training in (silent, told) if pair % 2 else (told, silent):
                began, server_began = time.perf_counter(), _server_seconds()
                for _ in range(STEPS_OF_A_TURN):
                    next(training)
                trained = time.perf_counter()
                if training is told:
                    journal.settle()
                    waited = time.perf_counter() - trained
                seconds[training] = time.perf_counter() - began
                taken = _server_seconds() - server_began
                of_server += taken if training is told else -taken
            shares.append(seconds[told] / seconds[silent] - 1.0)
            total += seconds[told]
            print(
                f"without {seconds[silent]:.2f} s, with {seconds[told]:.2f} s, of which"
                f" {waited:.2f} s waiting for the server",
                flush=True,
            )
    return total, of_server


def _server_seconds() -> float:
    """Processor time of the tracking server and its workers so far."""
    first = psutil.Process(server_records.recorded()["mlflow"].pid)
    times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


class _Nothing:
    """A journal that keeps nothing."""

    prefix = "silent"  # as of a part of a run: the load of the machine is told once

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        pass

    def flush(self) -> None:
        pass


def _timed_journal(run_id: str) -> Any:
    from tasks.tracking.metric_queue import MetricQueue, _sent_bytes

    class Timed(MetricQueue):
        seconds = 0.0

        def add(self, step: int, numbers: Mapping[str, float]) -> None:
            began = time.perf_counter()
            super().add(step, numbers)
            self.seconds += time.perf_counter() - began

        def flush(self) -> None:
            began = time.perf_counter()
            super().flush()
            self.seconds += time.perf_counter() - began

        def settle(self) -> None:
            """Wait until the server has everything; the sender's rest is cut short."""
            self.flush()
            self._is_closing.set()
            self._is_closing.clear()
            mark = self._path.with_suffix(".sent")
            while _sent_bytes(mark) < self._path.stat().st_size:
                time.sleep(SECONDS_BETWEEN_LOOKS)

        def _pass_on(self) -> None:
            super()._pass_on()
            self.seconds += time.thread_time()

    return Timed(run_id)


@contextmanager
def _training(images: Any, journal: Any) -> Iterator[Iterator[Any]]:
    """The steps of the loop that all fits share, with the digits' recipe."""
    import torch

    from models.training.batches import ImageBatches
    from models.training.checkpoint import TrainingState
    from models.training.loops import Step, likelihood_steps
    from models.vae.model import Vae, make_optimizer
    from models.vae.recipe import vae_recipe
    from tasks.data.splits import load_images
    from tasks.store.artifacts import opened
    from tasks.training.checkpointing import checkpointed_steps
    from tasks.training.fit_store import FitContext
    from tasks.training.plan import image_shape

    config, fit = vae_recipe("standard", image_shape(images), 0).values()
    torch.manual_seed(0)
    model = Vae(config)
    optimizer = make_optimizer(model, fit)
    pixels = torch.from_numpy(load_images(images, "train")[0].copy())
    batches = ImageBatches(pixels, fit.batch_size, 0)

    class Updates:
        """Nothing but updates: neither validation nor pictures."""

        shown, num_steps = ("loss",), STEPS
        state = TrainingState({"model": model}, {"all": optimizer})

        def steps(self) -> Iterator[Step]:
            return likelihood_steps(model, optimizer, batches.at, fit, self.state.step)

    training: Any = Updates()
    with opened("models", "digits-vae", {"benchmark": time.time()}, can_resume=True) as work:
        place = FitContext(
            **{"family": "vae", "name": "digits-vae", "run_id": "", "seed": 0, "data_digest": ""},
            work=work,
            journal=journal,
        )
        yield checkpointed_steps(training, place)


def _check_arrival(run_id: str) -> None:
    from tasks.tracking.mlflow_client import metric_history

    every = STEPS // 200
    expected = sorted({*range(every, STEPS + 1, every), STEPS})
    assert [step for step, _ in metric_history(run_id, "loss")] == expected


if __name__ == "__main__":
    main()
