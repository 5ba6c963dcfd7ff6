"""The playground's server: its pages behind the guard, on loopback; it holds no weights.

The pages' scripts come from this server alone. Those that NiceGUI writes into a page bear the
page's own nonce, so that the policy needs to let no other script of a page's text pass.
"""

import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from nicegui import app as nicegui_app
from nicegui import ui

from atelier.playground import layout
from atelier.playground.access import SecretAsked
from atelier.playground.address import image_state, text_state
from atelier.playground.bodies import BodyLimit
from atelier.playground.catalogue import Chosen, choices, chosen
from atelier.playground.image_page import ImagePage
from atelier.playground.layout import box, text
from atelier.playground.own import MAX_BYTES
from atelier.playground.page import State, VersionPage
from atelier.playground.text_page import TextPage
from atelier.services import credentials
from atelier.services.origin_guard import (
    App,
    Message,
    OriginGuard,
    Receive,
    Send,
    allowed,
    page_policy,
)
from tasks.families.family import Data
from tasks.families.table import FAMILIES
from tasks.playground.version_process import Versions
from tasks.runtime.messages import one_line

BYTES_AROUND_A_FILE = 1 << 16
"""What a form adds to a file: its name, its type, and the lines between."""
SECONDS_TO_RECONNECT = 30.0
"""How long a page that has fallen silent is waited for, before it begins from the beginning; it is
asked for a sign of life within 0.4 of that. A machine that trains meanwhile leaves pages and server
waiting for seconds."""
SECONDS_TO_READ = 60.0
"""The registry may be on a server that answers slowly, or not at all."""


def add_pages(versions: Versions) -> None:
    """Register the pages with NiceGUI."""

    @ui.page("/", response_timeout=SECONDS_TO_READ)
    async def overview(request: Request) -> Response | None:
        remarks = []
        if version := request.query_params.get("version", ""):
            try:
                found = await layout.waited(chosen, version)
                path = layout.PAGES[found.data]
                return RedirectResponse(f"{path}?a={quote(found.address, safe='/')}")
            except layout.UNREADABLE as error:
                remarks.append(one_line(error))
        listed = await _listed(None, remarks)
        with layout.frame("Playground", "/", remarks):
            if listed:
                _overview(listed)
            elif listed is not None:
                _nothing("any kind")
        return None

    _add_kind("text", versions, text_state, TextPage)
    _add_kind("images", versions, image_state, ImagePage)


def _add_kind(
    data: Data,
    versions: Versions,
    read: Callable[[Mapping[str, str]], tuple[State, list[str]]],
    page: type[VersionPage[State]],
) -> None:
    """Register the page of models of a kind; read: its state of an address, and remarks."""

    @ui.page(page.path, response_timeout=SECONDS_TO_READ)
    async def shown(request: Request) -> None:
        state, remarks = read(layout.query_parameters(request))
        listed = await _listed(data, remarks)
        if listed:
            a = await layout.waited(layout.found_or, listed[0].address, state.a, data, remarks)
            b = await layout.waited(layout.found_or, "", state.b, data, remarks)
        main = layout.frame(data.capitalize(), page.path, remarks)
        if listed:
            page(versions, replace(state, a=a, b=b), listed).build(main)
        elif listed is not None:
            with main:
                _nothing(data)


async def _listed(data: Data | None, remarks: list[str]) -> list[Chosen] | None:
    """The versions that there are; None where the registry cannot be read, and a remark says why.

    Read in a thread: a server far away, or a file that is locked, would keep all pages waiting.
    """
    try:
        return await layout.waited(choices, data)
    except layout.UNREADABLE as error:
        if (told := one_line(error)) not in remarks:
            remarks.append(told)
        return None


def _nothing(data: str) -> None:
    text(layout.NOTHING_TO_PLAY_WITH.format(data=data), "p", "hint")


def _overview(listed: list[Chosen]) -> None:
    """All champions, and the challengers beside them."""
    text(
        "Choose a champion. What a page shows stands in its address: keep it, or send it to"
        " somebody who has the same home.",
        "p",
        "hint intro",
    )
    with box("div", "cards"):
        for each in listed:
            if "champion" not in each.aliases:
                continue
            rival = next((other for other in listed if _challenges(other, each)), None)
            with box("article", "card"):
                path = layout.PAGES[each.data]
                address = f"{path}?a={quote(each.address, safe='/')}"
                ui.link(each.name, address).classes("name")
                text(f"Version {each.number}. {FAMILIES[each.family].purpose}", "p", "small")
                if rival is not None:
                    beside = f"{address}&b={quote(rival.address, safe='/')}"
                    ui.link(f"beside its challenger, version {rival.number}", beside)


def _challenges(other: Chosen, champion: Chosen) -> bool:
    return other.name == champion.name and "challenger" in other.aliases


class ScriptNonces:
    """ASGI: a nonce of its own for each page's scripts, and for no other."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on; of a page the whole text is awaited."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started: list[Message] = []
        parts: list[bytes] = []

        async def with_nonce(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_page(message):
                started.append(message)
            elif not started:
                await send(message)
            else:
                parts.append(message.get("body", b""))
                if not message.get("more_body"):
                    head, body = _with_nonce(started[0], b"".join(parts))
                    await send(head)
                    await send({"type": "http.response.body", "body": body})

        await self._app(scope, receive, with_nonce)


def _is_page(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/html")
        for name, value in start["headers"]
    )


def _with_nonce(start: Message, body: bytes) -> tuple[Message, bytes]:
    """A page whose script elements bear a nonce that its policy names.

    What people wrote stands in it escaped, without a "<".
    """
    nonce = secrets.token_urlsafe(18).encode()
    body = body.replace(b"<script", b'<script nonce="' + nonce + b'"')
    headers = [(name.lower(), value) for name, value in start["headers"]]
    policy = dict(headers)[b"content-security-policy"]
    policy = policy.replace(b"script-src", b"script-src 'nonce-" + nonce + b"'")
    new = {b"content-security-policy": policy, b"content-length": str(len(body)).encode()}
    kept = [(name, value) for name, value in headers if name not in new]
    return {**start, "headers": [*kept, *new.items()]}, body


def application(port: int, versions: Versions) -> App:
    """The pages, behind the guard.

    port: where they are served, as browsers name it.
    """
    pages = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_pages(versions)
    nicegui_app.config.socket_io_js_transports = ["websocket"]  # what the guard looks at once
    nicegui_app.on_shutdown(versions.close)
    ui.run_with(
        pages,
        title="Atelier playground",
        favicon="🎨",
        dark=None,
        tailwind=False,
        reconnect_timeout=SECONDS_TO_RECONNECT,
        show_welcome_message=False,
        gzip_middleware_factory=None,  # the nonces are put into a page's text
    )
    secret = credentials.secret(creates=False)
    limited: App = BodyLimit(pages, MAX_BYTES + BYTES_AROUND_A_FILE)
    inner: App = SecretAsked(limited, secret) if secret else limited
    hosts = allowed(port)
    return ScriptNonces(OriginGuard(inner, hosts, page_policy(hosts.origins), wants_json=False))


def serve(listener: socket.socket, environment: Callable[[], Mapping[str, str]] = dict) -> None:
    """Serve the pages at a socket that listens, until a signal comes.

    environment: what a process that loads a version finds besides that of this one.
    """
    port = int(listener.getsockname()[1])
    versions = Versions(environment=environment)
    config = uvicorn.Config(
        application(port, versions),
        host="127.0.0.1",
        port=port,
        loop="asyncio",
        http="h11",
        h11_max_incomplete_event_size=1 << 17,  # a page's address holds the prompt
        log_level="warning",
        timeout_graceful_shutdown=2,
    )
    try:
        uvicorn.Server(config).run([listener])
    finally:
        versions.close()
