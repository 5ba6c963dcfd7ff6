"""What an evaluation is found by."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.data.ingestion import ImageSet
from tasks.evaluation.cache import Measurement, evaluate_cached
from tasks.evaluation.result import EvaluationResult

RESULT = EvaluationResult(
    main_metric="test_nll_nats",
    unit="nats per image",
    metrics={"test_nll_nats": 1.0},
    failed_checks=[],
    scores=np.ones(3),
    are_resamples=False,
    low=0.5,
    high=1.5,
    files={},
    example="",
)


def test_samples_drawn_on_another_device_are_another_evaluation(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.evaluation.cache.samples_digest", lambda _: "0" * 64)
    measured: list[str] = []

    def on(device: str) -> Any:
        @contextmanager
        def subject() -> Iterator[Any]:
            measured.append(device)
            yield None

        measurement = Measurement(modules=("tasks.evaluation.result",), measure=lambda _: RESULT)
        measurement = replace(measurement, device=device)
        return evaluate_cached("m", "1" * 64, images, measurement, run_id="", subject=subject)

    on_cpu, on_gpu, again = on("cpu"), on("cuda"), on("cuda")

    assert measured == ["cpu", "cuda"]
    assert on_cpu.evaluation_digest != on_gpu.evaluation_digest == again.evaluation_digest
