"""One data set for each registered model: other data under its name are refused before training.

The registered model bears a tag with the identity of the data that it was trained on last. One that
was registered before there were such tags is taken for what its latest version says of its data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect import task

from tasks.data.identity import (
    Data,
    DataIdentity,
    change,
    difference,
    identity_by_digest,
    identity_of,
    size_of,
    told,
)
from tasks.data.ingestion import Corpus, ImageSet
from tasks.data.source_address import source_address
from tasks.families.table import FAMILIES, of_data
from tasks.registry.version_tags import digest_tag, record_tag
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED
from tasks.store.files import BadInput
from tasks.store.records import DamagedRecord
from tasks.tracking import registry_queries
from tasks.tracking.mlflow_client import client, outages_named
from tasks.training.provenance import by_present_names

DATA_SET = "data_set"
"""The tag of a registered model that holds the identity of its data."""
DATA_CHANGE = "data_change"
"""The tag of a version that says how its data differ from those before."""


class OtherData(BadInput):
    """The name of a data set stands for other data already; the message says which."""


@task(name="check-data", task_run_name="check the name {data.name}", **NETWORKED)
def check_data(data: Data) -> None:
    """Raise OtherData unless the models called after these data were trained on the same data set.

    All models of the name count, those that this run does not train too: a data set's models are
    shown and compared beside each other.
    """
    for family in of_data("images" if isinstance(data, ImageSet) else "text"):
        name = f"{data.name}-{family.name}"
        with outages_named():
            before = data_before(name)
            if before is None:
                continue
            if changed := accepted(name, before, data):
                log(f"{name}: the data changed {changed}")
            if isinstance(data, ImageSet):
                _warn_of_another_shape(name, data)


def accepted(name: str, before: DataIdentity, data: Data) -> str:
    """How a model's data changed, in words, or nothing; OtherData where they are no longer they."""
    if why := difference(before, data):
        raise OtherData(f"{name} belongs to other data: {why}; {_way_out(data)}")
    changed = change(before, data)
    return f"since version {before.version}: {changed}" if changed else ""


def _way_out(data: Data) -> str:
    address = source_address(data.source)
    if not address.scheme:
        return "rename the registered model in MLflow, or delete it there"
    kind = "text" if isinstance(data, Corpus) else "images"
    renamed = f"NAME={address.place}"
    return f"give these a name of their own: --{kind} {renamed} (in a form: {renamed})"


def data_before(name: str) -> DataIdentity | None:
    """The data that a registered model was trained on last; None where there is no such model."""
    model = registry_queries.model(name)
    if model is None:
        return None
    return _kept(model.tags) or _adopted(name)


def keep_identity(name: str, data: Data, before: DataIdentity | None, version: int) -> None:
    """Let a registered model bear the identity of the data of its latest version."""
    model = registry_queries.model(name)
    kept = None if model is None else _kept(model.tags)
    is_same = before is not None and not change(before, data)
    if kept is not None and is_same:
        return
    since = before.version if before is not None and is_same else version
    client().set_registered_model_tag(name, DATA_SET, identity_of(data, since).to_json())


def _kept(tags: Mapping[str, str]) -> DataIdentity | None:
    if not (kept := tags.get(DATA_SET)):
        return None
    try:
        return DataIdentity.from_json(kept)
    except DamagedRecord:  # somebody changed it
        return None


def _adopted(name: str) -> DataIdentity | None:
    """What a model from before these tags was trained on, by the record of its latest version."""
    versions = registry_queries.versions(name)
    complete = [v for v in versions if "recipe" in v.tags and v.tags.get("state") == "complete"]
    recorded = [(v, recipe) for v in complete if (recipe := _recipe(v)) is not None]
    if not recorded:
        return None
    latest, recipe = max(recorded, key=lambda pair: pair[0].version)
    family = FAMILIES.get(recipe.family)
    kind = "text" if family is None else family.data
    place, digest = _place(recipe.source), digest_tag(latest, "data")
    identity = identity_by_digest(kind, place, digest, latest.version)
    log(
        f"{name}: version {latest.version} is older than the tag that binds a model to its data;"
        f" by its record it was trained on {told(identity)}"
    )
    return identity


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What is asked here of the record of how a version was made, by whatever program."""

    family: str
    source: str
    settings: dict[str, Any] = field(default_factory=dict)


def _recipe(version: Any) -> _Recipe | None:
    """How a version was made; None, and the reason in the log, where its tag is damaged."""
    try:
        return record_tag(version, "recipe", _Recipe)
    except DamagedRecord as error:
        log(str(error))
        return None


def _place(source: str) -> str:
    try:
        return source_address(source).place
    except (OSError, RuntimeError, BadInput):  # such as the home of a user not known here
        return source


def _warn_of_another_shape(name: str, images: ImageSet) -> None:
    """Say before training that the champion makes images of another shape, where it does."""
    model = registry_queries.model(name)
    number = None if model is None else model.aliases.get("champion")
    champion = None if number is None else registry_queries.version_of_number(name, number)
    if champion is None:
        return
    recipe = _recipe(champion)
    config = {} if recipe is None else by_present_names(recipe.settings).get("model")
    known = config if isinstance(config, Mapping) else {}
    sides = [known.get(each) for each in ("channels", "height", "width")]
    shape = tuple(side for side in sides if isinstance(side, int))
    now = (images.channels, images.height, images.width)
    if len(shape) == len(now) and shape != now:
        log(
            f"WARNING: {name}: the champion, version {number}, makes images of"
            f" {size_of(shape)}, and these are {size_of(now)}. The two cannot be compared, so it"
            f" stays champion until you say `atelier promote {name} --to N`. To have champions of"
            f" both sizes, {_way_out(images)}"
        )
