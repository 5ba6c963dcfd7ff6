"""The panel about one token: its rivals, and in a model of counts the context that decided."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nicegui import ui

from atelier.playground.layout import box, text

if TYPE_CHECKING:
    from atelier.playground.text_page import TextPage

_SPOKEN = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def visible(token: str) -> str:
    """A token's text with what cannot be seen drawn."""
    return "".join(_SPOKEN.get(each, each) for each in token) or "(part of a character)"


def percent(probability: float) -> str:
    """A probability for people."""
    if probability <= 0:
        return "0"
    if probability < 0.0001:
        return "< 0.01 %"
    return f"{100 * probability:.2f} %" if probability < 0.01 else f"{100 * probability:.1f} %"


class Rivals:
    """The panel about one token."""

    def __init__(
        self, page: "TextPage", side: str, place: int, token: Mapping[str, Any], found: Any
    ) -> None:
        self._page, self._side, self._place, self._token, self._found = (
            *(page, side, place, token),
            found,
        )

    def build(self) -> None:
        """Put it together."""
        found = self._found
        with box("div", "head"):
            text(visible(self._token["text"]), "b", "glyph")
            text(f"{found['bits']:.1f} bits, rank {found['rank']:,}")
            ui.button(icon="close", on_click=self._page.close_rivals).props(
                'flat round dense size=sm aria-label="close"'
            )
        with box("table", "bars"):
            with box("tr"):
                for name in ("token", "before", "after"):
                    text(name, "th")
            for rival in found["rivals"]:
                self._row(rival)
        text(
            f"{found['num_left']:,} tokens are left after temperature, top-k, top-p and min-p.",
            "p",
            "small",
        )
        if found["levels"]:
            self._levels(found["levels"])

    def _row(self, rival: Mapping[str, Any]) -> None:
        is_it = rival["token"] == self._token["token"]
        row = box("tr", "rival it" if is_it else "rival")
        row.props(f"tabindex=0 role=button data-token={rival['token']}")

        def choose() -> None:
            self._page.choose(self._side, self._place, rival["token"])

        row.on("click", choose).on("keydown.enter", choose)
        with row:
            with box("td"):
                text(visible(rival["text"]), "b", "glyph")
            for name in ("before", "after"):
                with box("td"):
                    _bar(rival[name], "left out" if name == "after" else "0")

    def _levels(self, levels: list[Mapping[str, Any]]) -> None:
        """Which context decided, and what each shorter one was left."""
        total = sum(level["part"] for level in levels) or 1.0
        deciding = max(levels, key=lambda level: level["part"])
        with box("p", "decided"):
            if deciding["context_length"]:
                text("Decided by the last ")
                text(
                    f"{deciding['context_length']} tokens "
                    if deciding["context_length"] > 1
                    else "token "
                )
                text(visible(deciding["context"]), "b", "glyph")
            elif deciding["order"]:
                text("Decided by how often the token occurs at all")
            else:
                text("Nothing that was counted speaks for it: all tokens share the rest")
        with box("table", "bars levels"):
            with box("tr"):
                for name in ("context", "seen", "part of its probability"):
                    text(name, "th")
            for level in levels:
                with box("tr", "it" if level is deciding else ""):
                    with box("td"):
                        told = (
                            visible(level["context"])
                            if level["context_length"]
                            else ("(no context)" if level["order"] else "(all tokens alike)")
                        )
                        text(told, "b", "glyph")
                    text(f"{level['occurrences']:,}" if level["order"] else "", "td")
                    with box("td"):
                        _bar(level["part"] / total, "-")
        text(
            "From the longest context down: where a token was not seen, or seldom, the model backs"
            " off to the next shorter one.",
            "p",
            "small",
        )


def _bar(share: float, nothing: str) -> None:
    """A share as a bar with its number."""
    with box("div", "bar" if share > 0 else "bar none"):
        box("i").style(f"width: {100 * min(1.0, share):.2f}%")
        text(percent(share) if share > 0 else nothing)
