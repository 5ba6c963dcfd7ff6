"""What tests with real servers share: the command in its own process, questions, a browser."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MILLISECONDS = 60_000
ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_ANSWER = 180
Command = Callable[..., "subprocess.CompletedProcess[str]"]
Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def command() -> Command:
    """Run `atelier` with a home of its own, and none of this process's settings."""

    def run(home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        ours = ("ATELIER_", "PREFECT_", "MLFLOW_", "PYTHONWARNINGS", "OMP_WAIT_POLICY")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return subprocess.run(
            [sys.executable, "-m", "atelier", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**clean, "ATELIER_HOME": str(home), **extra},
        )

    return run


@pytest.fixture(scope="session")
def ask() -> Ask:
    """Ask a JSON service; one that says 503 is asked again, as Prefect's own client does.

    Prefect answers so while its SQLite database is locked by another writer.
    """

    def ask(url: str, body: object = None, method: str = "POST") -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            url, content, {"Content-Type": "application/json"}, method=method
        )
        deadline = time.monotonic() + SECONDS_TO_ANSWER
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    return ask


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
