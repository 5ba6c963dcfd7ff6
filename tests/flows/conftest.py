"""The command line in a process of its own, for the tests that need real servers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def command() -> Command:
    """Run `atelier` with a home of its own, and none of this process's settings."""

    def run(home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        ours = ("ATELIER_", "PREFECT_", "MLFLOW_", "PYTHONWARNINGS", "OMP_WAIT_POLICY")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return subprocess.run(
            [sys.executable, "-m", "flows", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**clean, "ATELIER_HOME": str(home), **extra},
        )

    return run
