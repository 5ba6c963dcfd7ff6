"""prefect.yaml, read strictly: every mistake is named with its line before anything is deployed.

Prefect ignores unknown keys and checks parameters when a run starts, at night perhaps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from jsonschema import Draft202012Validator
from prefect import Flow
from prefect.client.schemas.schedules import construct_schedule
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from tasks.runtime.messages import one_line
from tasks.store.files import BadInput

QUEUES: dict[str, int | None] = {"training": 1, "smoke": 2, "light": None}
"""The pool's queues, and how many runs of each may be under way at a time."""

OUR_TAG = "atelier"
"""Every deployment bears it; one on the server that bears it and is not in the file is removed."""

Location = tuple[str | int, ...]
Text = Annotated[StrictStr, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Pool(_Strict):
    """Where a deployment's runs wait for the worker."""

    name: Literal["atelier"]
    work_queue_name: Literal["training", "smoke", "light"]
    job_variables: dict[str, Any] = {}
    """For the template of the pool, where workers start containers: an image, memory, GPUs."""


class Limit(_Strict):
    """How many runs of one deployment may be under way, and what a further one does."""

    limit: Annotated[StrictInt, Field(ge=1)]
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"]


class ScheduleEntry(_Strict):
    """When runs begin by themselves."""

    cron: Text | None = None
    interval: Annotated[StrictInt, Field(ge=1)] | None = None
    """Seconds."""
    rrule: Text | None = None
    timezone: Text | None = None
    active: StrictBool = True
    slug: Text | None = None

    def timing(self) -> dict[str, Any]:
        """What Prefect needs to build the schedule."""
        chosen = self.model_dump(exclude={"active", "slug"}, exclude_none=True)
        if len(chosen.keys() - {"timezone"}) != 1:
            raise ValueError("wants exactly one of cron, interval and rrule")
        if "cron" in chosen and "timezone" not in chosen:
            raise ValueError("a cron schedule needs a timezone")
        return chosen


class TriggerEntry(_Strict):
    """An event that starts a run. Times in seconds."""

    type: Literal["event"]
    name: Text
    description: Text
    expect: Annotated[list[Text], Field(min_length=1)]
    match: dict[str, str | list[str]] = {}
    match_related: dict[str, str | list[str]] = {}
    within: Annotated[StrictInt, Field(ge=0)] = 0
    schedule_after: Annotated[StrictInt, Field(ge=0)] = 0
    parameters: dict[str, Any] | None = None


class DeploymentEntry(_Strict):
    """One deployment."""

    name: Annotated[StrictStr, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    entrypoint: Annotated[StrictStr, Field(pattern=r"^[a-z_]\w*(\.[A-Za-z_]\w*)+$")]
    description: Text
    tags: Annotated[list[Text], Field(min_length=1)]
    version: Text
    concurrency_limit: Limit
    parameters: dict[str, Any] = {}
    schedules: list[ScheduleEntry] = []
    triggers: list[TriggerEntry] = []
    work_pool: Pool

    def flow(self) -> Flow[Any, Any]:
        """The flow that the entrypoint names; raises ValueError when there is none."""
        module, _, function = self.entrypoint.rpartition(".")
        try:
            found = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"cannot be imported: {error}") from error
        if not isinstance(found, Flow):
            raise ValueError(f"{function} is not a flow")
        return found


class DeploymentFile(_Strict):
    """The whole of prefect.yaml."""

    name: Literal["atelier"]
    pull: Annotated[list[Any], Field(max_length=0)]
    definitions: dict[str, Any] = {}
    deployments: Annotated[list[DeploymentEntry], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong, and where."""

    line: int
    message: str


def read_deployments(path: Path) -> list[DeploymentEntry]:
    """The deployments of a prefect.yaml; raises BadInput with all mistakes, each with its line."""
    text = path.read_text(encoding="utf-8")
    mistakes, entries = _check(text)
    if mistakes:
        ordered = sorted(mistakes, key=lambda mistake: mistake.line)
        raise BadInput("\n".join(f"{path.name}:{each.line}: {each.message}" for each in ordered))
    return entries


def _check(text: str) -> tuple[list[Mistake], list[DeploymentEntry]]:
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return [Mistake(line, f"is not YAML: {error.problem}")], []
    lines = _Lines(tree)
    mistakes = [Mistake(line, f"duplicate key {key!r}") for line, key in lines.twice]
    try:
        entries = DeploymentFile.model_validate(content).deployments
    except ValidationError as error:
        found = [(each["loc"], _plain(each)) for each in error.errors()]
        return mistakes + [_mistake(lines, where, what) for where, what in found], []
    mistakes += [_mistake(lines, where, what) for where, what in _unfit(entries)]
    return mistakes, entries


def _unfit(entries: list[DeploymentEntry]) -> Iterator[tuple[Location, str]]:
    """What is well-formed and would still fail."""
    names: set[str] = set()
    for number, entry in enumerate(entries):
        here: Location = ("deployments", number)
        if entry.name in names:
            yield (*here, "name"), f"there is a deployment {entry.name!r} already"
        names.add(entry.name)
        if OUR_TAG not in entry.tags:
            yield (*here, "tags"), f"must bear the tag {OUR_TAG!r}, by which `atelier up` knows it"
        for at, schedule in enumerate(entry.schedules):
            try:
                construct_schedule(**schedule.timing())
            except Exception as error:  # croniter, dateutil and pydantic each raise their own
                yield (*here, "schedules", at), f"no such schedule: {one_line(error)}"
        for at, trigger in enumerate(entry.triggers):
            try:
                DeploymentEventTrigger.model_validate(trigger.model_dump())
            except ValidationError as error:
                yield (*here, "triggers", at), one_line(error)
        try:
            flow = entry.flow()
        except ValueError as error:
            yield (*here, "entrypoint"), str(error)
        else:
            for where, what in _unfit_parameters(flow, entry.parameters):
                yield (*here, "parameters", *where), what
            for at, trigger in enumerate(entry.triggers):
                for where, what in _unfit_parameters(flow, trigger.parameters or {}):
                    yield (*here, "triggers", at, "parameters", *where), what


def _unfit_parameters(
    flow: Flow[Any, Any], parameters: dict[str, Any]
) -> Iterator[tuple[Location, str]]:
    schema = parameter_schema(flow).model_dump(mode="json")
    known = sorted(schema["properties"])
    unknown = [name for name in parameters if name not in known]
    for name in unknown:
        yield (name,), f"{flow.name} has no parameter {name!r}; it has {', '.join(known)}"
    errors = list(Draft202012Validator(schema).iter_errors(parameters))
    for error in errors:
        yield tuple(error.absolute_path), error.message
    if not unknown and not errors:  # what a schema cannot say, such as contradictions
        try:
            flow.validate_parameters(parameters)
        except ParameterTypeError as refused:
            yield (), one_line(refused)


class _Lines:
    """The line of every key and item of a YAML document, and the keys that stand twice."""

    def __init__(self, tree: yaml.Node | None) -> None:
        self.twice: list[tuple[int, str]] = []
        self._lines: dict[Location, int] = {(): 1}
        if tree is not None:
            self._note((), tree)

    def of(self, location: Location) -> int:
        """The line of a location, or of the nearest thing around it that the file has."""
        while location not in self._lines:
            location = location[:-1]
        return self._lines[location]

    def _note(self, here: Location, node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inside = (*here, key.value)
                if inside in self._lines:
                    self.twice.append((key.start_mark.line + 1, key.value))
                self._lines[inside] = key.start_mark.line + 1
                self._note(inside, value)
        elif isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self._lines[(*here, number)] = item.start_mark.line + 1
                self._note((*here, number), item)


def _mistake(lines: _Lines, where: Location, what: str) -> Mistake:
    path = ".".join(str(step) for step in where)
    return Mistake(lines.of(where), f"{path}: {what}" if path else what)


def _plain(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such key"
    if error["type"] == "missing":
        return "is missing"
    return f"{error['msg']}, got {error['input']!r}"
