"""What logging costs: training with its numbers going to an MLflow server, and without, in turns.

The share is of wall time; because a machine's own noise is of the same size, the time that the
journal's calls and its thread took of the processor is measured too, and told beside it.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measured import record
from flows import local_stack

LARGEST_SHARE = 0.02


def main() -> None:
    """Train so many pairs, and record both shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ATELIER_HOME"] = folder
        local_stack.apply_settings()
        local_stack.ensure_servers()
        try:
            _measure(options.pairs, options.steps)
        finally:
            local_stack.stop_servers()


def _measure(pairs: int, steps: int) -> None:
    from tasks.ingestion import ingest_images
    from tasks.runs import open_run

    images = ingest_images.fn("digits")
    _train(images, _Nothing(), steps=100)  # warm
    silent, telling, direct = [], [], []
    for pair in range(pairs):
        order = (True, False) if pair % 2 else (False, True)
        for is_told in order:
            if not is_told:
                silent.append(_train(images, _Nothing(), steps))
                continue
            with open_run("logged") as run_id:
                journal = _timed_journal(run_id)
                telling.append(_train(images, journal, steps))
                journal.close()
                direct.append(journal.seconds / telling[-1])
                _check_arrival(run_id, steps)
        print(f"without {silent[-1]:.2f} s, with {telling[-1]:.2f} s, own {direct[-1]:.2%}")
    share = statistics.median(telling) / statistics.median(silent) - 1.0
    seconds = statistics.median(telling)
    limit: dict[str, Any] = {"reference": "at most", "reference_value": LARGEST_SHARE}
    record("metric_logging_share", share, "of wall time", seconds=seconds, **limit)
    record("metric_logging_processor_share", direct, "of wall time", seconds=seconds, **limit)


class _Nothing:
    """A journal that keeps nothing."""

    prefix = "silent"  # as of a part of a run: the load of the machine is told once

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        pass

    def flush(self) -> None:
        pass


def _timed_journal(run_id: str) -> Any:
    from tasks.journal import Journal

    class Timed(Journal):
        seconds = 0.0

        def add(self, step: int, numbers: Mapping[str, float]) -> None:
            began = time.perf_counter()
            super().add(step, numbers)
            self.seconds += time.perf_counter() - began

        def flush(self) -> None:
            began = time.perf_counter()
            super().flush()
            self.seconds += time.perf_counter() - began

        def _pass_on(self) -> None:
            super()._pass_on()
            self.seconds += time.thread_time()

    return Timed(run_id)


def _train(images: Any, journal: Any, steps: int) -> float:
    """Seconds of the loop that all fits share, with the digits' recipe."""
    import torch

    from models.batches import ImageBatches
    from models.fitting import likelihood_steps
    from models.recipes import vae_recipe
    from models.training_state import TrainingState
    from models.vae import Vae, make_optimizer
    from tasks.ingestion import load_images
    from tasks.training.loop import Workplace, watched

    shape = (images.channels, images.height, images.width)
    config, fit = vae_recipe("standard", *shape, 0)
    torch.manual_seed(0)
    model = Vae(config)
    optimizer = make_optimizer(model, fit)
    pixels = torch.from_numpy(load_images(images, "train")[0].copy())
    batches = ImageBatches(pixels, fit.batch_size, 0)
    state = TrainingState({"model": model}, {"all": optimizer})
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(
            **{"family": "vae", "name": "digits-vae", "run_id": "", "seed": 0, "data_digest": ""},
            folder=Path(folder),
            journal=journal,
            record=None,  # type: ignore[arg-type]
        )
        began = time.perf_counter()
        for _ in watched(
            lambda start: likelihood_steps(model, optimizer, batches.at, fit, start),
            state,
            place,
            num_steps=steps,
        ):
            if state.step == steps:
                break
        return time.perf_counter() - began


def _check_arrival(run_id: str, steps: int) -> None:
    from tasks.tracking import metric_history

    every = max(1, steps // 200)
    expected = sorted({*range(every, steps + 1, every), steps})
    assert [step for step, _ in metric_history(run_id, "loss")] == expected


if __name__ == "__main__":
    main()
