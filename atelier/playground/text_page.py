"""The page of text: tokens coloured by surprise, their rivals, branches, copies, two versions."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nicegui import background_tasks, ui
from nicegui.element import Element

from atelier.playground import layout
from atelier.playground.address import MAX_PROMPT, MAX_SEED, MAX_TOKENS, TextState, query_of
from atelier.playground.catalogue import Chosen
from atelier.playground.layout import box, text
from tasks.playground.version_process import VersionFailed, VersionProcess, Versions

PATH = "/text"
SHADES = 8
"""Colours of surprise: one for each bit, the last for all above."""
_SPOKEN = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def visible(token: str) -> str:
    """A token's text with what cannot be seen drawn."""
    return "".join(_SPOKEN.get(each, each) for each in token) or "(part of a character)"


def shade(bits: float) -> int:
    """Which colour a surprise has."""
    return min(SHADES - 1, int(bits))


def percent(probability: float) -> str:
    """A probability for people."""
    if probability <= 0:
        return "0"
    if probability < 0.0001:
        return "< 0.01 %"
    return f"{100 * probability:.2f} %" if probability < 0.01 else f"{100 * probability:.1f} %"


class TextPage:
    """The state of one tab."""

    def __init__(self, versions: Versions, state: TextState, listed: list[Chosen]) -> None:
        """listed: the versions of text models, of which there is one at least."""
        self.state = state
        self._versions, self._listed = versions, listed
        self._client = ui.context.client
        self._latest, self._latest_rivals = layout.Latest(), layout.Latest()
        self._panels: dict[str, TextPanel] = {}

    def build(self, main: Element) -> None:
        """Put the page together, and begin to write."""
        state = self.state
        with main:
            with box("section", "choices"):
                self._choice_a = layout.version_choice(
                    "version", self._listed, state.a, lambda value: self._set_version("a", value)
                )
                self._choice_b = layout.version_choice(
                    "beside it, with the same seed",
                    self._listed,
                    state.b,
                    lambda value: self._set_version("b", value),
                    none="nothing",
                )
            with box("section", "ask"):
                self._prompt = (
                    ui.textarea(label="prompt", value=state.prompt)
                    .props(f"autogrow outlined dense maxlength={MAX_PROMPT} debounce=500")
                    .classes("prompt")
                )
                self._prompt.on_value_change(
                    lambda event: self._set(prompt=(event.value or "")[:MAX_PROMPT])
                )
                self._build_controls()
            self._columns = box("section", "columns")
            with self._columns:
                with box("div", "texts"):
                    for side in ("a", "b"):
                        self._panels[side] = TextPanel(self, side)
                self._rivals = box("aside", "rivals")
            self._show_hint()
            with box("footer", "legend"):
                text("surprise in bits:")
                for each in range(SHADES):
                    more = "+" if each == SHADES - 1 else ""
                    text(f"{each}{more}", "span", f"t s{each}")
                text("copied from the training text", "span", "t copied")
                text("chosen by you", "span", "t forced")
        layout.begin_once_connected(self._client, lambda: self._spawn(self.restart(first=True)))

    def _build_controls(self) -> None:
        state = self.state
        with box("div", "controls"):
            layout.slider(
                "temperature",
                0.05,
                2.0,
                0.05,
                state.temperature,
                lambda value: self._set(temperature=round(value, 2)),
            )
            layout.slider(
                "top-p",
                0.05,
                1.0,
                0.05,
                state.top_p,
                lambda value: self._set(top_p=round(value, 2)),
            )
            layout.slider(
                "min-p", 0.0, 0.5, 0.01, state.min_p, lambda value: self._set(min_p=round(value, 2))
            )
            layout.number(
                "top-k (0: all)", 0, 10**9, state.top_k, lambda value: self._set(top_k=value)
            )
            layout.number(
                "tokens", 1, MAX_TOKENS, state.tokens, lambda value: self._set(tokens=value)
            )
            self._seed = layout.number(
                "seed", 0, MAX_SEED, state.seed, lambda value: self._set(seed=value)
            )
            ui.button("next seed", icon="casino", on_click=self._next_seed).props(
                "unelevated no-caps dense"
            ).classes("next")

    def _next_seed(self) -> None:
        self._seed.value = (self.state.seed + 1) % MAX_SEED

    def _set_version(self, side: str, address: str) -> None:
        if getattr(self.state, side) != address:
            self._set(**{side: address})

    def _set(self, **changes: Any) -> None:
        """Take over what a control says; branches and rivals are of the text before."""
        if all(getattr(self.state, name) == value for name, value in changes.items()):
            return
        self.state = replace(self.state, **changes, chosen_a={}, chosen_b={}, at="")
        self._latest_rivals.begin()
        self._show_address()
        self._show_hint()
        self._spawn(self.restart())

    def _spawn(self, work: Any) -> None:
        background_tasks.create(work, name="playground text")

    def _show_address(self) -> None:
        layout.show_address(self._client, PATH, query_of(self.state))

    async def restart(self, first: bool = False) -> None:
        """Write all texts anew, once the controls rest."""
        if not first and not await self._latest.rest():
            return
        await asyncio.gather(*(panel.restart() for panel in self._panels.values()))

    def process_of(self, side: str) -> VersionProcess | None:
        """The process of a side's version; None where there is none on that side."""
        address = getattr(self.state, side)
        if not address:
            return None
        name, _, number = address.partition("/")
        return self._versions.get(name, int(number))

    def words_of(self, side: str) -> str:
        """What a side's version is called."""
        address = getattr(self.state, side)
        return next((each.words for each in self._listed if each.address == address), address)

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
        self._show_address()
        self._spawn(self._panels[side].restart())

    def open_token(self, side: str, place: int) -> None:
        """Show the rivals of a token."""
        self.state = replace(self.state, at=f"{side}:{place}")
        self._show_address()
        self._spawn(self.show_rivals())

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
        side, _, place = self.state.at.partition(":")
        panel = self._panels.get(side)
        if panel is None or not 0 <= int(place) < len(panel.tokens):
            return
        is_wanted = self._latest_rivals.begin()
        tokens = panel.tokens
        token = tokens[int(place)]
        written = [each["token"] for each in tokens[: int(place)]]
        try:
            process = await layout.waited(self.process_of, side)
            if process is None:
                return
            found = await layout.waited(
                process.answer,
                "rivals",
                request=self.request_of(side),
                written=written,
                token=token["token"],
            )
        except VersionFailed as error:
            if is_wanted():
                panel.complain(str(error))
            return
        if not is_wanted() or panel.tokens is not tokens:
            return
        for each in self._panels.values():
            each.mark(int(place) if each is panel else None)
        panel.scroll_to(int(place))
        self._rivals.clear()
        self._rivals.classes("open")
        with self._rivals:
            _Rivals(self, side, int(place), token, found).build()

    def close_rivals(self) -> None:
        """Back to no token."""
        for panel in self._panels.values():
            panel.mark(None)
        self._latest_rivals.begin()
        self.state = replace(self.state, at="")
        self._show_address()
        self._show_hint()


class _Rivals:
    """The panel about one token."""

    def __init__(
        self, page: TextPage, side: str, place: int, token: Mapping[str, Any], found: Any
    ) -> None:
        self._page, self._side, self._place, self._token, self._found = (
            *(page, side, place, token),
            found,
        )

    def build(self) -> None:
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


class TextPanel:
    """What one version writes."""

    def __init__(self, page: TextPage, side: str) -> None:
        self.tokens: list[dict[str, Any]] = []
        self._page, self._side = page, side
        self._latest = layout.Latest()
        self._spans: list[Element] = []
        self._marked: int | None = None
        self._root = box("article", "panel")
        with self._root:
            with box("div", "head"):
                self._title = text("", "h2")
                self._status = text("", "span", "status").props("role=status")
                self._stop = ui.button("stop", on_click=self._end).props("flat dense no-caps")
            self._flow = box("div", "flow")
        self._stop.set_visibility(False)
        self._client = ui.context.client

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
        self._status.set_text("")
        self._status.classes(remove="busy")
        self._stop.set_visibility(False)
        with self._flow:
            text(message, "p", "failure").props("role=alert")
            ui.button("try again", on_click=self.restart).props("outline dense no-caps")

    def _end(self) -> None:
        self._latest.begin()
        self._stop.set_visibility(False)
        self._status.set_text(f"stopped after {len(self.tokens)} tokens")

    async def restart(self) -> None:
        """Write from the beginning."""
        is_wanted = self._latest.begin()
        self._spans, self.tokens, self._marked = [], [], None
        self._flow.clear()
        self._root.set_visibility(bool(getattr(self._page.state, self._side)))
        self._title.set_text(self._page.words_of(self._side))
        try:
            process = await layout.waited(self._page.process_of, self._side)
            if process is None:
                return
            self._status.set_text("loading: its files are verified first ...")
            self._status.classes("busy")
            facts = await layout.waited(process.facts)
            if not is_wanted():
                return
            self._status.classes(remove="busy")
            if self._side == "a":
                self._page.begin_prompt(facts["prompt"])
            self._status.set_text("writing ...")
            self._stop.set_visibility(True)
            await self._write(process, is_wanted)
            if not is_wanted() or self._client.is_deleted:
                return
            self._stop.set_visibility(False)
            self._tell()
            if self._page.state.at.startswith(f"{self._side}:"):
                await self._page.show_rivals()
            if facts["has_training"]:
                await self._underline(process, is_wanted)
        except VersionFailed as error:
            if is_wanted():
                self.complain(str(error))

    async def _write(self, process: VersionProcess, is_wanted: Any) -> None:
        answers = process.ask("write", request=self._page.request_of(self._side))
        batches = layout.batches(answers)
        async for batch in batches:
            if not is_wanted() or self._client.is_deleted:
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
            self._page.open_token(self._side, place)

        span.on("click", opened).on("keydown.enter", opened)
        return span

    def _tell(self) -> None:
        characters = sum(len(each["text"]) for each in self.tokens)
        bits = sum(each["bits"] for each in self.tokens)
        self._status.set_text(
            f"{len(self.tokens):,} tokens, {bits / max(1, characters):.2f} bits a character"
        )

    async def _underline(self, process: VersionProcess, is_wanted: Any) -> None:
        """Mark what stands in the training text as it was written."""
        whole = "".join(each["text"] for each in self.tokens)
        found = await layout.waited(process.answer, "copies", text=whole)
        if not is_wanted():
            return
        start, longest = 0, 0
        spans = found["spans"]
        for token, span in zip(self.tokens, self._spans, strict=True):
            end = start + len(token["text"])
            covering = [n for first, n in spans if first < end and start < first + n]
            if covering and start < end:
                span.classes("copied")
                told = span.props["title"]
                span.props["title"] = f"{told}; part of a copy of {max(covering)} characters"
            start = end
        longest = max((n for _, n in spans), default=0)
        self._status.set_text(
            f"{self._status.text}; "
            + (
                f"longest copy {longest} characters"
                if longest
                else f"no copy of {found['min_characters']} characters"
            )
        )
