"""One of the two servers behind the guard, in a process of its own.

Run as `python -m atelier.services.guarded_server NAME PORT [SOCKET]`; NAME is prefect or mlflow.
Loop and parser of uvicorn are named, not left to what is installed: the parser that it takes where
it finds it lets two Host headers pass.
"""

import os
import socket
import sys
from typing import Any

import uvicorn

from atelier.services.credentials import TRACKING_ACCOUNTS
from atelier.services.origin_guard import App, OriginGuard, allowed, origin_of, page_policy

_LOOPBACK_PICTURES = ("http://127.0.0.1:*", "http://localhost:*")


def prefect_application(port: int) -> App:
    """Prefect's API and pages; the pages show pictures that MLflow's server keeps."""
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    hosts = allowed(port, origins=settings.api.cors_allowed_origins.split(","))
    asked = {*hosts.origins, origin_of(settings.ui.api_url or "")} - {None}
    tracking = origin_of(os.environ.get("MLFLOW_TRACKING_URI", ""))
    pictures = [*_LOOPBACK_PICTURES, *([tracking] if tracking else [])]
    policy = page_policy([each for each in asked if each], pictures)
    return OriginGuard(create_app(final=True), hosts, policy, wants_json=True)


def mlflow_application(port: int) -> App:
    """MLflow's API and pages; files are uploaded to it as they are, so not only JSON is taken."""
    from tasks.tracking.server_app import tracking_application

    further = os.environ.get("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "")
    hosts = allowed(port, origins=further.split(","))
    policy = page_policy(hosts.origins)
    has_accounts = TRACKING_ACCOUNTS in os.environ
    application = tracking_application(with_accounts=has_accounts)
    return OriginGuard(application, hosts, policy, wants_json=False, wants_password=has_accounts)


def prefect_timing() -> dict[str, Any]:
    """What `prefect server start` passes on to uvicorn."""
    from prefect.settings import get_current_settings

    api = get_current_settings().server.api
    return {
        "timeout_keep_alive": api.keepalive_timeout,
        "ws_ping_interval": api.websocket_ping_interval,
        "ws_ping_timeout": api.websocket_ping_timeout,
        "log_level": get_current_settings().server.logging_level.lower(),
    }


def main(name: str, port: int, listener: int | None = None) -> None:
    """Serve until a signal comes; listener: an inherited socket that listens at the port."""
    if name == "prefect":
        app, options = prefect_application(port), prefect_timing()
    else:
        app, options = mlflow_application(port), {"log_level": "info"}
    config = uvicorn.Config(app, host="127.0.0.1", port=port, loop="asyncio", http="h11", **options)
    server = uvicorn.Server(config)
    server.run(None if listener is None else [socket.socket(fileno=listener)])
    if not server.started:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:4]))
