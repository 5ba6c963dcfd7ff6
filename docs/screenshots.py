"""Take the pictures of the README and docs/tour.md again: `python docs/screenshots.py [PART ...]`.

It is run from the project's folder, and needs a home whose servers are up and hold a full run
(`atelier up`, then `atelier run`), a playground of it (`atelier play`), Chromium and Playwright.

The film strip's terminal is drawn from `docs/terminal.ansi`, a window of 64 columns and 21 rows
while `atelier run` worked in it: `tmux capture-pane -e -p > docs/terminal.ansi`.
"""

import base64
import html
import io
import json
import re
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from atelier.services import local_servers, playgrounds, process_settings
from tasks.store.files import home

FOLDER = Path(__file__).resolve().parent
MAX_BYTES = 250_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MILLISECONDS = 90_000
TERMINAL_COLUMNS = 64
FRAME_WIDTH, FRAME_HEIGHT, FRAME_SCALE = 640, 420, 1.25
"""Of a picture of the film strip, in CSS pixels, and how many of its own each of these has."""
TRAINING = "?workflowType=machine_learning"
"""Of MLflow's two faces the one with models."""
PROMPT = "The with statement "


def post(url: str, body: object) -> Any:
    """The answer of a JSON service."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def save(page: Page, name: str) -> None:
    """Store what is seen now."""
    page.wait_for_timeout(2500)  # pictures and curves are drawn some time after the page is there
    store(page.screenshot(), name)


def store(content: bytes, name: str) -> None:
    """Write a PNG file beside this one, in at most 256 colours and 250 kB."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    path = FOLDER / f"{name}.png"
    image.quantize(256).save(path, "PNG", optimize=True)
    size = path.stat().st_size
    print(f"{path.name}: {size / 1e3:.0f} kB")  # noqa: T201
    if size > MAX_BYTES:
        raise SystemExit(f"{path} is larger than {MAX_BYTES} bytes")


def latest(prefect: str, kind: str, chosen: dict[str, Any]) -> Any:
    """The newest flow run, artifact or deployment that fits."""
    sort = "START_TIME_DESC" if kind == "flow_runs" else "CREATED_DESC"
    found = post(f"{prefect}/api/{kind}/filter", {**chosen, "sort": sort, "limit": 1})
    if not found:
        raise SystemExit(
            f"Prefect has no such {kind}: {chosen}; run `atelier up` and `atelier run` first"
        )
    return found[0]


def prefect_pages(page: Page, url: str) -> None:
    """A full run with its parts, the lineage, the gallery, and the form of a deployment."""
    completed = {"state": {"type": {"any_": ["COMPLETED"]}}}
    chosen = {"flows": {"name": {"any_": ["full-run"]}}, "flow_runs": completed}
    run = latest(url, "flow_runs", chosen)
    page.goto(f"{url}/v2/runs/flow-run/{run['id']}")
    page.get_by_text("Completed").first.wait_for(timeout=MILLISECONDS)
    page.wait_for_timeout(10_000)  # the time line comes last, on a canvas that tells nothing
    save(page, "prefect-run")
    for key, name, sign in (
        ("lineage", "prefect-lineage", "img[src*='lineage.svg']"),
        ("gallery", "prefect-gallery", "article img, main img"),
    ):
        artifact = latest(url, "artifacts", {"artifacts": {"key": {"any_": [key]}}})
        page.goto(f"{url}/v2/artifacts/artifact/{artifact['id']}")
        page.locator(sign).first.wait_for(timeout=MILLISECONDS)
        save(page, name)
    deployment = latest(url, "deployments", {"deployments": {"name": {"any_": ["retrain-gan"]}}})
    page.goto(f"{url}/v2/deployments/deployment/{deployment['id']}/run")
    page.get_by_text("Enforce Parameter Schema").wait_for(timeout=MILLISECONDS)
    save(page, "prefect-form")


def mlflow_pages(page: Page, url: str) -> None:
    """A run's curves, and the page of a registered version."""
    version = pictured_version(url)
    with urllib.request.urlopen(
        f"{url}/api/2.0/mlflow/runs/get?run_id={version['run_id']}", timeout=60
    ) as answer:
        experiment = json.load(answer)["run"]["info"]["experiment_id"]
    run = f"experiments/{experiment}/runs/{version['run_id']}/model-metrics"
    page.goto(f"{url}/#/{run}{TRAINING}")
    page.locator(".js-plotly-plot, canvas").first.wait_for(timeout=MILLISECONDS)
    close_popups(page)
    save(page, "mlflow-run")
    open_version(page, url)
    save(page, "mlflow-registry")


def pictured_version(url: str) -> Any:
    """The champion of a model whose card has pictures."""
    api = f"{url}/api/2.0/mlflow/registered-models"
    with urllib.request.urlopen(f"{api}/search", timeout=60) as answer:
        known = json.load(answer)["registered_models"]
    name = next(model["name"] for model in known if model["name"].endswith(("-gan", "-vae")))
    with urllib.request.urlopen(f"{api}/alias?name={name}&alias=champion", timeout=60) as answer:
        return json.load(answer)["model_version"]


def open_version(page: Page, url: str) -> None:
    """That version's page in the registry."""
    version = pictured_version(url)
    page.goto(f"{url}/#/models/{version['name']}/versions/{version['version']}{TRAINING}")
    page.get_by_text("Source Run").first.wait_for(timeout=MILLISECONDS)
    close_popups(page)


def gallery_page(page: Page) -> None:
    """The top of the gallery that lies in the home."""
    path = home() / "gallery" / "index.html"
    if not path.exists():
        raise SystemExit(f"{path}: not there; run `atelier run` first")
    page.goto(path.as_uri())
    save(page, "gallery")


def playground_pages(page: Page, url: str) -> None:
    """A text with the rivals of a token, and two image models and a latent space."""
    open_text(page, url, "&b=pydocs-ngram@champion&at=a:24", num_texts=2)
    page.get_by_text("tokens are left after").wait_for(timeout=MILLISECONDS)
    save(page, "playground-text")
    page.goto(f"{url}/images?a=digits-vae@champion&b=digits-gan@champion&samples=16")
    page.locator(".way .strip img").first.wait_for(timeout=MILLISECONDS)
    file = {"name": "seven.png", "mimeType": "image/png", "buffer": drawn_seven()}
    page.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type]
    page.locator(".own .here img").first.wait_for(timeout=MILLISECONDS)
    page.wait_for_timeout(2500)
    store(page.screenshot(full_page=True), "playground-images")


def drawn_seven() -> bytes:
    """A seven as somebody would draw it."""
    image = Image.new("L", (320, 320))
    ImageDraw.Draw(image).line([(95, 65), (225, 65), (140, 290)], 255, 38, "curve")
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def open_text(page: Page, url: str, more: str = "", num_texts: int = 1) -> None:
    """What the GPT writes, with its copies underlined; more: of the address."""
    page.goto(f"{url}/text?a=pydocs-gpt@champion&prompt={quote(PROMPT)}&tokens=420&seed=1{more}")
    copies = page.get_by_text(re.compile("longest copy|no copy"))
    copies.nth(num_texts - 1).wait_for(timeout=MILLISECONDS)


def film_strip(browser: Browser, playground: str, mlflow: str) -> None:
    """The README's four pictures on one: a run, the gallery, the playground, the registry."""
    page = browser.new_page(
        viewport={"width": FRAME_WIDTH, "height": 900}, device_scale_factor=FRAME_SCALE
    )
    frames = {}
    page.set_content(terminal_page())
    frames["atelier run"] = framed(page, "pre")
    page.set_viewport_size({"width": 760, "height": 900})
    page.goto((home() / "gallery" / "index.html").as_uri())
    frames["the gallery: beside held-out data"] = framed(page, "text=Side by side", 760)
    page.set_viewport_size({"width": FRAME_WIDTH, "height": 900})
    open_text(page, playground)
    frames["the playground: surprise, token by token"] = framed(page, ".texts .panel")
    page.set_viewport_size({"width": 880, "height": 900})
    open_version(page, mlflow)
    frames["the registry: a version, its metrics, its gate"] = framed(
        page, "text=two networks in competition"
    )
    page.close()
    strip = browser.new_page(viewport={"width": 1640, "height": 900})
    strip.set_content(strip_page(frames))
    strip.wait_for_timeout(500)
    store(strip.locator("main").screenshot(), "film-strip")


def framed(page: Page, sign: str, width: int = FRAME_WIDTH) -> bytes:
    """A frame of the page as a PNG file, from the upper left of the first such element."""
    found = page.locator(sign).first
    found.wait_for(timeout=MILLISECONDS)
    page.wait_for_timeout(2500)
    corner = found.bounding_box()
    assert corner is not None, "it was waited for"
    clip = {"x": max(0.0, corner["x"] - 8), "y": max(0.0, corner["y"] - 8)}
    size = {"width": width, "height": width * FRAME_HEIGHT / FRAME_WIDTH}
    return page.screenshot(clip={**clip, **size}, full_page=True)  # type: ignore[arg-type]


def terminal_page() -> str:
    """The kept capture of a terminal as a page."""
    console = Console(record=True, width=TERMINAL_COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi((FOLDER / "terminal.ansi").read_text()), soft_wrap=True)
    size = (FRAME_WIDTH - 2 * 8) / TERMINAL_COLUMNS / 0.6021  # a column of this font, in its units
    style = f"margin:8px;font:{size:.2f}px/19.6px 'DejaVu Sans Mono',monospace"
    code_format = f'<body style="margin:0;color:#e8e4de;background:#14161a"><pre style="{style}">'
    return console.export_html(
        inline_styles=True, theme=MONOKAI, code_format=code_format + "{code}</pre>"
    )


def strip_page(frames: dict[str, bytes]) -> str:
    """Pictures with their names, two by two."""
    figures = "".join(
        f"<figure><figcaption>{number} &nbsp;{html.escape(name)}</figcaption>"
        f'<img src="data:image/png;base64,{base64.b64encode(content).decode()}"></figure>'
        for number, (name, content) in enumerate(frames.items(), 1)
    )
    return (
        "<style>body{margin:0}main{display:grid;grid-template-columns:800px 800px;gap:20px;"
        "padding:20px;width:1620px;background:#fff;font:600 25px 'DejaVu Sans',sans-serif}"
        "figure{margin:0}figcaption{color:#5a554e;padding:0 0 8px 2px}"
        "img{display:block;width:798px;border:1px solid #d8d3ca;border-radius:8px}</style>"
        f"<main>{figures}</main>"
    )


def close_popups(page: Page) -> None:
    """Put away what MLflow shows on a first visit."""
    for label in ("Close", "Got it", "Dismiss"):
        button = page.get_by_role("button", name=label, exact=True)
        if button.count():
            button.first.click(timeout=3000)


def main(names: list[str]) -> None:
    """Take all pictures, or those of some parts."""
    process_settings.apply_settings()
    urls = {server.name: server.url for server, is_up in local_servers.servers() if is_up}
    played = [each.url for each in playgrounds.running()]
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if len(urls) < 2 or not played or browser_path is None:
        raise SystemExit(
            "no servers are up (`atelier run`), no playground is (`atelier play`), or no chromium"
            " is installed"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        parts = {
            "gallery": lambda: gallery_page(page),
            "prefect": lambda: prefect_pages(page, urls["prefect"]),
            "mlflow": lambda: mlflow_pages(page, urls["mlflow"]),
            "playground": lambda: playground_pages(page, played[0]),
            "film-strip": lambda: film_strip(browser, played[0], urls["mlflow"]),
        }
        for name in names or parts:
            if name not in parts:
                raise SystemExit(f"{name!r} is no part; parts are {', '.join(parts)}")
            parts[name]()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
