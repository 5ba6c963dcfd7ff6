"""What tests of commands share: the command itself, questions to its servers, a browser."""

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

from atelier.__main__ import main

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


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `atelier` as `command` does, but in this process: starting one costs seconds.

    It returns the same; what an interpreter adds (exit codes of signals, what is imported, an
    encoding) is not seen here.
    """

    def run(home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        umask = os.umask(0o077)
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("ATELIER_", "MLFLOW_"))]:
                patch.delenv(name)
            for name, value in {**extra, "ATELIER_HOME": str(home)}.items():
                patch.setenv(name, value)
            capsys.readouterr()
            try:
                code = main(list(arguments))
            except SystemExit as left:  # argparse ends the program itself
                code = left.code if isinstance(left.code, int) else 1
            finally:
                os.umask(umask)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(list(arguments), code, said.out, said.err)

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
