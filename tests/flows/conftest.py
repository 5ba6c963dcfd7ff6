"""The command line in a process of its own, and a browser, for the tests that need real servers."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MILLISECONDS = 60_000
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


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the system's Chromium; what needs it is skipped where it or its driver lacks."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no chromium is installed")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("Playwright is not installed")
    return path


@pytest.fixture
def page(chromium: str) -> Iterator[Any]:
    """A page of the browser, which reaches this machine only.

    For one test: while Playwright is open, an event loop counts as running in this thread, and
    what Prefect calls "sync compatible" returns a coroutine that nobody awaits.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        found = browser.new_page(viewport={"width": 1280, "height": 900})
        found.route(re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: route.abort())
        found.set_default_timeout(MILLISECONDS)
        yield found
        browser.close()
