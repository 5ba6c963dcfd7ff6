"""The key of a fit: the threads that its bits depend on count, wherever it is computed."""

from dataclasses import replace

import pytest
import torch

from flows.train import planned
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.families.table import FAMILIES
from tasks.store.steps import changes
from tasks.training import fit_store
from tasks.training.device import computing_threads
from tasks.training.fit import fit_model
from tasks.training.fit_store import device_of, fit_cache_key, fit_parts
from tasks.training.plan import TrainingPlan


def on(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(fit_store, "training_device", lambda: torch.device(device))


def with_threads(plan: TrainingPlan, threads: int | None) -> TrainingPlan:
    return replace(plan, threads=threads)


def test_another_number_of_threads_is_another_fit_on_a_cpu(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(FAMILIES["vae"], images, "quick", 0, {})
    on(monkeypatch, "cpu")

    one, two = (fit_parts(with_threads(plan, threads), images) for threads in (1, 2))

    (told,) = changes(one, two)
    assert "cpu, 1 threads" in told
    assert "cpu, 2 threads" in told
    on(monkeypatch, "cuda")
    assert device_of(with_threads(plan, 1)) == device_of(with_threads(plan, 2)) == "cuda"


def test_a_process_and_a_plan_say_the_same_in_one_way(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search names the threads of its workers, which have as many."""
    plan = planned(FAMILIES["vae"], images, "quick", 0, {})
    on(monkeypatch, "cpu")
    named = fit_cache_key(with_threads(plan, 3), images)

    with computing_threads(3):
        found = fit_cache_key(plan, images)
    with computing_threads(4):
        other = fit_cache_key(plan, images)

    assert found == named != other


def test_shards_are_computed_by_one_thread_each_unless_a_plan_says_otherwise(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the process has: another one may compute them."""
    plan = planned(FAMILIES["vae"], images, "quick", 0, {"vae.training.shards": 2})
    on(monkeypatch, "cpu")

    with computing_threads(3):
        assert device_of(plan) == "cpu, 1 threads"
        assert device_of(with_threads(plan, 2)) == "cpu, 2 threads"


def test_shards_count_and_processes_do_not(images: ImageSet) -> None:
    plan = planned(FAMILIES["vae"], images, "quick", 0, {"vae.training.shards": 2})
    other = planned(FAMILIES["vae"], images, "quick", 0, {"vae.training.shards": 4})

    assert fit_cache_key(replace(plan, processes=2), images) == fit_cache_key(plan, images)
    assert fit_cache_key(other, images) != fit_cache_key(plan, images)


def test_a_counted_model_is_told_apart_too_since_its_smoothing_is_tuned(
    tokens: TokenSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(FAMILIES["ngram"], tokens, "quick", 0, {})

    on(monkeypatch, "cuda")

    assert device_of(with_threads(plan, 2)) == "cpu, 2 threads"


def test_a_fit_computes_with_the_threads_of_its_plan(
    tokens: TokenSet, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(
        "tasks.training.fit.splits_of", lambda _: seen.append(torch.get_num_threads())
    )
    plan = with_threads(planned(FAMILIES["ngram"], tokens, "quick", 0, {}), 3)

    with pytest.raises(AttributeError):  # there is nothing to count
        fit_model.fn(tokens, plan, run_id)

    assert seen == [3]
    assert torch.get_num_threads() == before
