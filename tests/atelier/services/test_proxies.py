"""Loopback past every proxy, and what a person has set for other hosts left alone."""

import os
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import requests
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from atelier.services.proxies import UNUSABLE_PROXIES_VARIABLE, bypass_proxies
from atelier.services.server_requests import is_healthy
from tasks.data.sources import Unreachable, download
from tasks.store.files import BadInput

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing answers there
SOCKS = "socks5://127.0.0.1:9"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "socks_proxy")
ODD_EXCEPTIONS = [  # with most of them Prefect's client does not start
    *("[::1]", "[::1]:4200,::1", "::1/128,fd00::/8", "[fd00::]/8", "é.example", "é..b", "a:b:c"),
    *("http://[bad", "http://é", "[abc]", "a b\tc\nd", "fe80::1%eth0", "10.0.0.0/99", ":", "]"),
]
PROXIES = [
    {"HTTP_PROXY": NOWHERE},
    {"http_proxy": NOWHERE, "https_proxy": NOWHERE},
    {"ALL_PROXY": SOCKS},
    {"all_proxy": "socks5h://127.0.0.1:9", "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE},
    {"HTTP_PROXY": SOCKS, "HTTPS_PROXY": SOCKS},
    {"HTTP_PROXY": "127.0.0.1:9"},
    {"HTTP_PROXY": "ftp://127.0.0.1:9"},
    {"HTTP_PROXY": "http://proxy:port"},
    {"HTTP_PROXY": NOWHERE, "NO_PROXY": "*"},
    {"HTTP_PROXY": NOWHERE, "no_proxy": "example.org, .example.net"},
    {"HTTP_PROXY": NOWHERE, "NO_PROXY": "example.org", "no_proxy": "example.net"},
    {"HTTP_PROXY": NOWHERE, "NO_PROXY": "", "no_proxy": ""},
    *({"HTTP_PROXY": NOWHERE, "NO_PROXY": spared} for spared in ODD_EXCEPTIONS),
    *({"HTTP_PROXY": address} for address in (f"{NOWHERE}\n", f"\t{NOWHERE} ", " ", "http://a\tb")),
]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *map(str.upper, VARIABLES), UNUSABLE_PROXIES_VARIABLE):
        monkeypatch.setenv(name, "")  # so that what a test changes is put back
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that is well, and refuses what came through a proxy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"OK"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Be silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("proxies", PROXIES, ids=str)
def test_every_client_reaches_loopback_past_every_proxy(
    url: str, proxies: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)

    assert is_healthy("mlflow", url)  # whatever the environment says

    bypass_proxies()

    for address in (url, url.replace("127.0.0.1", "localhost")):
        assert httpx.get(f"{address}/health", timeout=5).text == "OK"  # Prefect's client
        assert requests.get(f"{address}/health", timeout=5).text == "OK"  # MLflow's
        assert urllib.request.urlopen(f"{address}/health", timeout=5).read() == b"OK"
        assert get_proxy(parse_uri(address.replace("http", "ws"))) is None  # Prefect's events


def test_what_a_person_has_set_for_other_hosts_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", "example.org,10.0.0.0/8")

    bypass_proxies()
    bypass_proxies()

    assert os.environ["HTTPS_PROXY"] == "http://proxy.example.org:3128"
    wanted = "example.org,10.0.0.0/8,127.0.0.1,localhost,::1"
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == wanted
    proxies = requests.utils.get_environ_proxies("https://huggingface.invalid/x")
    assert proxies["https"] == "http://proxy.example.org:3128"
    assert UNUSABLE_PROXIES_VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("[::1]:4200,[fd00::7]", "::1,fd00::7,127.0.0.1,localhost"),
        ("fd00::/8,10.0.0.0/8", "10.0.0.0/8,127.0.0.1,localhost,::1"),
        ("a.example  .b.example:80", "a.example,.b.example:80,127.0.0.1,localhost,::1"),
        ("bücher.example", "xn--bcher-kva.example,127.0.0.1,localhost,::1"),
    ],
)
def test_exceptions_are_spelled_as_all_clients_take_them(
    given: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", given)

    bypass_proxies()

    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == kept


def test_a_server_at_another_address_of_loopback_is_reached_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.1.1:4200/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")

    bypass_proxies()

    entries = os.environ["no_proxy"].split(",")
    assert "127.0.1.1" in entries
    assert "mlflow.example.org" not in entries


def test_downloads_use_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    bypass_proxies()

    with pytest.raises(Unreachable, match="refused"):  # by the proxy: the name has no address
        download("http://data.invalid/mnist", "0" * 64, tmp_path / "mnist" / "x")


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy"])
def test_a_proxy_that_no_download_can_use_is_not_gone_past(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, SOCKS)
    bypass_proxies()

    with pytest.raises(BadInput, match=f"mnist is not downloaded: {name} names a proxy"):
        download("https://data.invalid/mnist", "0" * 64, tmp_path / "mnist" / "x")
