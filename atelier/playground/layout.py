"""What all pages share: the frame, the choice of versions, and how a page waits for a process."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nicegui import Client, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from atelier.playground.catalogue import Chosen, chosen
from tasks.families.family import Data
from tasks.runtime.messages import one_line

STYLE = Path(__file__).with_name("style.css")
PAGES: dict[Data, str] = {"text": "/text", "images": "/images"}
NOTHING_TO_PLAY_WITH = "no model of {data} is registered yet: `atelier run` trains some"
ACCENT = "#c2530f"
"""Of buttons and sliders: legible on both papers."""
UNREADABLE = (OSError, ValueError)
"""BadInput, DamagedRecord, and TrackingUnavailable where the registry is a server."""
SECONDS_OF_A_BATCH = 0.12
SECONDS_OF_REST = 0.25
"""How long a control rests before what it asks for is computed: sliders move in many steps."""

Result = TypeVar("Result")
_WAITING = ThreadPoolExecutor(64, "playground")
"""Threads that wait for the processes of versions; they do nothing else."""


def text(words: str, tag: str = "span", classes: str = "") -> TextElement:
    """Words in an element of their own: text, never markup, wherever they come from."""
    return TextElement(tag=tag, text=words).classes(classes)


def box(tag: str = "div", classes: str = "") -> Element:
    """An element to put others in."""
    return Element(tag).classes(classes)


def frame(title: str, active: str, remarks: Sequence[str] = ()) -> Element:
    """The page's head, and what its address said wrongly; returns what the page is put in."""
    ui.page_title(f"{title} · Atelier")
    ui.add_css(STYLE)
    ui.colors(primary=ACCENT)
    dark = ui.dark_mode(None)
    with box("header", "top"), box("div", "inner"):
        ui.link("Atelier playground", "/").classes("brand")
        with box("nav"):
            for data, path in PAGES.items():
                link = ui.link(data.capitalize(), path)
                if path == active:
                    link.classes("active").props('aria-current="page"')
        toggle = ui.button(icon="contrast", on_click=lambda: _turn(dark)).props("flat round dense")
        toggle.props('aria-label="light or dark"').classes("contrast")
    main = box("div", "stage")
    with main:
        for remark in remarks:
            text(remark, "p", "remark").props("role=status")
    return main


def _turn(dark: ui.dark_mode) -> None:
    dark.value = not dark.value


def version_choice(
    label: str,
    versions: Sequence[Chosen],
    value: str,
    on_change: Callable[[str], Any],
    *,
    none: str = "",
) -> ui.select:
    """A menu of versions by their address; none: the words of no version, if that may be chosen."""
    options = {each.address: each.words for each in versions}
    if none:
        options = {"": none, **options}
    choice = ui.select(options, value=value, label=label, with_input=len(options) > 8)
    choice.on_value_change(lambda event: on_change(event.value or ""))
    return choice.props("dense outlined options-dense").classes("version")


def slider(
    label: str,
    low: float,
    high: float,
    step: float,
    value: float,
    on_change: Callable[[float], Any],
) -> ui.slider:
    """A slider with its name and value above it."""
    with box("label", "control"):
        with box("span", "told"):
            text(label)
            told = text(f"{value:g}", "output")
        made = ui.slider(min=low, max=high, step=step, value=min(high, max(low, value)))
        made.props(f'dense aria-label="{label}"')
        made.on_value_change(lambda event: told.set_text(f"{event.value:g}"))
        made.on_value_change(lambda event: on_change(float(event.value)))
    return made


def number(
    label: str, low: int, high: int, value: int, on_change: Callable[[int], Any]
) -> ui.number:
    """A field for a whole number; what is none is not taken."""

    def take(given: float | None) -> None:
        if given is not None and low <= given <= high and given == int(given):
            on_change(int(given))

    made = ui.number(
        label=label,
        value=value,
        min=low,
        max=high,
        precision=0,
        validation={
            f"{low} to {high}": lambda given: (
                given is not None and low <= given <= high and given == int(given)
            )
        },
    )
    made.on_value_change(lambda event: take(event.value))
    return made.props("dense outlined hide-bottom-space").classes("number")


async def waited(ask: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """What a function returns that waits for a process, while the page lives on."""
    work = partial(ask, *arguments, **named)
    return await asyncio.get_running_loop().run_in_executor(_WAITING, work)


async def batches(answers: Iterator[Any]) -> AsyncGenerator[list[Any], None]:
    """What an iterator gives that waits for a process, as much at a time as came in a moment.

    A browser draws the whole page for whatever is new in it.
    """
    try:
        while batch := await waited(_batch, answers):
            yield batch
    finally:
        close = getattr(answers, "close", None)
        if close is not None:
            await waited(close)


def _batch(answers: Iterator[Any]) -> list[Any]:
    batch: list[Any] = []
    until = time.monotonic() + SECONDS_OF_A_BATCH
    while (not batch or time.monotonic() < until) and (answer := next(answers, None)) is not None:
        batch.append(answer)
    return batch


class Latest:
    """Tells whether what was begun last is still what is wanted."""

    def __init__(self) -> None:
        self._number = 0

    def begin(self) -> Callable[[], bool]:
        """From now on only this is wanted; returns whether that is still so."""
        self._number += 1
        mine = self._number
        return lambda: mine == self._number

    async def rest(self) -> bool:
        """Wait for a control to rest; whether nothing was begun meanwhile."""
        is_wanted = self.begin()
        await asyncio.sleep(SECONDS_OF_REST)
        return is_wanted()


def begin_once_connected(client: Client, begin: Callable[[], Any]) -> None:
    """Begin a page's work when its own socket has come, which the guard lets no other page open.

    The page itself is a plain GET, which any page of the web can cause, and a prefetch too.
    """
    waiting = [begin]

    def begin_first_time() -> None:
        if waiting:  # a socket that was lost comes again
            waiting.pop()()

    client.on_connect(begin_first_time)


def show_address(client: Client, path: str, query: str) -> None:
    """Let the browser's address tell the page's state, without a new page in its history."""
    with client:
        ui.navigate.history.replace(f"{path}?{query}" if query else path)


def found_or(default: str, wanted: str, data: Data, remarks: list[str]) -> str:
    """The address of the version that is wanted, or a default; says why it is not the wanted."""
    if wanted:
        try:
            return chosen(wanted, data).address
        except UNREADABLE as error:
            remarks.append(one_line(error))
    return default


def query_parameters(request: Any) -> Mapping[str, str]:
    """What stands behind the question mark of a page's address; of a name that comes twice, one."""
    return dict(request.query_params)
