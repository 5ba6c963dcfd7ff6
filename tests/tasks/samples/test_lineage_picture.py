"""The picture of a lineage: well-formed whatever it names, and nothing lies on anything else."""

import re
from xml.etree import ElementTree

import pytest

from tasks.samples.lineage_picture import MAX_CHARACTERS, Node, picture

SVG = "{http://www.w3.org/2000/svg}"


def node(name: str, *made_from: str, kind: str = "model", facts: tuple[str, ...] = ()) -> Node:
    return Node(kind=kind, name=name, facts=facts, made_from=made_from)


def boxes(drawn: str) -> dict[str, tuple[float, float, float, float]]:
    """x, y, width, height by name."""
    root = ElementTree.fromstring(drawn)
    frames = [
        tuple(float(each.get(key, "")) for key in ("x", "y", "width", "height"))
        for each in root.iter(f"{SVG}rect")
        if each.get("stroke")
    ]
    names = [t.text or "" for t in root.iter(f"{SVG}text") if t.get("font-weight")]
    return dict(zip(names, frames, strict=True))  # type: ignore[arg-type]


def test_each_stands_right_of_what_it_was_made_from_and_none_on_another() -> None:
    nodes = [
        node("digits", kind="images", facts=("1,797 images",)),
        node("pydocs", kind="text"),
        node("pydocs characters", "pydocs", kind="tokenizer"),
        node("digits-vae 1", "digits", facts=("champion", "nats 1.0")),
        node("digits-gan 1", "digits"),
        node("pydocs-gpt 1", "pydocs characters"),
        node("gallery", "digits-vae 1", "pydocs-gpt 1", kind="samples"),
    ]

    found = boxes(picture(nodes))

    for each in nodes:
        for origin in each.made_from:
            x, _, width, _ = found[origin]
            assert x + width < found[each.name][0]
    assert found["gallery"][0] == max(x for x, *_ in found.values())
    models = ("digits-vae 1", "digits-gan 1", "pydocs-gpt 1")
    assert len({found[name][0] for name in models}) == 1  # one column
    placed = list(found.values())
    for index, (x, y, width, height) in enumerate(placed):
        for other_x, other_y, other_width, other_height in placed[index + 1 :]:
            is_beside = x + width <= other_x or other_x + other_width <= x
            assert is_beside or y + height <= other_y or other_y + other_height <= y


@pytest.mark.parametrize(
    "name", ["<script>1</script>", "a & b", "\x1b[31m\udcff\u202e", "]]>", 'say "hello"', "x" * 300]
)
def test_whatever_a_name_holds_is_text(name: str) -> None:
    drawn = picture([node(name, kind="images"), node("m", name)])

    root = ElementTree.fromstring(drawn)
    tags = {each.tag.removeprefix(SVG) for each in root.iter()}
    assert tags == {"svg", "title", "rect", "path", "text"}
    assert max(len(t.text or "") for t in root.iter(f"{SVG}text")) <= MAX_CHARACTERS
    assert drawn.replace("\n", "").isprintable()


def test_the_paper_holds_all_boxes() -> None:
    drawn = picture([node("a", kind="images", facts=("x" * 60,)), node("b", "a")])

    (width, height) = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)"', drawn)[0])
    assert all(x + w < width and y + h < height for x, y, w, h in boxes(drawn).values())


def test_a_long_fact_is_told_whole_on_several_lines() -> None:
    drawn = picture([node("m", facts=("negative log-likelihood, nats per image 23.0028",))])

    texts = [t.text for t in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
    assert texts == ["m", "negative log-likelihood, nats per", "image 23.0028"]


def test_what_is_unknown_leads_nowhere_and_nothing_is_a_picture_too() -> None:
    assert "<path" not in picture([node("a", "gone")])
    ElementTree.fromstring(picture([]))
