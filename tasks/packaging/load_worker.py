"""Load registered versions and draw samples in a process that knows nothing of this project.

Run as a program by `tasks/packaging/load_check.py`, in Python's isolated mode; its argument is an
empty folder, which it removes at its end. Each line of its input is a request in JSON; each is
answered by a child of its own, forked once the libraries are imported, so that one version's code
never meets another's. Imports nothing of ours.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from typing import Any

import mlflow
import pandas as pd


def digest_of_samples(rows: pd.DataFrame) -> str:
    """sha256 of what a model answered."""
    text = json.dumps(rows.astype(str).to_dict("records"), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Load a version's verified copy and draw; its samples' digest, and whose code it borrowed."""
    mlflow.set_tracking_uri(request["tracking_uri"])
    mlflow.set_registry_uri(request["tracking_uri"])
    # Its warnings compare all installed packages with the version's, for a second; none is read.
    model = mlflow.pyfunc.load_model(request["folder"], suppress_warnings=True)
    rows = model.predict([{}], params=request["params"])
    return {
        "samples": digest_of_samples(rows),
        "foreign": sorted(
            path
            for module in list(sys.modules.values())
            if (path := getattr(module, "__file__", None))
            and path != __file__
            and path.startswith(tuple(request["ours"]))
        ),
    }


def serve(folder: str) -> None:
    """Answer requests until the input ends; everything is written below one folder."""
    tempfile.tempdir = folder
    os.chdir(folder)
    replies = os.fdopen(os.dup(1), "w")  # what libraries print must not mix with our answers
    os.dup2(2, 1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                reply = answer(json.loads(line))
            except BaseException as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            replies.write(json.dumps(reply) + "\n")
            replies.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status != 0:
            replies.write(json.dumps({"error": f"the process died with status {status}"}) + "\n")
            replies.flush()


def main() -> None:
    """Import what all versions need, so that the children find it imported, then answer."""
    import mlflow.pyfunc.model  # noqa: F401
    import PIL.Image  # noqa: F401
    import safetensors.torch  # noqa: F401
    import tokenizers  # noqa: F401

    try:
        serve(sys.argv[1])
    finally:
        shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
