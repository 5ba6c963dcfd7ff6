"""A lineage as a picture: an SVG file that both of Prefect's faces show, without a script.

It has its own white paper, since those who show it are light or dark. What is in it is told again
in a table beside it, where links can be followed: a picture in a page cannot be clicked.
"""

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.runtime.markup import plain

MAX_CHARACTERS = 34
"""Of a line; names may be long, and a table tells the whole of them."""

_CHARACTER, _LINE = 8.2, 18  # pixels: an upper bound of a character's width at 13 px, a line
_PADDING, _BETWEEN_COLUMNS, _BETWEEN_BOXES, _MARGIN = 12, 64, 18, 20
_RANKS = {"images": 0, "text": 0, "tokenizer": 1, "model": 2, "samples": 3}
_COLOURS = {
    "images": "#2f6f8f",
    "text": "#2f6f8f",
    "tokenizer": "#6b5b95",
    "model": "#a3411a",
    "samples": "#4f6b3a",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One thing of a lineage."""

    kind: str
    name: str
    facts: tuple[str, ...]
    digest: str = ""
    made_from: tuple[str, ...] = ()
    """The names of the nodes that it was made from."""
    link: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Box:
    node: Node
    lines: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float


def picture(nodes: Sequence[Node]) -> str:
    """The graph from left to right as SVG; nodes: each after those that it was made from."""
    boxes = _placed(nodes)
    width = max((box.x + box.width for box in boxes.values()), default=0.0) + _MARGIN
    height = max((box.y + box.height for box in boxes.values()), default=0.0) + _MARGIN
    edges = [
        _edge(boxes[origin], boxes[node.name])
        for node in nodes
        for origin in node.made_from
        if origin in boxes
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"'
            f' width="{width:.0f}" height="{height:.0f}" role="img"'
            ' font-family="system-ui, sans-serif" font-size="13">',
            "<title>From data through models to samples</title>",
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fffdf9"/>',
            *edges,
            *(_drawn(box) for box in boxes.values()),
            "</svg>",
        ]
    )


def _placed(nodes: Sequence[Node]) -> dict[str, _Box]:
    """Boxes by name: each right of all that it was made from, its kind in one column.

    The tallest column is stacked; what stands left of it lies beside what was made of it, what
    stands right of it beside what it was made from.
    """
    columns = _columns(nodes)
    lines = {node.name: _lines(node) for node in nodes}
    heights = {name: len(told) * _LINE + 2 * _PADDING for name, told in lines.items()}
    tall = [sum(heights[node.name] + _BETWEEN_BOXES for node in column) for column in columns]
    tallest = tall.index(max(tall)) if tall else 0
    tops: dict[str, float] = {}
    for column in (*columns[tallest:], *reversed(columns[:tallest])):
        bottom = float(_MARGIN)
        for node in column:
            near = [*node.made_from, *(each.name for each in nodes if node.name in each.made_from)]
            middles = [tops[name] + heights[name] / 2 for name in near if name in tops]
            wished = sum(middles) / len(middles) - heights[node.name] / 2 if middles else bottom
            tops[node.name] = max(bottom, wished)
            bottom = tops[node.name] + heights[node.name] + _BETWEEN_BOXES
    boxes, x = {}, float(_MARGIN)
    for column in columns:
        longest = max(len(line) for node in column for line in lines[node.name])
        width = longest * _CHARACTER + 2 * _PADDING
        for node in column:
            name = node.name
            boxes[name] = _Box(
                node=node,
                lines=lines[name],
                x=x,
                y=tops[name],
                width=width,
                height=heights[name],
            )
        x += width + _BETWEEN_COLUMNS
    return boxes


def _columns(nodes: Sequence[Node]) -> list[list[Node]]:
    """The nodes from left to right; a model that continues another stands right of it."""
    depths: dict[str, int] = {}
    for node in nodes:
        after = [1 + depths[name] for name in node.made_from if name in depths]
        depths[node.name] = max([_RANKS.get(node.kind, 0), *after])
    last = max(depths.values(), default=0)
    columns: dict[int, list[Node]] = {}
    for node in nodes:
        depth = last if node.kind == "samples" else depths[node.name]
        columns.setdefault(depth, []).append(node)
    return [columns[depth] for depth in sorted(columns)]


def _lines(node: Node) -> tuple[str, ...]:
    told = node.facts if node.kind != "samples" else ()
    facts = [line for fact in told for line in textwrap.wrap(plain(fact), MAX_CHARACTERS)]
    return (_short(node.name), *map(_short, facts))


def _short(line: str) -> str:
    shown = plain(line)
    return shown if len(shown) <= MAX_CHARACTERS else f"{shown[: MAX_CHARACTERS - 1]}…"


def _edge(origin: _Box, target: _Box) -> str:
    x0, y0 = origin.x + origin.width, origin.y + origin.height / 2
    x1, y1 = target.x, target.y + target.height / 2
    middle = (x0 + x1) / 2
    told = html.escape(f"{plain(origin.node.name)} → {plain(target.node.name)}")
    return (
        f'<path d="M{x0:.1f} {y0:.1f}'
        f' C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"'
        f' fill="none" stroke="#9a958c" stroke-width="1.5"><title>{told}</title></path>'
    )


def _drawn(box: _Box) -> str:
    colour = _COLOURS.get(box.node.kind, "#67625a")
    texts = []
    for number, line in enumerate(box.lines):
        style = 'font-weight="600" fill="#1c1b19"' if number == 0 else 'fill="#67625a"'
        y = box.y + _PADDING + (number + 0.75) * _LINE
        texts.append(
            f'<text x="{box.x + _PADDING:.1f}" y="{y:.1f}" {style}>{html.escape(line)}</text>'
        )
    return "\n".join(
        [
            f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}"'
            f' height="{box.height:.1f}" rx="4" fill="#fff" stroke="{colour}"/>',
            f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="4" height="{box.height:.1f}"'
            f' fill="{colour}"/>',
            *texts,
        ]
    )
