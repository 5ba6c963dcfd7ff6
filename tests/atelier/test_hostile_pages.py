"""A text, its name and a reason that want to be markup, on the real pages, in a real browser."""

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

Ask = Callable[..., Any]
Command = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.soak

MILLISECONDS_TO_FETCH = 3000  # what a page would fetch, it asks for at once; MLflow's is never idle


@dataclass(frozen=True)
class Place:
    """Servers with a hostile model, and the address of a foreign host that counts its guests."""

    prefect: str
    mlflow: str
    gallery: str
    model: str
    evil: str
    fetched: list[str]


@pytest.fixture(scope="module")
def place(
    chromium: str, command: Command, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    fetched: list[str] = []

    class Foreign(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    foreign = HTTPServer(("127.0.0.1", 0), Foreign)
    Thread(target=foreign.serve_forever, daemon=True).start()
    evil = f"http://127.0.0.1:{foreign.server_port}"
    folder = tmp_path_factory.mktemp("hostile")
    lines = ["````", "", f"![x]({evil}/md.png)", f"<img src={evil}/html.png>", "", "``````"]
    lines += [f"<script>fetch('{evil}/js')</script>", "~~~", f"[click]({evil}/l) {evil}/bare"]
    text = folder / "`![x](a.png)<img src=x>|_b_\n# head\x1b[31m.txt"
    text.write_text("\n".join(lines * 100) + "\n")
    home = folder / "home"
    try:
        run = ("run", "--preset", "quick", "--models", "ngram", "--text", f"file:{text}")
        done = command(home, *run)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        found = dict(re.findall(r"^(gallery|Prefect UI|MLflow UI) +(\S+)", done.stdout, re.M))
        (model,) = re.findall(r"^(\S+-ngram) +1 +champion", done.stdout, re.M)
        assert re.fullmatch(r"x-a-png-img-src-x-b-head-31m-[0-9a-f]{6}-ngram", model)
        yield Place(
            prefect=found["Prefect UI"],
            mlflow=found["MLflow UI"].partition("/#")[0],
            gallery=found["gallery"],
            model=model,
            evil=evil,
            fetched=fetched,
        )
    finally:
        command(home, "down")
        foreign.shutdown()
        foreign.server_close()


def test_the_registrys_page_shows_the_whole_card(page: Any, place: Place) -> None:
    page.goto(f"{place.mlflow}/#/models/{place.model}/versions/1?workflowType=machine_learning")

    page.get_by_text("Load it").first.wait_for()
    nothing_foreign(page, place)
    shown = page.locator("body").inner_text()
    assert re.search(r"`!\[x\]\(a\.png\)<img src=x>\|_b_(\\n| )# head\\x1b\[31m\.txt", shown)
    assert "measured on held-out data" in shown


@pytest.mark.parametrize("version", ["", "/v2"], ids=["V1", "V2"])
@pytest.mark.parametrize("key", ["gallery", "lineage"])
def test_prefects_pages_show_all_of_it(
    page: Any, ask: Ask, place: Place, key: str, version: str
) -> None:
    chosen = {"artifacts": {"key": {"any_": [key]}}}
    found, *_ = ask(f"{place.prefect}/api/artifacts/filter", chosen)

    page.goto(f"{place.prefect}{version}/artifacts/artifact/{found['id']}")

    end = {"gallery": "All files of this gallery", "lineage": "The whole run in MLflow"}[key]
    page.get_by_text(end).first.wait_for()
    nothing_foreign(page, place)


def test_the_gallery_itself_shows_text(page: Any, place: Place) -> None:
    page.goto(place.gallery)

    page.locator("pre").first.wait_for()
    nothing_foreign(page, place)
    assert "````" in page.locator("body").inner_text()


def nothing_foreign(page: Any, place: Place) -> None:
    """No picture, frame, script or link of the foreign host, and no request to it."""
    page.wait_for_timeout(MILLISECONDS_TO_FETCH)
    addresses = page.locator("[src], a[href]").evaluate_all(
        "all => all.map(each => String(each.src || each.href))"
    )
    assert [address for address in addresses if address.startswith(place.evil)] == []
    assert place.fetched == []


def test_the_foreign_host_would_have_counted(page: Any, place: Place) -> None:
    page.set_content(f"<img src={place.evil}/counted>")
    page.wait_for_timeout(MILLISECONDS_TO_FETCH)

    assert place.fetched == ["/counted"]
    place.fetched.clear()


def test_a_hostile_name_does_not_steer_the_terminal(command: Command, tmp_path: Path) -> None:
    refused = command(tmp_path / "home", "run", "--text", "file:/no\x1b[31m\u202e/where")

    assert refused.returncode == 2
    assert "\\x1b[31m\\u202e" in refused.stderr
    assert refused.stderr.replace("\n", "").isprintable()
