"""Pictures of a search as SVG, which a browser shows without a network."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution

from tasks.search.outcome import Outcome
from tasks.search.space import space_of
from tasks.search.study import Proposal, Result, StudySpec, best_of, importance_of

WIDTH, HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 30, 40
_DONE, _BEST, _LOST = "#7a8ca5", "#c2410c", "#b0b0b0"


def pictures_of(
    spec: StudySpec, proposals: Sequence[Proposal], outcomes: Mapping[int, Outcome]
) -> dict[str, str]:
    """The pictures by file name; those for which there is nothing to show are left out."""
    results = {number: each.as_result() for number, each in outcomes.items()}
    found = {
        "history.svg": history(results),
        "parallel_coordinates.svg": parallel_coordinates(spec, proposals, results),
        "importance.svg": importance(importance_of(spec, proposals, results)),
        "learning_curves.svg": learning_curves(outcomes),
    }
    return {name: picture for name, picture in found.items() if picture}


def history(results: Mapping[int, Result]) -> str:
    """Each trial's objective in its order, and the best so far; the others below the axis."""
    values = {
        n: each.value
        for n, each in sorted(results.items())
        if each.state == "complete" and each.value is not None
    }
    if not values:
        return ""
    last = max(*results, 1)
    low, high = _bounds(list(values.values()))
    best, dots = math.inf, []
    line: list[str] = []
    for number, value in values.items():
        x, y = _x(number / last), _y((value - low) / (high - low))
        if line:  # a step: what was best until now was so up to here
            line.append(f"{x:.1f},{_y((best - low) / (high - low)):.1f}")
        best = min(best, value)
        line.append(f"{x:.1f},{_y((best - low) / (high - low)):.1f}")
        colour = _BEST if number == best_of(results)[0] else _DONE
        dots.append(_dot(x, y, colour, f"trial {number}: {value:.5g}"))
    for number, each in results.items():
        if number not in values:
            told = f"trial {number}: {each.state}"
            dots.append(_dot(_x(number / last), HEIGHT - _BOTTOM + 6, _LOST, told))
    drawn = _polyline(line, _BEST) + "".join(dots)
    ends = _text(_LEFT, HEIGHT - 12, "trial 0") + _text(_x(1), HEIGHT - 12, f"{last}", "end")
    return _svg("The objective of each trial, and the best so far", _axis(low, high) + drawn + ends)


def parallel_coordinates(
    spec: StudySpec, proposals: Sequence[Proposal], results: Mapping[int, Result]
) -> str:
    """A line for each trial through its values, one axis a setting, the objective last."""
    complete = {
        n: r.value for n, r in results.items() if r.state == "complete" and r.value is not None
    }
    if len(complete) < 2:
        return ""
    space, names = space_of(spec.space), list(spec.space)
    low, high = _bounds(list(complete.values()))
    best = best_of(results)[0]
    lines, axes = [], []
    for each in sorted(proposals, key=lambda p: p.number == best):
        if each.number not in complete or set(each.params) != set(names):
            continue
        shares = [_share(space[name], each.params[name]) for name in names]
        shares.append((complete[each.number] - low) / (high - low))
        points = [f"{_x(i / len(names)):.1f},{_y(s):.1f}" for i, s in enumerate(shares)]
        lines.append(
            _polyline(points, _BEST if each.number == best else _DONE, f"trial {each.number}")
        )
    for index, name in enumerate([*names, "objective"]):
        x = _x(index / len(names))
        anchor = "start" if index == 0 else "end" if index == len(names) else "middle"
        axes.append(f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" stroke="#999"/>')
        axes.append(_text(x, HEIGHT - 22, name.partition(".")[2] or name, anchor))
        ends = (f"{low:.4g}", f"{high:.4g}") if name == "objective" else _ends(space[name])
        axes.append(_text(x, HEIGHT - 8, f"{ends[0]} to {ends[1]}", anchor))
    return _svg("What was tried, and what it gave", "".join(axes) + "".join(lines))


def importance(shares: Mapping[str, float]) -> str:
    """A bar for each setting: its share of what explains the objective."""
    if not shares:
        return ""
    bars = []
    for index, (name, share) in enumerate(shares.items()):
        y = _TOP + 20 + index * 34
        bars.append(_text(_LEFT, y - 4, f"{name}: {share:.0%}"))
        width = max(1.0, share * (WIDTH - _LEFT - _RIGHT))
        bars.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="12" fill="{_DONE}"/>')
    height = _TOP + 20 + len(shares) * 34
    return _svg("How much each setting matters (PED-ANOVA)", "".join(bars), height)


def learning_curves(outcomes: Mapping[int, Outcome]) -> str:
    """The training of all trials; those that were pruned are cut where they ended."""
    finite = {n: [p for p in o.curve if math.isfinite(p[1])] for n, o in outcomes.items()}
    curves = {number: curve for number, curve in finite.items() if curve}
    if not any(len(curve) > 1 for curve in curves.values()):
        return ""
    values = [value for curve in curves.values() for _, value in curve]
    low, high = _bounds(_without_tail(values))
    last = max(step for curve in curves.values() for step, _ in curve)
    best = next(iter(best_of({n: o.as_result() for n, o in outcomes.items()})), None)
    lines = []
    for number in sorted(curves, key=lambda n: n == best):
        points = [
            (_x(step / last), _y(min(1.0, max(0.0, (value - low) / (high - low)))))
            for step, value in curves[number]
        ]
        colour, told = _BEST if number == best else _DONE, f"trial {number}"
        if len(points) == 1:  # pruned after the first of its measurements: no line shows that
            lines.append(_dot(*points[0], colour, told))
        else:
            lines.append(_polyline([f"{x:.1f},{y:.1f}" for x, y in points], colour, told))
    name = next(o.curve_name for o in outcomes.values() if o.curve_name)
    ends = _text(_LEFT, HEIGHT - 12, "step 0") + _text(_x(1), HEIGHT - 12, f"{last}", "end")
    return _svg(f"Training: {name}", _axis(low, high) + "".join(lines) + ends)


def _without_tail(values: list[float]) -> list[float]:
    """All but the worst twentieth, which would press the rest into a line."""
    return sorted(values)[: max(2, math.ceil(len(values) * 0.95))]


def _bounds(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _share(distribution: Any, value: Any) -> float:
    """Where a value lies within its range, from 0 to 1."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value) / (len(distribution.choices) - 1)
    ends = distribution.low, distribution.high, value
    low, high, at = map(math.log, ends) if distribution.log else ends
    return float((at - low) / (high - low))


def _ends(distribution: Any) -> tuple[str, str]:
    if isinstance(distribution, CategoricalDistribution):
        return str(distribution.choices[0]), str(distribution.choices[-1])
    return f"{distribution.low:g}", f"{distribution.high:g}"


def _x(share: float) -> float:
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def _axis(low: float, high: float) -> str:
    ends = f"{low:.4g}", f"{high:.4g}"
    labels = _text(_LEFT - 6, _y(0), ends[0], "end") + _text(_LEFT - 6, _y(1) + 8, ends[1], "end")
    x = f'x1="{_LEFT}" x2="{_LEFT}"'
    return f'<line {x} y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" stroke="#999"/>{labels}'


def _dot(x: float, y: float, colour: str, title: str) -> str:
    told = html.escape(title)
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{told}</title></circle>'


def _polyline(points: list[str], colour: str, title: str = "") -> str:
    width = 2.5 if colour == _BEST else 1
    return (
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}"'
        f' stroke-width="{width}"><title>{html.escape(title)}</title></polyline>'
    )


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def _svg(title: str, content: str, height: int = HEIGHT) -> str:
    told = html.escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{told}" font-family="sans-serif" font-size="11" fill="#333">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>'
        f'<text x="{_LEFT}" y="18" font-size="13">{told}</text>{content}</svg>\n'
    )
