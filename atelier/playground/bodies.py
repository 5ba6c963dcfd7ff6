"""How much a request may bring: what is sent is written to disk before any page sees it."""

from atelier.services.origin_guard import App, Message, Receive, Send


class BodyLimit:
    """ASGI: refuses bodies that are larger than a limit, or that do not say how large they are."""

    def __init__(self, app: App, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on, or refuse; the server's parser lets no body be longer than it says."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        status, reason = refusal
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"connection", b"close"),  # the body of the request is left unread
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reason.encode()})

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and reason, or None for a request that is well."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        if b"transfer-encoding" in headers:
            return 411, "a body must say how long it is"
        if int(headers.get(b"content-length", b"0")) > self._max_bytes:
            return 413, f"a body may have {self._max_bytes:,} bytes at most"
        return None
