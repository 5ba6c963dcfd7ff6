"""The load check: a registered version must load, and draw what it drew here, anywhere.

A clean process, in an empty folder, without this project on its path and with pickles disallowed,
loads a copy of the version that was compared with what was registered, byte for byte, before; its
samples must be those that were drawn from the trained files.
"""

import atexit
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.store.files import make_scratch, outside_the_home, project_root
from tasks.store.fingerprint import PROJECT_PACKAGES
from tasks.tracking.home_database import tracking_uri

REQUESTS: dict[str, dict[str, Any]] = {
    "images": {"num_samples": 16, "seed": 1},
    "text": {"num_samples": 2, "seed": 1, "num_tokens": 80},
}
"""What is asked of a model of images or text; the answer's digest is kept with its evaluation."""

SECONDS_TO_LOAD = 300.0
"""How long a version may take; one that never ends would hold the registry's lock for ever."""

_one_at_a_time = threading.Lock()


class LoadCheckFailed(RuntimeError):
    """A registered version does not load elsewhere, or is not what was trained here."""


class SamplesDiffer(LoadCheckFailed):
    """It loads, its files are those that were registered, and yet it draws something else."""


def samples_digest(subject: Any) -> str:
    """The digest of a SampleModel's answer to the check's request, drawn in this process."""
    import pandas as pd

    from tasks.packaging.load_worker import digest_of_samples

    kind = "text" if hasattr(subject, "tokenizer") else "images"
    params = {"temperature": 1.0, **REQUESTS[kind]}
    return digest_of_samples(subject.predict(None, pd.DataFrame([{}]), params))


def get_ready() -> None:
    """Start the clean process, whose imports take seconds, before there is something to check."""
    _clean_process()


def check_loads(
    address: str,
    folder: Path,
    kind: str,
    *,
    samples: str,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Raise LoadCheckFailed unless a version loads cleanly and draws what it drew here.

    address: `models:/NAME/VERSION`; folder: a copy of its files that was verified (see
    `tasks/registry/verification.py`); kind: it makes "images" or "text"; samples: digest that its
    samples must have; meanwhile: what this process does while the clean one is at work, with its
    imports at first. SamplesDiffer where only the samples are others: other versions of the
    libraries, or another processor, may be the cause.
    """
    reply = _asked(
        {
            "tracking_uri": tracking_uri(),
            "uri": address,
            "folder": str(folder),
            "params": REQUESTS[kind],
            "ours": [f"{project_root() / package}{os.sep}" for package in PROJECT_PACKAGES],
        },
        meanwhile,
    )
    if "error" in reply:
        raise LoadCheckFailed(f"{address} does not load in a clean process: {reply['error']}")
    if reply["foreign"]:
        raise LoadCheckFailed(
            f"{address} imports project code from outside the package: {reply['foreign'][0]}"
        )
    if reply["samples"] != samples:
        raise SamplesDiffer(
            f"{address}: its samples have the digest {reply['samples'][:12]}, those of the trained"
            f" model {samples[:12]}"
        )


def _asked(request: dict[str, Any], meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The clean process's reply; a process that has died is replaced once."""
    for _ in range(2):
        with _one_at_a_time:
            process, folder = _clean_process()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                meanwhile()
                if not select.select([process.stdout], [], [], SECONDS_TO_LOAD)[0]:
                    os.killpg(process.pid, signal.SIGKILL)  # its children are of its session
                    _clean_process.cache_clear()
                    process.wait()
                    shutil.rmtree(folder, ignore_errors=True)  # it cannot do so any more
                    raise LoadCheckFailed(
                        f"{request['uri']} has not loaded and drawn within {SECONDS_TO_LOAD:.0f} s"
                    )
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            if line:
                reply: dict[str, Any] = json.loads(line)
                return reply
            _clean_process.cache_clear()
    raise LoadCheckFailed("the clean process that loads versions does not answer")


@functools.cache
def _clean_process() -> "tuple[subprocess.Popen[str], str]":
    """The process that loads versions, and its folder.

    It is started once, for importing takes most of its time.
    """
    folder = str(make_scratch(outside_the_home()))
    left_out = ("PYTHON", "ATELIER_", "PREFECT_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    process = subprocess.Popen(
        # -I: neither the working directory nor the environment's paths are searched for modules.
        [
            sys.executable,
            "-I",
            "-B",
            "-W",
            "ignore",
            str(Path(__file__).with_name("load_worker.py")),
            folder,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        start_new_session=True,
    )
    atexit.register(_end, process, folder)
    return process, folder


def _end(process: "subprocess.Popen[str]", folder: str) -> None:
    """End the process, which has nothing to do any more; it may still be importing."""
    with process:
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)
