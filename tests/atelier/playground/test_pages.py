"""What the two pages do when a person uses them: by NiceGUI's simulated user, without a browser."""

import asyncio
import base64
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("nicegui", reason="the extra `play` is not installed")

from nicegui import ElementFilter, background_tasks, ui
from nicegui.testing import User

from atelier.playground import catalogue, layout, rivals, text_page
from atelier.playground.own import MAX_BYTES
from atelier.playground.rivals import percent, visible
from atelier.playground.text_page import shade
from tasks.store.files import BadInput
from tasks.tracking.mlflow_client import TrackingUnavailable
from tests.atelier.playground.conftest import Shelf, Visit

RETRIES = 60  # of a tenth of a second: what runs in threads is waited for


def of_class(user: User, name: str) -> list[Any]:
    with user:
        return [each for each in ElementFilter() if name in each.classes]


def tokens(user: User) -> list[Any]:
    """The written tokens, without the legend's."""
    return [each for each in of_class(user, "t") if "title" in each.props]


def click(element: Any) -> None:
    """What the browser sends for a click."""
    for listener in element._event_listeners.values():
        if listener.type == "click":
            element._handle_event({"listener_id": listener.id, "args": {}})


async def until(user: User, text: str) -> None:
    await user.should_see(text, retries=RETRIES)


async def eventually(is_so: Callable[[], bool]) -> None:
    for _ in range(10 * RETRIES):
        if is_so():
            return
        await asyncio.sleep(0.01)
    assert is_so()


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the browser's address was set to."""
    found: list[str] = []

    def note(_: Any, path: str, query: str) -> None:
        found.append(f"{path}?{query}")

    monkeypatch.setattr(layout, "show_address", note)
    return found


def test_tokens_rivals_and_a_branch(visit: Visit, shelf: Shelf, addresses: list[str]) -> None:
    async def scenario(user: User) -> None:
        await user.open("/text?a=tale-ngram/2&prompt=%CE%BB&seed=4&tokens=30&temperature=1")
        await until(user, "bits a character")
        written = tokens(user)
        assert len(written) == 30
        model = shelf.get("tale-ngram", 2)
        _, *wanted = model.ask(
            "write", request={"prompt": "λ", "num_tokens": 30, "seed": 4, "temperature": 1.0}
        )
        assert [each.text for each in written] == [each["text"] for each in wanted]
        shades = [int(next(c for c in each.classes if c[1:].isdigit())[1:]) for each in written]
        assert shades == [shade(each["bits"]) for each in wanted]

        click(written[5])
        await until(user, "tokens are left after temperature")
        await user.should_see("part of its probability")
        with user:
            heads = [each.text for each in ElementFilter() if each.tag == "th"]
        assert heads[-3:] == ["context", "seen", "part of its probability"]
        rows = of_class(user, "rival")
        assert len(rows) >= 10
        before = "/text?a=tale-ngram/2&prompt=%CE%BB&seed=4&temperature=1&tokens=30"
        assert addresses[-1] == f"{before}&at=a:5"
        other = next(each for each in rows if "it" not in each.classes)
        click(other)
        for _ in range(RETRIES):
            again = tokens(user)
            if len(again) == 30 and "forced" in again[5].classes:
                break
            await asyncio.sleep(0.1)
        assert addresses[-1] == f"{before}&chosen_a=5:{other.props['data-token']}&at=a:5"
        assert [each.text for each in again[:5]] == [each.text for each in written[:5]]
        assert "forced" in again[5].classes

    visit(scenario)


def test_the_rivals_of_a_text_that_is_gone_are_not_shown(
    visit: Visit, shelf: Shelf, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    build = rivals.Rivals.build

    def noted(panel: Any) -> None:
        built.append(panel._place)
        build(panel)

    monkeypatch.setattr(rivals.Rivals, "build", noted)

    async def scenario(user: User) -> None:
        await user.open("/text?a=tale-ngram/2&tokens=30")
        await until(user, "bits a character")
        click(tokens(user)[5])
        await until(user, "tokens are left after temperature")
        other = next(each for each in of_class(user, "rival") if "it" not in each.classes)
        held = shelf.get("tale-ngram", 2)
        asked, has_arrived = held.ask, threading.Event()
        gates = {"rivals": threading.Event(), "write": threading.Event()}

        def slow(what: str, **arguments: Any) -> Iterator[Any]:
            has_arrived.set()
            if what in gates:
                assert gates[what].wait(30)
            yield from asked(what, **arguments)

        monkeypatch.setattr(held, "ask", slow)
        built.clear()
        before = set(background_tasks.running_tasks)
        click(tokens(user)[5])
        (late,) = set(background_tasks.running_tasks) - before
        assert await asyncio.to_thread(has_arrived.wait, 30)
        click(other)
        await eventually(lambda: not tokens(user))
        gates["rivals"].set()
        await late
        assert built == []
        gates["write"].set()
        await eventually(lambda: bool(built))
        assert built == [5] and "forced" in tokens(user)[5].classes

    visit(scenario)


def test_one_token_is_marked_and_the_first_version_says_the_prompt(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    begin_prompt = text_page.TextPage.begin_prompt

    def noted(page: text_page.TextPage, prompt: str) -> None:
        told.append(prompt)
        begin_prompt(page, prompt)

    monkeypatch.setattr(text_page.TextPage, "begin_prompt", noted)

    async def scenario(user: User) -> None:
        await user.open("/text?a=tale-ngram/2&b=tale-gpt/1&tokens=8&at=b:3")
        await until(user, "tokens are left after temperature")
        await eventually(lambda: len(tokens(user)) == 16)
        click(tokens(user)[2])
        await eventually(lambda: "marked" in tokens(user)[2].classes)
        assert len(of_class(user, "marked")) == 1
        with user:
            (prompt,) = ElementFilter(kind=ui.textarea)
        assert prompt.props["placeholder"] == "the version's own: ⏎"
        assert told == ["\n"]  # of a alone, whichever is loaded last

    visit(scenario)


def test_an_address_gives_the_whole_state_back(visit: Visit, shelf: Shelf) -> None:
    async def scenario(user: User) -> None:
        await user.open(
            "/text?a=tale-ngram@champion&b=tale-gpt/1&seed=2&tokens=12&chosen_a=3:9&at=a:3&top_k=40"
        )
        await until(user, "tokens are left after temperature")
        assert "forced" in tokens(user)[3].classes
        for _ in range(RETRIES):  # the other version's text comes by itself
            asked = [request for what, request in shelf.get("tale-gpt", 1).asked if what == "write"]
            if asked:
                break
            await asyncio.sleep(0.1)
        assert asked[0]["request"]["top_k"] == 40 and asked[0]["request"]["forced"] == {}

    visit(scenario)


def test_a_token_says_of_which_copy_it_is_a_part(visit: Visit, shelf: Shelf) -> None:
    held = shelf.get("tale-ngram", 2)
    held._handlers["copies"] = lambda _: iter([{"spans": [(0, 23)], "min_characters": 20}])

    async def scenario(user: User) -> None:
        await user.open("/text?a=tale-ngram/2&tokens=40")
        await until(user, "longest copy 23 characters")
        first = next(each for each in tokens(user) if each.text)
        assert first.props["title"].endswith("; part of a copy of 23 characters")

    visit(scenario)


def test_hostile_text_stays_text(visit: Visit) -> None:
    async def scenario(user: User) -> None:
        await user.open("/text?a=tale-gpt/2&tokens=5&prompt=%3Cimg%20src=x%20onerror=alert(1)%3E")
        await until(user, "bits a character")
        (given,) = of_class(user, "given")
        assert given.text == "<img src=x onerror=alert(1)>"
        assert given.tag == "span" and "innerHTML" not in given.props

    visit(scenario)


@pytest.mark.parametrize(
    ("path", "remark"),
    [
        ("/text?temperature=hot&tokens=3", "temperature is 'hot'"),
        ("/text?a=tale-vae/1&tokens=3", "tale-vae is a model of images, and this page is of text"),
        ("/text?a=nobody/1&tokens=3", "no model is named 'nobody'"),
        ("/images?a=tale-gan/9", "tale-gan has no version '9'"),
        ("/images?a=tale-gan/1&b=tale-gan/9", "tale-gan has no version '9'"),
        ("/images?%3Cb%3E=1", "'<b>' is not known here"),
        ("/?version=nobody/1", "no model is named 'nobody'"),
    ],
)
def test_what_an_address_says_wrongly_is_told(path: str, remark: str, visit: Visit) -> None:
    async def scenario(user: User) -> None:
        await user.open(path)
        await until(user, remark)
        with user:
            assert [each.value for each in ElementFilter(kind=ui.select)][1:] in ([], [""])

    visit(scenario)


def test_a_version_that_does_not_load_says_so_and_is_tried_again(
    visit: Visit, shelf: Shelf
) -> None:
    async def scenario(user: User) -> None:
        shelf.broken["tale-gpt", 2] = "its files are not what was registered"
        await user.open("/text?a=tale-gpt/2&tokens=3")
        await until(user, "its files are not what was registered")
        shelf.broken.clear()
        user.find("try again").click()
        await until(user, "bits a character")
        await user.should_not_see("its files are not what was registered")

        shelf.broken["tale-vae", 2] = "it does not load"
        await user.open("/images?a=tale-vae/2")
        await until(user, "it does not load")
        await user.should_not_see("Latent space")

    visit(scenario)


@pytest.mark.parametrize("path", ["/text?a=tale-ngram/2&tokens=3", "/images?a=tale-vae/2"])
def test_nothing_is_loaded_before_the_pages_own_socket_has_come(
    path: str, visit: Visit, shelf: Shelf
) -> None:
    async def scenario(user: User) -> None:
        found = await user.http_client.get(path)  # what a picture's address in another page does
        assert found.status_code == 200
        begun = background_tasks.running_tasks
        await asyncio.gather(*(each for each in begun if "playground" in each.get_name()))
        assert not shelf.held
        await user.open(path)
        await until(user, "bits a character" if "text" in path else "Latent space")
        assert len(shelf.held) == 1

    visit(scenario)


def test_samples_walks_and_ways(visit: Visit, shelf: Shelf, addresses: list[str]) -> None:
    async def scenario(user: User) -> None:
        await user.open("/images?a=tale-vae/2&samples=4&seed=6")
        await until(user, "from the middle of what it draws")
        await user.should_see("a red distance is less than 30% of that: perhaps a copy")
        assert len(of_class(user, "sample")) == 4 + 9  # and those on the way between two
        samples = [each for each in of_class(user, "leads") if "walk from" in str(each.props)]
        click(samples[2])
        await until(user, "from sample 2")
        vae = shelf.get("tale-vae", 2)
        asked = [request for what, request in vae.asked if what == "point"]
        assert asked[-1]["request"]["sample"] == 2
        assert addresses[-1] == "/images?a=tale-vae/2&seed=6&samples=4&start=2"
        assert asked[-1]["request"]["start"] == {
            "number": 4,
            "seed": 6,
            "temperature": 1.0,
            "label": -1,
        }
        await user.should_see("Between two held-out pictures")
        with user:
            (plane,) = ElementFilter(kind=ui.interactive_image)
            sliders = list(ElementFilter(kind=ui.slider))
        assert len(sliders) == 1 + 3  # temperature, and an axis for each number of a point
        side = 7 * shelf.get("tale-vae", 2).facts()["width"]
        at = {"mouse_event_type": "mousedown", "image_x": side / 2, "image_y": side / 14}
        for listener in plane._event_listeners.values():
            plane._handle_event({"listener_id": listener.id, "args": at})
        for _ in range(RETRIES):
            if "&at=0,3," in addresses[-1]:
                break
            await asyncio.sleep(0.1)
        assert "&start=2&at=0,3," in addresses[-1]
        (first, last) = [each for each in of_class(user, "leads") if each not in samples][1:]
        click(first)
        click(last)
        for _ in range(RETRIES):
            if ("between", {"first": 1, "last": 2}) in vae.asked:
                break
            await asyncio.sleep(0.1)
        assert addresses[-1].endswith("&first=1&last=2")

    visit(scenario)


@pytest.mark.parametrize("family", ["gan", "diffusion"])
def test_the_way_between_two_seeds_and_on(
    family: str, visit: Visit, shelf: Shelf, addresses: list[str]
) -> None:
    async def scenario(user: User) -> None:
        path = f"/images?a=tale-{family}/2&samples=2"
        await user.open(f"{path}&from_seed=5&to_seed=7")
        await until(user, "from the first sample of one seed to that of the other")
        await user.should_see("Between two seeds")
        assert len(of_class(user, "sample")) == 2 + 9
        with user:
            fields = {each.props["label"]: each for each in ElementFilter(kind=ui.number)}
        assert (fields["from seed"].value, fields["to seed"].value) == (5, 7)
        held = shelf.get(f"tale-{family}", 2)

        def seeds() -> tuple[int, int]:
            asked = [each["request"] for what, each in held.asked if what == "between_seeds"]
            return asked[-1]["from_seed"], asked[-1]["to_seed"]

        user.find("go on").click()
        await eventually(lambda: seeds() == (7, 8))
        assert addresses[-1] == f"{path}&from_seed=7&to_seed=8"
        assert (fields["from seed"].value, fields["to seed"].value) == (7, 8)
        fields["from seed"].value = 3
        await eventually(lambda: seeds() == (3, 8))
        assert addresses[-1] == f"{path}&from_seed=3&to_seed=8"
        assert held.asked[-1][1]["request"]["start"]["number"] == 2

    visit(scenario)


def a_file(name: str, content: bytes) -> Any:
    return ui.upload.SmallFileUpload(name, "image/png", content)


def as_png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def own(user: User) -> Any:
    with user:
        (upload,) = ElementFilter(kind=ui.upload)
    return upload


def shown(user: User) -> list[str]:
    """The words below the pictures of an own one."""
    (box,) = of_class(user, "shown")
    return [each.text for each in box.descendants() if each.tag == "figcaption"]


def test_an_own_picture_is_shown_to_each_version(
    visit: Visit, shelf: Shelf, addresses: list[str]
) -> None:
    pixels = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)

    async def scenario(user: User) -> None:
        await user.open("/images?a=tale-vae/2&samples=2")
        await until(user, "A picture of your own")
        await until(user, "click the picture where the way begins")
        before = list(addresses)
        name = "<b>ramp</b>\u202e.png"
        await own(user).handle_uploads([a_file(name, as_png(pixels))])
        await until(user, "; it stays in this tab: the page's address cannot hold it")
        await user.should_see("<b>ramp</b>\\u202e.png; it stays")
        wanted = ["your picture", "reconstruction", "the nearest training picture"]
        assert shown(user)[::2] == wanted
        assert shown(user)[1] == "as the version takes it, 28x28"
        held = shelf.get("tale-vae", 2)

        def own_requests(held: Any) -> list[dict[str, Any]]:
            return [request for what, request in held.asked if what == "own"]

        sent = {"content": base64.b64encode(as_png(pixels)).decode(), "name": name}
        assert own_requests(held) == [{**sent, "is_negative": False}]
        with user:
            (switch,) = ElementFilter(kind=ui.switch)
        switch.value = True
        await eventually(lambda: own_requests(held)[1:] == [{**sent, "is_negative": True}])
        assert addresses == before  # which tell nothing of it
        with user:
            version = next(iter(ElementFilter(kind=ui.select)))
        version.value = "tale-gan/2"
        await until(user, "this family has no encoder, so there is no reconstruction")
        await eventually(lambda: shown(user)[::2] == [wanted[0], wanted[2]])
        assert own_requests(shelf.get("tale-gan", 2)) == [{**sent, "is_negative": True}]

    visit(scenario)


def test_a_file_that_is_no_picture_is_refused_in_one_line(visit: Visit) -> None:
    async def scenario(user: User) -> None:
        await user.open("/images?a=tale-vae/2&samples=2")
        await until(user, "click the picture where the way begins")
        sound = as_png(np.zeros((28, 28), np.uint8))
        torn = as_png(np.arange(10_000, dtype=np.uint8).reshape(100, 100))[:80]
        await own(user).handle_uploads([a_file("black.png", sound)])
        await eventually(lambda: len(shown(user)) == 6)
        for content, reason in (
            (b"", "odd.png: no picture of a known format: an empty file"),
            (b"GIF89a, not really", "odd.png: no picture of a known format: its content is"),
            (torn, "odd.png: cannot be decoded: "),
            (bytes(MAX_BYTES + 1), "not taken: wanted is one picture, such as PNG or JPEG, of at"),
        ):
            await own(user).handle_uploads([a_file("odd.png", content)])
            await until(user, reason)
            assert shown(user) == []
        for listener in list(own(user)._event_listeners.values()):
            if listener.type in ("rejected", "failed"):
                own(user)._handle_event({"listener_id": listener.id, "args": []})
                told = {"rejected": "not taken: ", "failed": "the file did not arrive"}
                await until(user, told[listener.type])
        await own(user).handle_uploads([a_file("black.png", sound)])
        await eventually(lambda: len(shown(user)) == 6)

    visit(scenario)


def test_without_training_pictures_a_family_without_an_encoder_asks_for_none(
    visit: Visit, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    gan = shelf.get("tale-gan", 2)
    monkeypatch.setattr(gan._session, "_training", None)

    async def scenario(user: User) -> None:
        await user.open("/images?a=tale-gan/2&samples=2")
        await until(user, "from the first sample of one seed to that of the other")
        await user.should_not_see("A picture of your own")

    visit(scenario)


def test_a_way_is_offered_between_what_a_family_has(visit: Visit) -> None:
    async def scenario(user: User) -> None:
        await user.open("/images?a=tale-vae/2&samples=2")
        await until(user, "click the picture where the way begins")
        with user:
            version = next(iter(ElementFilter(kind=ui.select)))
        await user.should_not_see("go on")
        version.value = "tale-gan/2"
        await until(user, "from the first sample of one seed to that of the other")
        await user.should_see("go on")
        await user.should_not_see("Between two held-out pictures")

    visit(scenario)


def test_a_family_shows_what_it_can_do_and_no_more(visit: Visit) -> None:
    async def scenario(user: User) -> None:
        await user.open("/images?a=tale-gan/2&b=tale-gan/1&samples=3&label=1")
        await until(user, "from the middle of what it draws, class dog")
        await user.should_not_see("Between two held-out pictures")
        with user:
            (dial,) = ElementFilter(kind=ui.toggle)
            assert dial.value == 1
            assert list(dial.options) == [-1, 0, 1, 2]  # type: ignore[attr-defined]
        await user.open("/text?a=tale-gpt/2&tokens=3&at=a:1")
        await until(user, "tokens are left after temperature")
        await user.should_not_see("part of its probability")

    visit(scenario)


def test_the_dial_tells_the_class_that_is_drawn(visit: Visit, shelf: Shelf) -> None:
    async def scenario(user: User) -> None:
        await user.open("/images?a=tale-gan/2&samples=3&label=1")
        await until(user, "from the middle of what it draws, class dog")
        with user:
            (dial,) = ElementFilter(kind=ui.toggle)
            version = next(iter(ElementFilter(kind=ui.select)))
        version.value = "tale-gan/1"
        await until(user, "from the middle of what it draws, class cat")
        other = shelf.get("tale-gan", 1)
        assert [each["request"]["label"] for what, each in other.asked if what == "draw"] == [-1]
        assert dial.value == -1

    visit(scenario)


def test_only_the_coordinate_that_is_moved_changes(
    visit: Visit, shelf: Shelf, addresses: list[str]
) -> None:
    async def scenario(user: User) -> None:
        path = "/images?a=tale-vae/2&samples=2"
        await user.open(f"{path}&at=7.5,-6,5.25")
        await until(user, "from the middle of what it draws")
        await user.should_not_see("the default is taken")
        with user:
            (plane,) = ElementFilter(kind=ui.interactive_image)
            sliders = list(ElementFilter(kind=ui.slider))[1:]
        assert [each.value for each in sliders] == [4, -4, 4]
        sliders[1].value = 1.0
        await eventually(lambda: addresses[-1] == f"{path}&at=7.5,1,5.25")
        middle = 7 * shelf.get("tale-vae", 2).facts()["width"] / 2
        point = {"mouse_event_type": "mousedown", "image_x": middle, "image_y": middle}
        for listener in plane._event_listeners.values():
            plane._handle_event({"listener_id": listener.id, "args": point})
        await eventually(lambda: addresses[-1] == f"{path}&at=0,0,5.25")

    visit(scenario)


def test_the_overview_leads_to_champions_and_their_challengers(visit: Visit) -> None:
    async def scenario(user: User) -> None:
        await user.open("/")
        with user:
            links = [each.props["href"] for each in ElementFilter(kind=ui.link)]
        assert "/text?a=tale-gpt/2" in links
        assert "/images?a=tale-gan/2&b=tale-gan/1" in links
        await user.open("/?version=tale-gpt/1")
        await until(user, "tale-gpt · version 1 · challenger")

    visit(scenario)


def test_an_empty_registry_says_what_to_do(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "listed_models", dict)

    async def scenario(user: User) -> None:
        for path, data in (("/", "any kind"), ("/text", "text"), ("/images", "images")):
            await user.open(path)
            await user.should_see(f"no model of {data} is registered yet: `atelier run` trains")

    visit(scenario)


@pytest.mark.parametrize(
    "error",
    [
        BadInput("the registry cannot be read now"),
        TrackingUnavailable("MLflow at http://127.0.0.1:9 does not answer"),
    ],
)
def test_a_registry_that_cannot_be_read_is_told(
    error: Exception, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: set[int] = set()

    def unreadable(*_: Any) -> Any:
        readers.add(threading.get_ident())
        raise error

    monkeypatch.setattr(catalogue, "listed_models", unreadable)
    monkeypatch.setattr(catalogue, "listed_model", unreadable)

    async def scenario(user: User) -> None:
        for path in ("/", "/?version=tale-gpt/1", "/text?a=tale-gpt/1", "/images"):
            await user.open(path)
            await user.should_see(str(error))
            await user.should_not_see("is registered yet")

    visit(scenario)
    assert readers and threading.get_ident() not in readers  # which would keep all pages waiting


def test_tokens_and_probabilities_for_people() -> None:
    assert visible(" a\n") == "␣a⏎"
    assert visible("") == "(part of a character)"
    assert [percent(p) for p in (0, 0.00005, 0.005, 0.1234, 1)] == [
        "0",
        "< 0.01 %",
        "0.50 %",
        "12.3 %",
        "100.0 %",
    ]
    assert [shade(bits) for bits in (0, 0.99, 1, 6.5, 7, 99)] == [0, 0, 1, 6, 7, 7]
