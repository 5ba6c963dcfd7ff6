"""The home's secret before the playground."""

import asyncio
import base64
from typing import Any

import pytest

from atelier.playground.access import SecretAsked
from atelier.services.credentials import Secret

SECRET = Secret("atelier", "correct-horse-battery")


def basic(text: str) -> tuple[bytes, bytes]:
    return b"authorization", b"Basic " + base64.b64encode(text.encode())


def outcome(kind: str, *headers: tuple[bytes, bytes]) -> Any:
    """The status of an answer, how a web socket was closed, or that the request passed."""
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        sent.append({"type": "passed"})

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": kind, "headers": headers}
    asyncio.run(SecretAsked(application, SECRET)(scope, receive, send))
    return sent[0].get("status") or sent[0].get("code") or sent[0]["type"]


@pytest.mark.parametrize(("kind", "refused"), [("http", 401), ("websocket", 1008)])
def test_who_knows_the_secret_passes_and_nobody_else(kind: str, refused: int) -> None:
    right = basic(str(SECRET))
    assert outcome(kind, right) == "passed"
    assert outcome(kind) == refused
    assert outcome(kind, basic("atelier:wrong-password-here")) == refused
    assert outcome(kind, basic("")) == refused
    assert outcome(kind, (b"authorization", b"Bearer " + right[1][6:])) == refused
    assert outcome(kind, right, basic("atelier:x")) == refused
    assert outcome("lifespan") == "passed"
