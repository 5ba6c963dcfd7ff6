"""Making a version again: what the record says, a home to work in, and the comparison."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect import task
from safetensors.torch import load_file

from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.evaluation.scorecard import Scorecard
from tasks.registry.verification import verified_copy
from tasks.registry.versions import Version, recorded
from tasks.runtime.retries import NETWORKED
from tasks.store.files import BadInput, outside_the_home, scratch_folder
from tasks.tracking.home_database import tracking_uri
from tasks.training.fit_store import TrainedModel
from tasks.training.plan import TrainingPlan
from tasks.training.provenance import TrainingProvenance, provenance_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One thing that may explain, or be, a difference between a version and its remake."""

    what: str
    recorded: str
    now: str

    @property
    def is_same(self) -> bool:
        """Whether nothing changed."""
        return self.recorded == self.now


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """Receipt of a remake."""

    name: str
    version: int
    is_identical: bool
    """Whether the weights are the same, bit by bit."""
    comparisons: tuple[Difference, ...]


@task(name="read-record", task_run_name="read the record of {name}", **NETWORKED)
def read_record(name: str, which: str) -> tuple[Version, TrainingProvenance]:
    """A version, by its alias or number, and how it was made."""
    version, recipe = recorded(name, which)
    if recipe is None:
        raise BadInput(f"{name} version {version.version} has no record of how it was made")
    return version, recipe


@contextmanager
def scratch_home() -> Iterator[Path]:
    """A home in which nothing was made before, there until the block ends; see `at_home`."""
    with scratch_folder(outside_the_home()) as folder:
        yield folder


@contextmanager
def at_home(folder: Path) -> Iterator[None]:
    """Work in another home for the time of a block; runs go where they went."""
    before = {name: os.environ.get(name) for name in ("ATELIER_HOME", "MLFLOW_TRACKING_URI")}
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri()
    os.environ["ATELIER_HOME"] = str(folder)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@task(name="compare-with-record", task_run_name="compare {version.name}", **NETWORKED)
def compare_with_record(
    version: Version,
    recipe: TrainingProvenance,
    plan: TrainingPlan,
    fitted: TrainedModel,
    scorecard: Scorecard | None,
    data: ImageSet | TokenSet,
) -> Reproduction:
    """What is as it was when the version was made, and what is not: causes, then results.

    scorecard: none where it was trained and not judged again.
    """
    now = provenance_of(plan, data, recipe.preset)
    changed = sorted(
        name
        for name in now.code.keys() | recipe.code.keys()
        if now.code.get(name) != recipe.code.get(name)
    )
    causes = [
        Difference(what="data", recorded=recipe.data_digest[:12], now=now.data_digest[:12]),
        Difference(
            what="code",
            recorded=recipe.code_digest[:12],
            now=f"changed: {', '.join(changed)}" if changed else recipe.code_digest[:12],
        ),
        *(
            Difference(what=name, recorded=recipe.libraries.get(name, "none"), now=current)
            for name, current in now.libraries.items()
        ),
        *_continued(recipe, now),
        Difference(what="device", recorded=recipe.device, now=now.device),
        Difference(what="machine", recorded=recipe.machine, now=now.machine),
    ]
    is_identical = fitted.digest == version.digest
    weights = Difference(
        what="weights",
        recorded=version.digest[:12],
        now=fitted.digest[:12] if is_identical else _distance(version, fitted),
    )
    metrics = [
        Difference(
            what=each.main_metric,
            recorded=f"{version.main_value:.6g}",
            now=f"{each.main_value:.6g}",
        )
        for each in [scorecard]
        if each is not None
    ]
    return Reproduction(
        name=version.name,
        version=version.version,
        is_identical=is_identical,
        comparisons=(*causes, weights, *metrics),
    )


def _continued(recipe: TrainingProvenance, now: TrainingProvenance) -> list[Difference]:
    """What it began with, where it continued a version."""
    if recipe.continues is None:
        return []
    told = [
        f"{each} {each.digest[:12]}" if each else "none"
        for each in (recipe.continues, now.continues)
    ]
    return [Difference(what="continues", recorded=told[0], now=told[1])]


def _distance(version: Version, fitted: TrainedModel) -> str:
    """How far the weights lie apart, in words."""
    with verified_copy(version.name, str(version.version)) as (package, _):
        old = load_file(package / "artifacts" / "weights.safetensors")
    new = load_file(fitted.weights_path)
    same_shape = old.keys() == new.keys() and all(old[k].shape == new[k].shape for k in old)
    if not same_shape:
        return f"{fitted.digest[:12]}, of other shapes"
    apart = max(float((old[k].double() - new[k].double()).abs().max()) for k in old)
    if apart == 0:
        return f"{fitted.digest[:12]}, equal weights beside other files"
    return f"{fitted.digest[:12]}, up to {apart:.3g} apart"
