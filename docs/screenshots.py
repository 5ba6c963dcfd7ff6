"""Take the pictures of the README and docs/tour.md again: `python docs/screenshots.py`.

It is run from the project's folder, and needs a home whose servers are up and hold a full run
(`atelier up`, then `atelier run`), Chromium and Playwright.
"""

import io
import json
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from atelier.services import local_servers, process_settings
from tasks.store.files import home

FOLDER = Path(__file__).resolve().parent
MAX_BYTES = 250_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MILLISECONDS = 60_000


def post(url: str, body: object) -> Any:
    """The answer of a JSON service."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def save(page: Page, name: str) -> None:
    """Store what is seen now, in at most 256 colours and 250 kB."""
    page.wait_for_timeout(2500)  # pictures and curves are drawn some time after the page is there
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
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
    models = "?workflowType=machine_learning"
    api = f"{url}/api/2.0/mlflow"
    with urllib.request.urlopen(f"{api}/registered-models/search", timeout=60) as answer:
        known = json.load(answer)["registered_models"]
    name = next(model["name"] for model in known if model["name"].endswith(("-gan", "-vae")))
    found = f"{api}/registered-models/alias?name={name}&alias=champion"
    with urllib.request.urlopen(found, timeout=60) as answer:
        version = json.load(answer)["model_version"]
    with urllib.request.urlopen(f"{api}/runs/get?run_id={version['run_id']}") as answer:
        experiment = json.load(answer)["run"]["info"]["experiment_id"]
    page.goto(f"{url}/#/experiments/{experiment}/runs/{version['run_id']}/model-metrics{models}")
    page.locator(".js-plotly-plot, canvas").first.wait_for(timeout=MILLISECONDS)
    close_popups(page)
    save(page, "mlflow-run")
    page.goto(f"{url}/#/models/{name}/versions/{version['version']}{models}")
    page.get_by_text("Source Run").first.wait_for(timeout=MILLISECONDS)
    close_popups(page)
    save(page, "mlflow-registry")


def gallery_page(page: Page) -> None:
    """The top of the gallery that lies in the home."""
    path = home() / "gallery" / "index.html"
    if not path.exists():
        raise SystemExit(f"{path}: not there; run `atelier run` first")
    page.goto(path.as_uri())
    save(page, "gallery")


def close_popups(page: Page) -> None:
    """Put away what MLflow shows on a first visit."""
    for label in ("Close", "Got it", "Dismiss"):
        button = page.get_by_role("button", name=label, exact=True)
        if button.count():
            button.first.click(timeout=3000)


def main() -> None:
    """Take all pictures."""
    process_settings.apply_settings()
    urls = {server.name: server.url for server, is_up in local_servers.servers() if is_up}
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if len(urls) < 2 or browser_path is None:
        raise SystemExit("no servers are up (`atelier run`), or no chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        gallery_page(page)
        prefect_pages(page, urls["prefect"])
        mlflow_pages(page, urls["mlflow"])
        browser.close()


if __name__ == "__main__":
    main()
