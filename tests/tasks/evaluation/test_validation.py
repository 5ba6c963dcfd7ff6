"""What a search goes by: numbers of the validation split, whatever the test split holds."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.train import planned
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.evaluation.images import judge_of
from tasks.evaluation.validation import Objective, measured_on_validation
from tasks.families.family import Family
from tasks.families.table import FAMILIES
from tasks.packaging.package import rebuilt_from
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel
from tasks.training.plan import feature_extractor_plan

STEPS = 4


def short_plan(family: str, data: ImageSet | TokenSet) -> Any:
    """The quick preset for a few steps."""
    plan = planned(FAMILIES[family], data, "quick", 0, {})
    short = {
        name: replace(each, steps=STEPS, warmup_steps=1) if hasattr(each, "steps") else each
        for name, each in plan.settings.items()
    }
    return replace(plan, settings=short)


def measured(family: str, data: ImageSet | TokenSet, run_id: str) -> tuple[TrainedModel, Objective]:
    """A model trained for a moment, and its objective."""
    record, judge = FAMILIES[family], None
    if isinstance(data, ImageSet) and not record.likelihood:
        plan = feature_extractor_plan(data)
        fit = replace(plan.settings["training"], steps=STEPS)
        judge = judge_of(
            fit_model.fn(data, replace(plan, settings={**plan.settings, "training": fit}), run_id)
        )
    fitted = fit_model.fn(data, short_plan(family, data), run_id)
    subject = rebuilt_from(fitted)
    return fitted, measured_on_validation(subject, data, judge, likelihood=record.likelihood)


def without_test(data: Any, where: Path) -> Any:
    """A copy of the data whose test split is gone: rubbish, or no file at all."""
    shutil.copytree(data.folder, where)
    copy = replace(data, folder=str(where))
    if isinstance(data, ImageSet):
        first = data.num_train + data.num_validation
        for name, rubbish in (("pixels.npy", 77), ("labels.npy", 10**6)):
            array = np.load(where / name)
            array[first:] = rubbish % 256 if array.dtype == np.uint8 else rubbish
            np.save(where / name, array)
        return copy
    (where / "test.npy").unlink()
    corpus = where.with_name(f"{where.name}-corpus")
    shutil.copytree(data.corpus.folder, corpus)
    (corpus / "test.txt").unlink()
    return replace(copy, corpus=replace(data.corpus, folder=str(corpus)))


SLOW = ("diffusion",)  # its samples take 38 passes
EVERY_FAMILY = [
    pytest.param(family, marks=pytest.mark.slow if name in SLOW else (), id=name)
    for name, family in FAMILIES.items()
]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_neither_training_nor_objective_reads_the_test_split(
    family: Family,
    images: ImageSet,
    tokens: TokenSet,
    run_id: str,
    tmp_path: Path,
    fresh_home: Callable[[], None],
) -> None:
    data = images if family.data == "images" else tokens
    fitted, objective = measured(family.name, data, run_id)
    blind = without_test(data, tmp_path / "blind")
    fresh_home()

    again, of_blind = measured(family.name, blind, run_id)

    assert not again.was_stored
    assert again.digest == fitted.digest
    assert of_blind == objective
    assert objective.fault == ""
    if family.data == "text":
        assert objective.name == "validation_bits_per_byte"
        assert 0 < objective.value < 8


@pytest.fixture
def fresh_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """Goes on in a home without a single fit."""
    return lambda: monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "elsewhere"))


def test_samples_need_a_judge_where_there_is_no_likelihood(images: ImageSet) -> None:
    with pytest.raises(ValueError, match="features of a judge; got none"):
        measured_on_validation(None, images, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_a_fault(value: float) -> None:
    assert str(value) in Objective(name="loss", value=value, unit="nats").fault
