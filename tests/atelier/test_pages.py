"""The pages that people look at, in a real browser: Prefect's and MLflow's."""

import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

LOADED = "image => image.complete && image.naturalWidth > 0"

Ask = Callable[..., Any]
Command = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def urls(
    chromium: str, command: Command, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The addresses of both servers after a quick run of a VAE and an n-gram model."""
    home = tmp_path_factory.mktemp("pages")
    try:
        done = command(home, "run", "--preset", "quick", "--models", "vae,ngram")
        assert done.returncode == 0, done.stdout + done.stderr
        found = dict(re.findall(r"^(Prefect|MLflow) UI +(http://[^/\s]+)", done.stdout, re.M))
        yield found
    finally:
        command(home, "down")


def artifact_page(ask: Ask, urls: dict[str, str], key: str) -> str:
    chosen = {"artifacts": {"key": {"any_": [key]}}}
    (found,) = ask(f"{urls['Prefect']}/api/artifacts/filter", chosen)
    return f"/artifacts/artifact/{found['id']}"


def test_the_page_of_a_full_run_names_its_parts_and_has_a_line_for_each_model(
    page: Any, ask: Ask, urls: dict[str, str]
) -> None:
    chosen = {"flows": {"name": {"any_": ["full-run"]}}}
    (run,) = ask(f"{urls['Prefect']}/api/flow_runs/filter", chosen)

    page.goto(f"{urls['Prefect']}/v2/runs/flow-run/{run['id']}")

    page.get_by_text("digits and pydocs (vae, ngram), quick, seed 0").first.wait_for()
    page.get_by_text(re.compile("digits-vae version 1: champion")).first.wait_for()
    page.get_by_text(re.compile("pydocs-ngram version 1: champion")).first.wait_for()


@pytest.mark.parametrize("version", ["", "/v2"], ids=["V1", "V2"])
def test_the_lineage_is_drawn_and_its_models_link_to_the_registry(
    page: Any, ask: Ask, urls: dict[str, str], version: str
) -> None:
    page.goto(f"{urls['Prefect']}{version}{artifact_page(ask, urls, 'lineage')}")

    drawing = page.locator("img[src*='lineage.svg']").first
    drawing.wait_for()
    page.wait_for_function(
        f"() => [...document.querySelectorAll('img[src*=\"lineage.svg\"]')].some({LOADED})"
    )
    with urllib.request.urlopen(drawing.get_attribute("src"), timeout=60) as answer:
        drawn = answer.read().decode()
    for name in ("1,797 images", "pydocs characters", "digits-vae 1", "pydocs-ngram 1", "gallery"):
        assert name in drawn, name
    links = page.locator("table a").evaluate_all("links => links.map(link => link.href)")
    assert [link for link in links if "/#/models/digits-vae/versions/1" in link]


@pytest.mark.parametrize("version", ["", "/v2"], ids=["V1", "V2"])
def test_the_gallery_shows_its_pictures_in_both_of_prefects_faces(
    page: Any, ask: Ask, urls: dict[str, str], version: str
) -> None:
    page.goto(f"{urls['Prefect']}{version}{artifact_page(ask, urls, 'gallery')}")

    page.get_by_text("digits-vae").first.wait_for()
    pictures = page.locator("img[src*='get-artifact'], img[src^='data:image/png']")
    pictures.first.wait_for()
    page.wait_for_function(f"() => [...document.images].filter({LOADED}).length > 0")
    assert pictures.first.evaluate(LOADED)


def test_a_run_of_mlflow_shows_curves(page: Any, ask: Ask, urls: dict[str, str]) -> None:
    version = registered(ask, urls, "digits-vae")
    run = f"{urls['MLflow']}/api/2.0/mlflow/runs/get?run_id={version['run_id']}"
    experiment = ask(run, method="GET")["run"]["info"]["experiment_id"]

    page.goto(
        f"{urls['MLflow']}/#/experiments/{experiment}/runs/{version['run_id']}/model-metrics"
        "?workflowType=machine_learning"
    )

    page.wait_for_function(  # a line of many points; what was measured once is a dot
        "() => [...document.querySelectorAll('.js-plotly-plot path.js-line')]"
        ".some(line => line.getAttribute('d').split('L').length > 20)"
    )


def test_a_version_in_the_registry_shows_its_samples(
    page: Any, ask: Ask, urls: dict[str, str]
) -> None:
    page.goto(f"{urls['MLflow']}/#/models/digits-vae/versions/1?workflowType=machine_learning")

    picture = page.locator("img[src*='get-artifact']").first
    picture.wait_for()
    page.wait_for_function(
        f"() => [...document.querySelectorAll('img[src*=get-artifact]')].some({LOADED})"
    )


def registered(ask: Ask, urls: dict[str, str], name: str) -> Any:
    address = f"{urls['MLflow']}/api/2.0/mlflow/registered-models/alias?name={name}&alias=champion"
    return ask(address, method="GET")["model_version"]
