"""Where `atelier play` shows a version, for pages that link to it whether it runs or not."""

from urllib.parse import quote

PLAY_PORT = 5050
"""Where it listens unless that is taken or a person names another."""


def play_url(name: str, version: int) -> str:
    """The page on which to play with a registered version, once `atelier play` runs."""
    return f"http://127.0.0.1:{PLAY_PORT}/?version={quote(name, safe='')}/{version}"
