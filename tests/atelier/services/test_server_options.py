"""With which loop and parser both servers run, whatever is installed beside them."""

from typing import Any

import pytest
import uvicorn

from atelier.services import guarded_server


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_loop_and_parser_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `play` brings uvloop and httptools, which uvicorn takes where it finds them."""
    configs: list[uvicorn.Config] = []

    def run(server: uvicorn.Server, sockets: Any) -> None:
        configs.append(server.config)
        server.started = True

    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.setattr(guarded_server, "prefect_application", lambda _: None)
    monkeypatch.setattr(guarded_server, "mlflow_application", lambda _: None)

    guarded_server.main(name, 4200)

    (config,) = configs
    assert (config.loop, config.http) == ("asyncio", "h11")
