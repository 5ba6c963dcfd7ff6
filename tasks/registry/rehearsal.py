"""One step of a version again, without consequences: its stored inputs, and what would be decided.

For who works on a step: `flows/one_step.py` runs today's code of that step on what the store holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefect import task

from tasks.data.ingestion import Corpus, ImageSet
from tasks.data.tokenization import TokenCounts, TokenSet
from tasks.evaluation.scorecard import PromotionDecision, Scorecard
from tasks.families.family import Data, Family
from tasks.packaging.load_check import LoadCheckFailed, check_loads
from tasks.packaging.package import write_package
from tasks.registry.reproduction import Reproduction
from tasks.registry.version_comparison import told_metrics
from tasks.registry.versions import Version, named_version
from tasks.runtime.progress import log
from tasks.runtime.retries import LOCAL, NETWORKED
from tasks.store.artifacts import Artifact, Kind, artifacts, bring, verify
from tasks.store.files import home, inside, remove, scratch_folder
from tasks.tracking.mlflow_client import outages_named
from tasks.training.fit_store import TrainedModel
from tasks.training.provenance import TrainingProvenance


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFit:
    """A training again, and what is as it was."""

    fitted: TrainedModel
    comparison: Reproduction


@dataclass(frozen=True, kw_only=True, slots=True)
class StepEvaluation:
    """A version measured by today's code."""

    version: Version
    scorecard: Scorecard
    recorded: dict[str, float]
    """What its last evaluation gave, by metric, as the registry tells it."""
    is_kept: bool
    """Whether the evaluation was stored, so that comparisons find it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRegistration:
    """What registering a version's model today would come to."""

    version: Version
    decision: PromotionDecision
    package: str
    """How packing and the load check went, in words."""
    loads: bool


@task(name="find-data", task_run_name="find the data of {name}", **LOCAL)
def stored_data(name: str, recipe: TrainingProvenance, kind: Data) -> ImageSet | TokenSet | None:
    """The data that a version of a model was trained on, from the store; None if not there."""
    return data_in_store(name, recipe, kind)


def data_in_store(
    name: str, recipe: TrainingProvenance, kind: Data, *, is_a_look: bool = False
) -> ImageSet | TokenSet | None:
    """The same, within another task.

    is_a_look: a few items are shown, and nothing is computed from them: then only what is in this
    home counts, and its files, which may be large, are not compared with their digests.
    """
    find = _here if is_a_look else _whole
    data_name = name.removesuffix(f"-{recipe.family}")
    if kind == "images":
        found = find("images", recipe.data_digest, data_name)
        return None if found is None else found.as_receipt(ImageSet)
    tokens = find("tokens", recipe.data_digest, f"{data_name}-{recipe.scheme}")
    corpus = find("corpora", tokens.inputs[0], data_name) if tokens and tokens.inputs else None
    if tokens is None or corpus is None:
        return None
    counts = tokens.as_receipt(TokenCounts)
    return TokenSet(
        name=data_name,
        corpus=corpus.as_receipt(Corpus),
        scheme="bpe" if recipe.scheme == "bpe" else "characters",
        folder=str(tokens.folder),
        digest=counts.digest,
        vocabulary_size=counts.vocabulary_size,
        num_train=counts.num_train,
        num_validation=counts.num_validation,
        num_test=counts.num_test,
    )


def _whole(kind: Kind, digest: str, name: str) -> Artifact | None:
    """A stored artifact of a content and a name whose files are as they were made."""
    bring(kind, digest)
    for found in _named(kind, digest, name):
        try:
            return verify(found.folder)
        except (OSError, ValueError) as error:
            log(f"{name}: what is stored is damaged: {error}")
    return None


def _here(kind: Kind, digest: str, name: str) -> Artifact | None:
    """Such an artifact of this home, by its manifest alone."""
    return next(_named(kind, digest, name), None)


def _named(kind: Kind, digest: str, name: str) -> Iterator[Artifact]:
    return (each for each in artifacts(kind) if (each.digest, each.name) == (digest, name))


def stored_fit(version: Version) -> TrainedModel | None:
    """The fit that a version was made of, from the store; None if it is not there."""
    found = _whole("models", version.digest, version.name)
    return None if found is None else found.as_receipt(TrainedModel)


@task(name="metrics-on-record", task_run_name="read the metrics of {version.name}", **NETWORKED)
def recorded_metrics(version: Version) -> dict[str, float]:
    """What a version's last evaluation gave."""
    with outages_named():
        found = named_version(version.name, str(version.version))
    return told_metrics(found) if found else {}


def candidate_of(version: Version, recipe: TrainingProvenance) -> TrainedModel:
    """What the gate is asked about: the stored fit, or else as much as the registry tells of it."""
    return stored_fit(version) or TrainedModel(
        family=recipe.family,
        name=version.name,
        run_id=version.run_id,
        folder="",
        digest=version.digest,
        data_digest=recipe.data_digest,
        seed=recipe.seed,
        seconds=0.0,
        num_parameters=0,
    )


@task(name="rehearse-package", task_run_name="pack {candidate.name}", **NETWORKED)
def rehearse_package(
    candidate: TrainedModel, scorecard: Scorecard, family: Family
) -> tuple[bool, str]:
    """Pack a fit by today's code, here alone, and load it in a clean process.

    Returns whether it loads and draws what it drew when it was evaluated, and what was found, in
    words.
    """
    if not candidate.folder:
        return False, (
            "not packed: its fit is not stored any more; `atelier step fit` trains it again"
        )
    with scratch_folder() as scratch:
        files = write_package(candidate, family.data, scratch / "package")
        size = sum(size for size, _ in files.values())
        try:
            check_loads(
                f"the package of {candidate.name}",
                scratch / "package",
                family.data,
                samples=scorecard.samples_digest,
            )
        except LoadCheckFailed as error:
            return False, str(error)
    return True, (
        f"{len(files)} files, {size / 1e6:.1f} MB; loads in a clean process, and draws the same"
    )


def fresh_folder_for_samples(name: str) -> str:
    """Where a version draws for its developer: one folder for each model, emptied each time."""
    folder: Path = home() / "drawn"
    folder.mkdir(parents=True, exist_ok=True)
    remove(inside(folder, name))
    return str(folder)
