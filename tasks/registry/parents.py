"""The version that a training continues: found and checked before anything is read or trained."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from prefect import task

from models.presets import ImageShape, Preset, TextShape
from tasks.data.ingestion import ImageSet
from tasks.data.known_shapes import known_shape
from tasks.data.tokenization import TokenSet
from tasks.families.family import Family
from tasks.families.table import FAMILIES
from tasks.registry.verification import verified_copy
from tasks.registry.versions import Version, project_models, recorded
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED
from tasks.runtime.suggestions import did_you_mean
from tasks.settings.inherited import inherited
from tasks.store.artifacts import Artifact, artifacts, bring, get_or_create, is_intact, verify
from tasks.store.files import BadInput, read_json
from tasks.store.names import version_address
from tasks.tracking.mlflow_client import outages_named
from tasks.training.fit_store import fit_cache_key
from tasks.training.initial_weights import BESIDE, InitialWeights
from tasks.training.parent import Parent
from tasks.training.plan import TrainingPlan
from tasks.training.provenance import TrainingProvenance


@dataclass(frozen=True, kw_only=True, slots=True)
class Continued:
    """Receipt of a version that is to be continued, as the registry tells of it."""

    address: str
    """As it was asked for: `digits-vae@champion`."""
    version: Version
    recipe: TrainingProvenance
    taken: dict[str, Any] = field(default_factory=dict)
    """Its settings that the training takes over, by full names."""

    @property
    def family(self) -> Family:
        """Its family, which is also that of the training."""
        return FAMILIES[self.recipe.family]

    @property
    def model(self) -> dict[str, Any]:
        """Its configuration, by field."""
        return self.recipe.settings.get("model", {})

    def __str__(self) -> str:
        return f"{self.version.name} version {self.version.version}"


@task(name="find-parent", task_run_name="find {address}", **NETWORKED)
def find_parent(
    address: str,
    families: Collection[str],
    given: Mapping[str, Any],
    *,
    preset: Preset,
    source: Mapping[str, Any],
) -> Continued:
    """The version that an address names, if it can be continued as far as that is known now.

    families: those that are to be trained; given: what a person set; source: where the data are, as
    `known_shape` takes it, by "images" and "image_size", or "text" and "scheme". Raises BadInput
    for what is not there, of another family, contradicted, or of another shape. No data and no
    file of a package is read.
    """
    name, which = version_address(address)
    with outages_named():
        known = project_models()
    if name not in known:
        raise BadInput(f"no model is named {name!r}{did_you_mean(name, known)}")
    version, recipe = recorded(name, which)
    if recipe is None:
        raise BadInput(f"{name} version {version.version} has no record of how it was made")
    found = Continued(address=address, version=version, recipe=recipe)
    _check_family(found, families)
    if source.get("scheme") == "bpe" and recipe.scheme != "bpe" and found.family.data == "text":
        raise BadInput(
            f"the tokenizer is to be bpe, and {found}, which is to be continued, has"
            f" {recipe.scheme}: leave it out, the version's own is taken"
        )
    shape, is_known = _shape(found, source)
    taken = inherited(
        found.family, preset, shape, found.model, given, str(found), is_known=is_known
    )
    return replace(found, taken=taken)


def _check_family(found: Continued, families: Collection[str]) -> None:
    name = found.recipe.family
    if name not in FAMILIES:
        raise BadInput(
            f"{found} is of the family {name!r}; this program knows {', '.join(FAMILIES)}"
        )
    if not found.family.continued:
        raise BadInput(f"{found} cannot be continued: {found.family.not_continued}")
    if set(families) != {name}:
        raise BadInput(
            f"--continue-from {found.address} is for the family {name}, and to be trained are"
            f" {', '.join(families)}; add --families {name}"
        )


def _shape(found: Continued, source: Mapping[str, Any]) -> tuple[ImageShape | TextShape, bool]:
    """What is known of the data's shape before they are read, and whether it is more than a guess.

    A text is told in the version's own tokens, so its shape fits.
    """
    if found.family.data == "text":
        size = int(found.model.get("vocabulary_size", 0))
        return TextShape(found.recipe.scheme, size, _MANY_TOKENS), True
    known = known_shape(source["images"], "images", source.get("image_size"))
    return known.shape, known.source != "assumed"


_MANY_TOKENS = 1 << 40
"""How long a text is, is checked once it is read."""


@task(name="fetch-initial-weights", task_run_name="fetch {found.address}", **NETWORKED)
def initial_weights(found: Continued) -> InitialWeights:
    """The trained files of a version, compared with the audit log before anything reads them.

    From the stored fit, where that is whole; else they are taken into the store from the package.
    Raises PackageChanged, PackageUnknown and AuditLogDamaged, as loading does.
    """
    name, number = found.version.name, str(found.version.version)
    with verified_copy(name, number) as (package, _):
        stored = _stored(found.version.digest) or _taken_in(name, package / "artifacts")
    if stored.digest != found.version.digest:
        raise BadInput(
            f"{found} has other files than its content digest tells; see `atelier verify`"
        )
    return _receipt(stored, name, int(number), found.recipe.family, found.model)


@task(name="find-initial-weights", task_run_name="find {parent.address}", **NETWORKED)
def initial_weights_again(parent: Parent, family: str, model: dict[str, Any]) -> InitialWeights:
    """What an earlier training began with; model: its configuration.

    Raises BadInput where they are neither stored nor registered any more.
    """
    stored = _stored(parent.digest, parent.beside)
    if stored is None:
        version, _ = recorded(parent.name, str(parent.version))
        if version.digest != parent.digest:
            raise BadInput(f"{parent} is not the version any more that was continued then")
        with verified_copy(parent.name, str(parent.version)) as (package, _):
            stored = _taken_in(parent.name, package / "artifacts")
    found = _receipt(stored, parent.name, parent.version, family, model)
    if found.parent.beside != parent.beside:
        raise BadInput(f"what was kept beside {parent}, which was continued, is stored no more")
    return found


def _stored(digest: str, beside: str | None = None) -> Artifact | None:
    """A whole artifact of a content, best one that has more beside it; beside: that very sha256."""
    bring("models", digest)
    found = [
        each
        for kind in ("models", "initial-weights")
        for each in artifacts(kind)
        if each.digest == digest and beside in (None, _beside(each))
    ]
    for each in sorted(found, key=lambda one: not _beside(one)):
        try:
            return verify(each.folder)
        except (OSError, ValueError) as error:
            log(f"{each.name}: a stored fit is damaged, and left aside: {error}")
    return None


def _taken_in(name: str, files: Path) -> Artifact:
    """A verified package's trained files as an artifact, of the same digest as their fit."""
    content = {path.name: path.read_bytes() for path in sorted(files.iterdir())}

    def write(folder: Path) -> dict[str, str]:
        for file_name, read in content.items():
            (folder / file_name).write_bytes(read)
        return {"name": name}

    digests = {file_name: sha256(read).hexdigest() for file_name, read in content.items()}
    return get_or_create("initial-weights", name, {"files": digests}, write)


def _beside(stored: Artifact) -> str:
    return stored.files.get(BESIDE, (0, ""))[1]


def _receipt(
    stored: Artifact, name: str, version: int, family: str, model: dict[str, Any]
) -> InitialWeights:
    parent = Parent(name=name, version=version, digest=stored.digest, beside=_beside(stored))
    return InitialWeights(parent=parent, family=family, model=model, folder=str(stored.folder))


def unless_it_made_it(
    found: Continued, plan: TrainingPlan, data: ImageSet | TokenSet
) -> InitialWeights:
    """With what a plan begins: with the version, unless this very plan is what made that.

    An alias follows promotions: a command that continues the champion, and was promoted, would
    continue its own result the next time, although nothing has changed.
    """
    assert plan.initial is not None, "a plan that continues"
    before = found.recipe.continues
    if before is None or version_address(found.address)[1].isdecimal():
        return plan.initial
    earlier = InitialWeights(
        parent=before, family=found.recipe.family, model=found.model, folder=""
    )
    key = fit_cache_key(replace(plan, initial=earlier), data)
    bring("models", found.version.digest)
    is_made = any(
        each.key == key and each.digest == found.version.digest and is_intact(each.folder)
        for each in artifacts("models")
    )
    return earlier if is_made else plan.initial


def tell_of_classes(initial: InitialWeights, data: ImageSet | TokenSet) -> None:
    """Say so where the classes of the data bear other names than those that the version knows."""
    if not isinstance(data, ImageSet) or not initial.classes_path.exists():
        return
    theirs, ours = read_json(initial.classes_path), list(data.class_names)
    other = [f"{a} -> {b}" for a, b in zip(theirs, ours, strict=False) if a != b]
    if theirs and other:
        log(
            f"{data.name}: other classes than {initial.parent} knows, taken in their order:"
            f" {', '.join(other[:8])}{' ...' if len(other) > 8 else ''}"
        )
