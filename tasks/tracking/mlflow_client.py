"""The one door to MLflow's tracking: runs, metrics, data sets and files.

A run's id is a value that callers pass: MLflow's own active run is per thread and therefore a trap
in tasks. MLflow takes seconds to import, so it is where it is asked: what only reads asks
`tasks.tracking.home_database` first.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tasks.runtime.disk_space import lack_of_room
from tasks.runtime.messages import one_line
from tasks.runtime.progress import log
from tasks.store.files import home
from tasks.tracking.home_database import StoredPackage, StoredRun, asked, tracking_uri

if TYPE_CHECKING:  # commands that only read the registry need no pandas
    from mlflow.tracking import MlflowClient

    from tasks.data.ingestion import Corpus, ImageSet

EXPERIMENT = "atelier"
_SIGNS_OF_A_FULL_DISK = ("database or disk is full", "disk I/O error", "readonly database")
TABLE_OF_RUNS = ("main_metric", "data", "preset", "seed", "tokenizer", "parent")
"""The tags of runs that are columns of the table of runs, as `runs_url` opens it."""
_VIEW = "atelier"
_GALLERY = "gallery"
"""The name of runs that made the page."""
_EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # else MLflow guesses, and may ask
    # MLflow keeps the columns in each browser; a view that is shared by a tag has its own.
    f"mlflow.sharedViewState.{_VIEW}": json.dumps(
        {"selectedColumns": [f"tags.`{name}`" for name in TABLE_OF_RUNS]}
    ),
}
_BATCH_SIZE = 1000  # the most metrics that the server takes in one request
SECONDS_OF_A_LARGE_FILE = 300
"""How long the server may be silent after a large file was handed to it.

MLflow tries five times, so a server that takes files and never answers is given up after 25
minutes.
"""
_TIME_LIMIT = "MLFLOW_HTTP_REQUEST_TIMEOUT"


class TrackingUnavailable(ConnectionError):
    """The MLflow server does not answer; a task that meets this is tried again."""


class TrackingRefused(ValueError):
    """The MLflow server will never take this: the numbers are bad, or their run is deleted."""


def client() -> "MlflowClient":
    """A client of the tracking server and of the model registry, which are one."""
    import mlflow
    from mlflow.tracking import MlflowClient

    mlflow.set_tracking_uri(tracking_uri())  # models are loaded through the global addresses
    mlflow.set_registry_uri(tracking_uri())
    return MlflowClient(tracking_uri=tracking_uri(), registry_uri=tracking_uri())


def code_of(error: BaseException) -> str:
    """MLflow's code for what went wrong, such as RESOURCE_DOES_NOT_EXIST; empty for others' errors.

    An error of MLflow's is known by its name: to name its class would be to import it.
    """
    kinds = type(error).__mro__
    names = [(kind.__module__, kind.__name__) for kind in kinds]
    is_mlflows = ("mlflow.exceptions", "MlflowException") in names
    return str(getattr(error, "error_code", "")) if is_mlflows else ""


def is_unknown(error: BaseException) -> bool:
    """Whether MLflow says that it has no such thing, nor could have one of that name or number."""
    return code_of(error) in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@contextmanager
def outages_named() -> Iterator[None]:
    """Turn MLflow's report of a lost connection, or a busy database, into TrackingUnavailable."""
    try:
        yield
    except Exception as error:
        if not (code := code_of(error)):
            raise
        is_lost = "API request to" in str(error) and "failed" in str(error)
        is_lost = is_lost or any(sign in str(error) for sign in _SIGNS_OF_A_FULL_DISK)
        if is_lost or code == "TEMPORARILY_UNAVAILABLE":
            lack = lack_of_room(home(), try_it=True)
            if lack:
                raise TrackingUnavailable(f"MLflow cannot write: {lack}") from error
            raise TrackingUnavailable(
                f"MLflow at {tracking_uri()} does not answer: {one_line(error)}"
            ) from error
        raise


@contextmanager
def _refusals_named() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_unknown(error):
            raise TrackingRefused(str(error)) from error
        raise


def tracking_experiment() -> str:
    """The id of the experiment that holds all our runs, which is made if need be.

    One that somebody has deleted is restored, with its runs: the files of registered versions are
    its own, and MLflow's garbage collection would take them away.
    """
    known = asked(lambda tables: tables.experiment(EXPERIMENT), lambda: None)
    if known is not None and _EXPERIMENT_TAGS.items() <= known[1].items():
        return str(known[0])
    runs = client()
    experiment = runs.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        if experiment.lifecycle_stage == "deleted":
            runs.restore_experiment(experiment.experiment_id)
            log(
                f"the MLflow experiment {EXPERIMENT!r} had been deleted, and is restored with its"
                " runs: the files of registered versions belong to it"
            )
        for tag, value in _EXPERIMENT_TAGS.items():
            if experiment.tags.get(tag) != value:
                runs.set_experiment_tag(experiment.experiment_id, tag, value)
        return str(experiment.experiment_id)
    # A server knows where artifacts go; a bare database would put them into the working directory.
    location = None if is_served() else (home() / "mlartifacts").as_uri()
    try:
        return str(
            runs.create_experiment(EXPERIMENT, artifact_location=location, tags=_EXPERIMENT_TAGS)
        )
    except Exception as error:  # another process was faster
        if not code_of(error):
            raise
        experiment = runs.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            raise
        return str(experiment.experiment_id)


def end_run(run_id: str, status: str) -> None:
    """Close a run as FINISHED, FAILED or KILLED.

    Raises TrackingUnavailable, and TrackingRefused for a run that somebody has deleted.
    """
    with outages_named(), _refusals_named():
        client().set_terminated(run_id, status)


def log_parameters(run_id: str, parameters: Mapping[str, Any]) -> None:
    """Record a run's settings; nested ones get dotted names."""
    flat = _flattened(parameters)
    if flat:
        from mlflow.entities import Param

        with outages_named():
            client().log_batch(run_id, params=[Param(k, str(v)) for k, v in flat.items()])


def _flattened(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat.update(_flattened(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def send_metrics(run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record numbers, a thousand in one request; rows: name, value, step, time in ms since 1970.

    The server leaves out what it has already: sending rows twice does no harm. Raises
    TrackingUnavailable, and TrackingRefused.
    """
    from mlflow.entities import Metric

    metrics = [Metric(row["name"], row["value"], row["time"], row["step"]) for row in rows]
    for start in range(0, len(metrics), _BATCH_SIZE):
        with _refusals_named(), outages_named():
            client().log_batch(run_id, metrics=metrics[start : start + _BATCH_SIZE])


def log_metrics(run_id: str, numbers: Mapping[str, float], step: int = 0) -> None:
    """Record final numbers of a run."""
    now = int(time.time() * 1000)
    rows = [{"name": k, "value": v, "step": step, "time": now} for k, v in numbers.items()]
    send_metrics(run_id, rows)


def log_dataset(run_id: str, data: "ImageSet | Corpus", context: str) -> None:
    """Name the data a run used, with its digest; context: what it was used for."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    fields = asdict(data)
    profile = {name: value for name, value in fields.items() if name.startswith(("num", "bytes"))}
    dataset = Dataset(
        name=data.name,
        digest=data.digest[:12],
        source_type="local",
        source=json.dumps({"source": data.source, "sha256": data.digest}),
        profile=json.dumps(profile),
    )
    with outages_named():
        client().log_inputs(
            run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", context)])]
        )


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Add facts to a run by which it can be found."""
    with outages_named():
        runs = client()
        for name, value in tags.items():
            runs.set_tag(run_id, name, value)


def log_file(run_id: str, path: Path, folder: str = "") -> None:
    """Store a file, or all files of a folder, with a run."""
    with outages_named():
        if path.is_dir():
            client().log_artifacts(run_id, str(path), folder or None)
        else:
            client().log_artifact(run_id, str(path), folder or None)


@contextmanager
def large_files() -> Iterator[None]:
    """Give the requests of a block SECONDS_OF_A_LARGE_FILE, unless a person set their limit.

    The limit is of each piece of 16 KiB that is sent, and then of the wait for an answer. A slow
    line meets it there: the last four megabytes may still lie in this machine's send buffer, and
    then the server passes the file on to the bucket before it says a word. The environment is the
    process's: not for two threads at one time.
    """
    is_ours = _TIME_LIMIT not in os.environ
    if is_ours:  # MLflow reads it there with each request, and its calls take none
        os.environ[_TIME_LIMIT] = str(SECONDS_OF_A_LARGE_FILE)
    try:
        yield
    finally:
        if is_ours:
            os.environ.pop(_TIME_LIMIT, None)


def log_picture(run_id: str, png: Path, key: str, step: int) -> None:
    """Store a picture of one step; the run's page shows the steps of a key on a slider."""
    from PIL import Image

    with outages_named(), Image.open(png) as image:
        client().log_image(run_id, image, key=key, step=step)


def metric_history(run_id: str, name: str) -> list[tuple[int, float]]:
    """The (step, value) points of one metric, in the order of steps."""
    with outages_named():
        history = client().get_metric_history(run_id, name)
    return sorted((metric.step, metric.value) for metric in history)


def last_steps(run_id: str) -> dict[str, int]:
    """The last step of each metric that a run has so far."""
    names = run_metrics(run_id)
    return {name: metric_history(run_id, name)[-1][0] for name in names}


def run_metrics(run_id: str) -> dict[str, float]:
    """The latest value of each of a run's metrics."""
    with outages_named():
        return dict(client().get_run(run_id).data.metrics)


def run_exists(run_id: str) -> bool:
    """Whether the tracking server knows a run, and nobody has deleted it."""
    try:
        with outages_named():
            return bool(client().get_run(run_id).info.lifecycle_stage == "active")
    except Exception as error:
        if code_of(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def fetch_artifacts(run_id: str, folder: str, into: Path) -> Path:
    """Copy a folder of a run's artifacts; returns where it now lies.

    Raises FileNotFoundError when the run has no such folder.
    """
    with outages_named():
        if not client().list_artifacts(run_id, folder):
            raise FileNotFoundError(f"run {run_id} has no artifacts in {folder}/")
        return Path(client().download_artifacts(run_id, folder, str(into)))


def is_served() -> bool:
    """Whether runs are kept by a server that has pages to link to."""
    return tracking_uri().startswith(("http://", "https://"))


def run_url(run_id: str) -> str:
    """The page of a run."""
    experiment = client().get_run(run_id).info.experiment_id
    return (
        f"{tracking_uri()}/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"
    )


def runs_url() -> str:
    """The page of all our runs, with the columns TABLE_OF_RUNS."""
    experiment = tracking_experiment()
    return (
        f"{tracking_uri()}/#/experiments/{experiment}/runs"
        f"?viewStateShareKey={_VIEW}&workflowType=machine_learning"
    )


def version_url(name: str, version: int) -> str:
    """The page of a registered version."""
    page = f"{quote(name, safe='')}/versions/{version}?workflowType=machine_learning"
    return f"{tracking_uri()}/#/models/{page}"


def registry_url() -> str:
    """The page that lists the registered models."""
    return f"{tracking_uri()}/#/models?workflowType=machine_learning"


def artifact_url(run_id: str, path: str) -> str:
    """The address of a run's artifact: what a browser needs to show a picture."""
    return f"{tracking_uri()}{artifact_path(run_id, path)}"


def artifact_path(run_id: str, path: str) -> str:
    """The same without the host: what a registry description needs."""
    return f"/get-artifact?path={quote(path, safe='')}&run_uuid={run_id}"


def run_page(run_id: str) -> str:
    """A run's page without the host, for links between MLflow's own pages."""
    return run_url(run_id).removeprefix(tracking_uri())


def run_tags(run_id: str) -> dict[str, str]:
    """A run's tags."""
    with outages_named():
        return dict(client().get_run(run_id).data.tags)


def nested_runs(run_id: str) -> list[tuple[str, str, dict[str, str]]]:
    """The runs that are filed under a run: their ids, states and tags."""
    with outages_named():
        runs, found, token = client(), [], None
        experiment = str(runs.get_run(run_id).info.experiment_id)
        while True:
            page = runs.search_runs(
                [experiment], f"tags.`mlflow.parentRunId` = '{run_id}'", page_token=token
            )
            found += [(str(r.info.run_id), str(r.info.status), dict(r.data.tags)) for r in page]
            token = page.token
            if not token:
                return found


def our_packages() -> list[StoredPackage]:
    """The logged models that runs of ours made, wherever MLflow filed them."""
    ours = tracking_experiment()
    return asked(lambda tables: tables.packages(int(ours)), lambda: _packages_by_client(ours))


def _packages_by_client(ours: str) -> list[StoredPackage]:
    runs, found = client(), []
    experiments = [str(each.experiment_id) for each in runs.search_experiments()]
    token = None
    while True:
        page = runs.search_logged_models(experiments, page_token=token)
        found += list(page)
        token = page.token
        if not token:
            break
    known: dict[str, bool] = {}
    for each in found:
        run_id = each.source_run_id or ""
        if run_id not in known:
            known[run_id] = each.experiment_id == ours or _is_run_of(run_id, ours)
    return [
        StoredPackage(model_id=each.model_id, creation_timestamp=each.creation_timestamp)
        for each in found
        if known[each.source_run_id or ""]
    ]


def _is_run_of(run_id: str, experiment_id: str) -> bool:
    try:
        return bool(run_id) and client().get_run(run_id).info.experiment_id == experiment_id
    except Exception as error:
        if code_of(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def old_runs(before: float) -> tuple[list[StoredRun], str]:
    """Our runs that began before a moment, in seconds since 1970, and the latest gallery's id."""
    ours, moment = tracking_experiment(), int(before * 1000)
    return asked(
        lambda tables: (
            tables.runs_before(int(ours), moment),
            tables.latest_run(int(ours), _GALLERY),
        ),
        lambda: _old_runs_by_client(ours, moment),
    )


def _old_runs_by_client(ours: str, moment: int) -> tuple[list[StoredRun], str]:
    runs, found, token = client(), [], None
    while True:
        page = runs.search_runs(
            [ours], f"attributes.start_time < {moment}", max_results=1000, page_token=token
        )
        found += list(page)
        token = page.token
        if not token:
            break
    galleries = runs.search_runs(
        [ours],
        f"attributes.run_name = '{_GALLERY}'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    told = [
        StoredRun(
            run_id=run.info.run_id,
            name=run.info.run_name or "",
            status=run.info.status,
            parent=run.data.tags.get("mlflow.parentRunId", ""),
        )
        for run in found
    ]
    return told, galleries[0].info.run_id if galleries else ""


def set_version_tag(name: str, version: int, tag: str, value: str) -> None:
    """Add a fact to a registered version."""
    with outages_named():
        client().set_model_version_tag(name, str(version), tag, value)
