"""The page of text: tokens coloured by surprise, their rivals, branches, copies, two versions."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nicegui import ui
from nicegui.element import Element

from atelier.playground import layout
from atelier.playground.address import MAX_PROMPT, MAX_TOKENS, TextState
from atelier.playground.layout import box, text
from atelier.playground.page import SIDES, VersionPage, VersionPanel
from atelier.playground.rivals import Rivals, visible
from tasks.playground.version_process import VersionFailed, VersionProcess

SHADES = 8
"""Colours of surprise: one for each bit, the last for all above."""


def shade(bits: float) -> int:
    """Which colour a surprise has."""
    return min(SHADES - 1, int(bits))


class TextPage(VersionPage[TextState]):
    """The state of one tab."""

    path = layout.PAGES["text"]
    panels: Mapping[str, "TextPanel"]

    def _build_content(self) -> None:
        with box("section", "ask"):
            self._prompt = (
                ui.textarea(label="prompt", value=self.state.prompt)
                .props(f"autogrow outlined dense maxlength={MAX_PROMPT} debounce=500")
                .classes("prompt")
            )
            self._prompt.on_value_change(
                lambda event: self.change(prompt=(event.value or "")[:MAX_PROMPT])
            )
            with box("div", "controls"):
                self._build_controls()
        with box("section", "columns"):
            with box("div", "texts"):
                self.panels = {side: TextPanel(self, side) for side in SIDES}
            self._rivals = box("aside", "rivals")
        self._latest_rivals = layout.Latest()
        self._show_hint()
        with box("footer", "legend"):
            text("surprise in bits:")
            for each in range(SHADES):
                more = "+" if each == SHADES - 1 else ""
                text(f"{each}{more}", "span", f"t s{each}")
            text("copied from the training text", "span", "t copied")
            text("chosen by you", "span", "t forced")

    def _build_controls(self) -> None:
        state = self.state
        self._build_temperature()
        layout.slider(
            "top-p", 0.05, 1.0, 0.05, state.top_p, lambda value: self.change(top_p=round(value, 2))
        )
        layout.slider(
            "min-p", 0.0, 0.5, 0.01, state.min_p, lambda value: self.change(min_p=round(value, 2))
        )
        layout.number(
            "top-k (0: all)", 0, 10**9, state.top_k, lambda value: self.change(top_k=value)
        )
        layout.number(
            "tokens", 1, MAX_TOKENS, state.tokens, lambda value: self.change(tokens=value)
        )
        self._build_seed()

    def change(self, **changes: Any) -> None:
        """Take over what a control says; branches and rivals are of the text before."""
        before = self.state
        super().change(**changes)
        if self.state is not before:
            self._latest_rivals.begin()
            self._show_hint()

    def _forgotten(self) -> dict[str, Any]:
        return {"chosen_a": {}, "chosen_b": {}, "at": ""}

    def chosen_on(self, side: str) -> Mapping[int, int]:
        """The tokens that the person chose."""
        found: Mapping[int, int] = getattr(self.state, f"chosen_{side}")
        return found

    def request_of(self, side: str) -> dict[str, Any]:
        """What the process of a side is asked to write."""
        state = self.state
        return {
            "prompt": state.prompt,
            "num_tokens": state.tokens,
            "seed": state.seed,
            "temperature": state.temperature,
            "top_k": state.top_k,
            "top_p": state.top_p,
            "min_p": state.min_p,
            "forced": dict(self.chosen_on(side)),
        }

    def begin_prompt(self, prompt: str) -> None:
        """Tell which prompt of the first version stands for an empty one."""
        told = " ".join(visible(prompt[-40:]).split())
        self._prompt.props["placeholder"] = f"the version's own: {told}"
        self._prompt.props["stack-label"] = True

    def choose(self, side: str, place: int, token: int) -> None:
        """Go on from another token than the one that was drawn."""
        before = {at: each for at, each in self.chosen_on(side).items() if at < place}
        chosen: dict[str, Any] = {f"chosen_{side}": {**before, place: token}}
        self.state = replace(self.state, **chosen, at=f"{side}:{place}")
        self._latest_rivals.begin()
        self.show_address()
        self.spawn(self.panels[side].restart())

    def open_token(self, side: str, place: int) -> None:
        """Show the rivals of a token."""
        self.state = replace(self.state, at=f"{side}:{place}")
        self.show_address()
        self.spawn(self.show_rivals())

    def _show_hint(self) -> None:
        self._rivals.clear()
        self._rivals.classes(remove="open")
        with self._rivals:
            text(
                "Click a token: what else could have come there, how likely it was before and"
                " after temperature and filters, and why. Click one of those to go on from it.",
                "p",
                "hint",
            )

    async def show_rivals(self) -> None:
        """Fill the panel with the rivals of the token that the state names."""
        side, _, told = self.state.at.partition(":")
        panel = self.panels.get(side)
        if panel is None or not (place := int(told)) < len(panel.tokens):
            return
        is_wanted, tokens = self._latest_rivals.begin(), panel.tokens
        try:
            found = await self.answer(
                side,
                "rivals",
                request=self.request_of(side),
                written=[each["token"] for each in tokens[:place]],
                token=tokens[place]["token"],
            )
        except VersionFailed as error:
            if is_wanted():
                panel.complain(str(error))
            return
        if found is None or not is_wanted() or panel.tokens is not tokens:
            return
        self._mark(panel, place)
        panel.scroll_to(place)
        self._rivals.clear()
        self._rivals.classes("open")
        with self._rivals:
            Rivals(self, side, place, tokens[place], found).build()

    def _mark(self, panel: "TextPanel | None", place: int) -> None:
        """Show of one token, and of no other, that the rivals are of it."""
        for each in self.panels.values():
            each.mark(place if each is panel else None)

    def close_rivals(self) -> None:
        """Back to no token."""
        self._mark(None, 0)
        self._latest_rivals.begin()
        self.state = replace(self.state, at="")
        self.show_address()
        self._show_hint()


class TextPanel(VersionPanel):
    """What one version writes."""

    def __init__(self, page: TextPage, side: str) -> None:
        super().__init__(page, side)
        self.tokens: list[dict[str, Any]] = []
        self._page = page
        self._spans: list[Element] = []
        self._marked: int | None = None
        with self._head:
            self._stop = ui.button("stop", on_click=self._end).props("flat dense no-caps")
        with self._root:
            self._flow = box("div", "flow")
        self._stop.set_visibility(False)

    def mark(self, place: int | None) -> None:
        """Show which token the rivals are of."""
        for each in (self._marked, place):
            if each is not None and each < len(self._spans):
                self._spans[each].classes(toggle="marked")
        self._marked = place

    def scroll_to(self, place: int) -> None:
        """On a narrow screen the rivals cover its lower part: bring the token above them."""
        with self._root:
            ui.run_javascript(
                f"if (innerWidth <= 860) getHtmlElement({self._spans[place].id})"
                '?.scrollIntoView({block: "center"})'
            )

    def complain(self, message: str) -> None:
        """Say why there is nothing, or no more."""
        self._stop.set_visibility(False)
        self._say_failure(self._flow, message)

    def _end(self) -> None:
        self._latest.begin()
        self._stop.set_visibility(False)
        self._status.set_text(f"stopped after {len(self.tokens)} tokens")

    def _clear(self) -> None:
        self._spans, self.tokens, self._marked = [], [], None
        self._flow.clear()

    async def _show(
        self, process: VersionProcess, facts: dict[str, Any], is_wanted: Callable[[], bool]
    ) -> None:
        if self.side == "a":
            self._page.begin_prompt(facts["prompt"])
        self._status.set_text("writing ...")
        self._stop.set_visibility(True)
        await self._write(process, is_wanted)
        if not is_wanted():
            return
        self._stop.set_visibility(False)
        self._tell()
        if self._page.state.at.startswith(f"{self.side}:"):
            await self._page.show_rivals()
        if facts["has_training"]:
            await self._underline(process, is_wanted)

    async def _write(self, process: VersionProcess, is_wanted: Callable[[], bool]) -> None:
        answers = process.ask("write", request=self._page.request_of(self.side))
        batches = layout.batches(answers)
        async for batch in batches:
            if not is_wanted():
                await batches.aclose()
                return
            with self._flow:
                for token in batch:
                    if "prompt" in token:
                        text(token["prompt"], "span", "given")
                    else:
                        self.tokens.append(token)
                        self._spans.append(self._span(token))

    def _span(self, token: Mapping[str, Any]) -> Element:
        kind = " forced" if token["forced"] else ""
        kind += " newline" if token["text"].endswith("\n") else ""
        span = text(token["text"], "span", f"t s{shade(token['bits'])}{kind}")
        span.props(f'tabindex=0 title="{token["bits"]:.1f} bits, rank {token["rank"]:,}"')
        place = token["place"]

        def opened() -> None:
            self._page.open_token(self.side, place)

        span.on("click", opened).on("keydown.enter", opened)
        return span

    def _tell(self) -> None:
        characters = sum(len(each["text"]) for each in self.tokens)
        bits = sum(each["bits"] for each in self.tokens)
        self._status.set_text(
            f"{len(self.tokens):,} tokens, {bits / max(1, characters):.2f} bits a character"
        )

    async def _underline(self, process: VersionProcess, is_wanted: Callable[[], bool]) -> None:
        """Mark what stands in the training text as it was written."""
        whole = "".join(each["text"] for each in self.tokens)
        found = await layout.waited(process.answer, "copies", text=whole)
        if not is_wanted():
            return
        start, spans = 0, found["spans"]
        for token, span in zip(self.tokens, self._spans, strict=True):
            end = start + len(token["text"])
            covering = [n for first, n in spans if first < end and start < first + n]
            if covering and start < end:
                span.classes("copied")
                told = span.props["title"]
                span.props["title"] = f"{told}; part of a copy of {max(covering)} characters"
            start = end
        longest = max((n for _, n in spans), default=0)
        told = (
            f"longest copy {longest} characters"
            if longest
            else f"no copy of {found['min_characters']} characters"
        )
        self._status.set_text(f"{self._status.text}; {told}")
