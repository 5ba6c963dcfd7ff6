"""What code imports when it runs in a process of its own: a command should wait for no library."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = ("mlflow", "prefect", "torch", "pandas", "optuna")
"""Libraries that take seconds."""


def imported_by(
    code: str, names: Iterable[str] = HEAVY
) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """Which modules of some names are imported once a piece of code has run, and how it ended.

    The code runs in this process's home, with no server's address in the environment.
    """
    told = (
        f"import json, sys; found = sorted(set({[*names]!r}) & set(sys.modules));"
        " print('\\n' + json.dumps(found), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{told}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found, done
