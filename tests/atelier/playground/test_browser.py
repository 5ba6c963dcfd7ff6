"""Both pages in a real browser, on real champions in processes of their own."""

import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

Command = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).resolve().parents[3]

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def playground(
    chromium: str, command: Command, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of `atelier play` on a VAE of digits and an n-gram model of Python's manual."""
    pytest.importorskip("nicegui", reason="the extra `play` is not installed")
    home = tmp_path_factory.mktemp("playground") / "home"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    clean = {name: v for name, v in os.environ.items() if not name.startswith(("MLFLOW_", "PREF"))}
    try:
        done = command(home, "run", "--preset", "quick", "--families", "vae,ngram")
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        command(home, "down")
    process = subprocess.Popen(
        [sys.executable, "-m", "atelier", "play", "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**clean, "ATELIER_HOME": str(home)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"playground  http://127.0.0.1:{port}\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture
def watched(page: Any, playground: str) -> Iterator[Any]:
    """The page, which asks this server alone, and in which nothing goes wrong."""
    wrong: list[str] = []
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None,
    )
    yield page
    assert wrong == []
    assert [each for each in asked if not each.startswith((playground, "data:"))] == []


def picture_file() -> bytes:
    content = io.BytesIO()
    Image.linear_gradient("L").save(content, "PNG")
    return content.getvalue()


def query(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_text_is_written_looked_into_and_led_on(watched: Any, playground: str) -> None:
    page = watched
    page.goto(f"{playground}/?version=pydocs-ngram/1")
    page.wait_for_url(re.compile(r"/text\?a=pydocs-ngram/1$"))
    page.wait_for_selector("text=bits a character")
    hostile = "<img src=x onerror=alert(1)> The "
    page.get_by_label("prompt").fill(hostile)
    page.wait_for_function(f"document.querySelector('.given')?.textContent == {hostile!r}")
    page.wait_for_selector("text=/longest copy|no copy/")
    assert page.locator(".flow img").count() == 0
    written = page.locator(".flow .t")
    assert written.count() == 300
    before = written.all_text_contents()

    written.nth(20).click()
    page.wait_for_selector("text=part of its probability")
    rivals = page.locator(".rival:not(.it)")
    assert rivals.count() >= 9
    token = rivals.first.get_attribute("data-token")
    rivals.first.click()
    page.wait_for_function("document.querySelectorAll('.flow .t.forced').length == 1")
    page.wait_for_selector("text=/longest copy|no copy/")

    assert written.all_text_contents()[:20] == before[:20]
    assert query(page)["chosen_a"] == [f"20:{token}"] and query(page)["at"] == ["a:20"]
    led, address = written.all_text_contents(), page.url
    page.goto("about:blank")
    page.goto(address)  # the address is the whole state
    page.wait_for_selector("text=part of its probability")
    assert page.locator(".flow .t").all_text_contents() == led
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_pictures_are_drawn_and_walked_between(watched: Any, playground: str) -> None:
    page = watched
    page.goto(f"{playground}/images?a=digits-vae/1&b=digits-vae@champion&samples=8&seed=3")
    page.wait_for_selector(".walk .here img")
    page.wait_for_selector(".way .strip img")
    assert page.locator(".texts .sample").count() == 16  # of both, and the same
    drawn = [
        [each.get_attribute("src") for each in panel.locator(".sample img").all()]
        for panel in page.locator(".texts .panel").all()
    ]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) > 8

    page.locator(".sample .leads").nth(2).click()
    page.wait_for_selector("text=from sample 2")
    here = page.locator(".walk .here img").first
    assert here.get_attribute("src") == drawn[0][4]  # a sample, and its neighbour, each
    box = page.locator(".plane img").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.1)
    page.wait_for_function(
        f"document.querySelector('.walk .here img').src != {here.get_attribute('src')!r}"
    )
    across, up, *_ = map(float, query(page)["at"][0].split(","))
    assert across > 2 and up > 2
    assert query(page)["start"] == ["2"]

    page.locator(".offered img").nth(3).click()
    page.locator(".offered img").nth(7).click()
    page.wait_for_function("location.search.includes('first=3&last=7')")
    assert page.locator(".way .strip .sample").count() == 9
    address = page.url
    for content, wanted in (
        (bytes(100), "own.png: no picture of a known format: its content is of no known format"),
        (bytes(21_000_000), "not taken: wanted is one picture"),  # by the browser itself
        (picture_file(), "own.png; it stays in this tab"),
    ):
        file = {"name": "own.png", "mimeType": "image/png", "buffer": content}
        page.locator("input[type=file]").set_input_files(file)
        page.wait_for_selector(f"text={wanted}")
    assert page.locator(".own .here img").count() == 3
    assert page.url == address
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
