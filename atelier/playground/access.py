"""Who may see the playground's pages where the home has a secret: whoever knows it."""

import base64
import hmac

from atelier.services.credentials import Secret
from atelier.services.origin_guard import App, Message, Receive, Send


class SecretAsked:
    """ASGI: asks for the home's user and password, by HTTP's Basic scheme, at each request.

    Browsers ask the person once, and then send both, with a web socket of the page too.
    """

    def __init__(self, app: App, secret: Secret) -> None:
        self._app = app
        self._wanted = b"Basic " + base64.b64encode(str(secret).encode())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on, or ask. The server's own start and stop pass through."""
        if scope["type"] not in ("http", "websocket") or self._is_known(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "log in first"})
        else:
            headers = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"www-authenticate", b'Basic realm="atelier", charset="UTF-8"'),
            ]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b"the home's secret is wanted"})

    def _is_known(self, scope: Message) -> bool:
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._wanted)
