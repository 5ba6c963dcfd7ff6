"""A trial in a process of a Ray node: what is done there, and what is told of it.

The libraries are imported when the first trial has brought the settings that they read on import.
"""

import importlib
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.runtime.markup import plain
from tasks.store.files import home
from tasks.store.records import shaped
from tasks.store.steps import changes
from tasks.store.storage import STORE_VARIABLE

_MOST_DIFFERENCES = 3


def tried_by_ray(message: str, environment: dict[str, str]) -> str:
    """The task that Ray runs; see `tried_on_node`."""
    ray = importlib.import_module("ray")
    core = ray._private.worker.global_worker.core_worker
    attempt = getattr(core, "get_current_task_attempt_number", lambda: 0)()  # not public
    return tried_on_node(message, environment, attempt)


def tried_on_node(message: str, environment: Mapping[str, str], attempt: int) -> str:
    """Try out a trial, and answer as a worker of `tasks.search.workers` does.

    message: JSON with the trial's `request`, and `parts`, all that its outcome depends on where the
    search runs; environment: what is set here first; attempt: how often Ray began the trial before.
    Returns JSON: `answer`, and `told`, lines for the search's log.
    """
    if STORE_VARIABLE not in environment:
        os.environ.pop(STORE_VARIABLE, None)  # the node's own: the search shares no store
    os.environ.update(environment)
    from tasks.search.trial import TrialRequest, unfinished_tries, use_threads
    from tasks.search.workers import answer_to

    asked = json.loads(message)
    request: TrialRequest = shaped(asked["request"], TrialRequest, "a trial's request")
    host, told = platform.node(), []
    use_threads(request.threads)
    if problem := _problem_here(request, asked["parts"], host):  # before anything is written
        return json.dumps({"answer": {"error": problem, "kind": "BadInput"}, "told": []})
    with _logged(request.label, host):
        if attempt:
            told.append(f"Ray lost its node or process; try {attempt + 1} is on {host}")
        gone = unfinished_tries(request, asked["parts"])
        told += [f"{owner} began it and did not end it; gone on with" for owner in gone[-1:]]
        answer = answer_to(json.dumps(asked["request"]))
    return json.dumps({"answer": answer, "told": told})


def _problem_here(request: Any, parts: dict[str, Any], host: str) -> str:
    """Why this node would not make the trial that is asked for; empty where it would."""
    from tasks.search.trial import parts_of

    folders = [each["folder"] for each in (request.data, request.judge) if each]
    for folder in folders:
        if not Path(folder).is_dir():
            return (
                f"node {host} does not see {folder}; all nodes of the cluster need the same home"
                " (ATELIER_HOME) on a file system that they share"
            )
    if differences := changes(parts, parts_of(request)):
        shown = "; ".join(differences[:_MOST_DIFFERENCES])
        return (
            f"node {host} would make another trial than the machine that searches: {shown};"
            " install the same code and libraries there, and for another device say --trial-gpus"
        )
    return ""


@contextmanager
def _logged(label: str, host: str) -> Iterator[None]:
    """Let what the trial logs go to a file of the home, as a worker's lines do."""
    path = home() / "logs" / f"search-ray-{host}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_APPEND, 0o600))
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(f"%(asctime)s  {plain(label)}: %(message)s"))
    logger = logging.getLogger("atelier")
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
