"""Image models judged: ours, and those that old versions bring along."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

from flows.train import planned
from tasks.data.ingestion import ImageSet
from tasks.evaluation.images import evaluate_image_model
from tasks.families.table import FAMILIES
from tasks.packaging.bundled_code import take_out
from tasks.packaging.package import rebuilt
from tasks.training.fit import fit_model
from tasks.training.plan import feature_extractor_plan


def test_a_version_whose_code_stands_in_the_place_of_ours_is_measured_by_ours(
    images: ImageSet, run_id: str
) -> None:
    family = FAMILIES["vae"]
    judge = fit_model.fn(images, feature_extractor_plan(images), run_id)
    plan = planned(family, images, "quick", 0, {})
    plan = replace(
        plan, settings={**plan.settings, "training": replace(plan.settings["training"], steps=3)}
    )
    fitted = fit_model.fn(images, plan, run_id)
    sys.modules.pop("models.vae.evaluation", None)

    @contextmanager
    def of_before() -> Iterator[Any]:
        """As `tasks.registry.loading.loaded` gives a version whose package is called `models`."""
        with rebuilt(fitted) as model:
            ours = take_out({"models"})
            sys.modules["models"] = ModuleType("models")  # nothing can be imported from it
            try:
                yield model
            finally:
                take_out({"models"})
                sys.modules.update(ours)

    scorecard = evaluate_image_model(
        fitted.name,
        fitted.digest,
        of_before,
        images,
        judge,
        likelihood=family.likelihood,
        draws_means=family.draws_means,
    )

    assert scorecard.main_metric == "test_nll_nats"
    assert scorecard.metrics["test_nll_nats"] > 0
