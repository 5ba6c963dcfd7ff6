"""How fast a champion answers behind `mlflow models serve`.

Run as `python -m benchmarks.serving [IMAGE_MODEL TEXT_MODEL]` where `atelier run` has registered
champions (by default digits-gan and pydocs-ngram). One client, one request at a time: single
pictures for the rate of requests, a thousand pictures in one for the rate of images.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atelier.services import local_servers, process_settings
from benchmarks.measured import record

SECONDS_PER_MEASUREMENT = 10.0


def main(names: list[str]) -> None:
    """Serve one champion after the other and measure it."""
    process_settings.apply_settings()
    local_servers.ensure_servers(report=print)
    image_model, text_model = names or ["digits-gan", "pydocs-ngram"]
    with served(image_model) as url:
        single = rate(url, {"num_samples": 1})
        many = 1000 * rate(url, {"num_samples": 1000})
    record("serving_requests_per_second", single, "requests per second", reference=image_model)
    record("serving_images_per_second", many, "images per second", reference=image_model)
    with served(text_model) as url:
        texts = rate(url, {"num_samples": 1, "num_tokens": 200})
    record(
        "serving_tokens_per_second",
        200 * texts,
        "tokens per second",
        reference=text_model,
    )


@contextmanager
def served(name: str) -> Iterator[str]:
    """Serve a champion for the time of a block; gives the address for requests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{name}@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        command,
        env={**os.environ, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}/invocations"
    try:
        deadline = time.monotonic() + 180
        while not answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} does not answer")
            time.sleep(0.5)
        yield url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def answers(url: str) -> bool:
    """Whether the server is up."""
    try:
        request(url, {"num_samples": 1})
    except OSError:
        return False
    return True


def request(url: str, params: dict[str, Any]) -> Any:
    """One request's answer."""
    body = json.dumps({"dataframe_records": [{}], "params": params}).encode()
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=120) as answer:
        return json.load(answer)


def rate(url: str, params: dict[str, Any]) -> float:
    """Requests per second, one after the other: the median of the single ones."""
    request(url, params)
    taken = []
    ends_at = time.monotonic() + SECONDS_PER_MEASUREMENT
    while time.monotonic() < ends_at or len(taken) < 3:
        started_at = time.monotonic()
        request(url, {**params, "seed": len(taken)})
        taken.append(time.monotonic() - started_at)
    return 1 / statistics.median(taken)


if __name__ == "__main__":
    main(sys.argv[1:])
