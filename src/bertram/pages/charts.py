"""Charts as inline SVG: no script, text that stays text, labels on the marks instead of legends.

Colours come from report.css by class (c0 … c7, and `base` for the baseline), so that one drawing serves light and
dark; shapes repeat what colours say. Lengths are in units of the drawing, as in `axes`.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bertram.pages.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Point,
    linear,
    log_ticks,
    logarithmic,
    path,
    text,
    ticks,
    x_axis,
    y_axis,
)
from bertram.pages.labels import LINE, Box, label_boxes, short, spread, text_width
from bertram.pages.markup import Element, element

COLOURS = 8

_MARK, _RING = 5.0, 9.5  # radii
_LONGEST_AT_END = 16  # characters of a name that stands at the end of a line
_SMALLEST = 1e-3  # what a logarithmic axis shows for 0


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A candidate in a scatter: x with more being worse, a score with its interval, and its look."""

    name: str
    x: float
    y: float
    low: float
    high: float
    look: int | None
    """Number of its colour and shape; None for the baseline's."""
    chosen: bool
    note: str
    """What a pointer resting on the mark is told."""


@dataclass(frozen=True)
class Curve:
    """One run of a model: (step, value) in order of steps."""

    name: str
    look: int | None
    points: Sequence[Point]
    diverged: bool


def pareto(points: Sequence[Point]) -> list[int]:
    """Numbers of the points (cost, score) that no other beats in one without losing in the other, by cost."""
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def scatter(
    marks: Sequence[Mark],
    *,
    key: str,
    title: str,
    x_label: str,
    y_label: str,
    x_limit: float | None = None,
    y_limit: float | None = None,
) -> Element:
    """Score against a cost on a logarithmic axis, with 95% whiskers, the Pareto front and the limits that bite.

    `key` makes ids unique on the page.
    """
    xs = [max(mark.x, _SMALLEST) for mark in marks]
    bounds = [value for mark in marks for value in (mark.low, mark.high, mark.y)]
    x_shown = x_limit if x_limit is not None and max(xs) > x_limit else None
    y_shown = y_limit if y_limit is not None and min(mark.y for mark in marks) < y_limit else None
    x_domain = [*xs, *([] if x_shown is None else [x_shown])]
    y_domain = [*bounds, *([] if y_shown is None else [y_shown])]
    x_scale = logarithmic(min(x_domain), max(x_domain), LEFT + 8, WIDTH - RIGHT - 8)
    y_scale = linear(min(y_domain), max(y_domain), HEIGHT - BOTTOM - 8, TOP + 8)
    places = [(x_scale(x), y_scale(mark.y)) for x, mark in zip(xs, marks, strict=True)]
    front = _stairs([places[i] for i in pareto([(x, mark.y) for x, mark in zip(xs, marks, strict=True)])])
    whiskers = [(y_scale(mark.low), y_scale(mark.high)) for mark in marks]
    drawn = [
        *x_axis(x_scale, log_ticks(min(x_domain), max(x_domain)), min(x_domain), max(x_domain), x_label),
        *y_axis(y_scale, min(y_domain), max(y_domain), y_label),
    ]
    if x_shown is not None:
        ends = [(x_scale(x_shown), TOP), (x_scale(x_shown), HEIGHT - BOTTOM)]
        drawn.append(element("path", class_="limit", d=path(ends)))
    if y_shown is not None:
        ends = [(LEFT, y_scale(y_shown)), (WIDTH - RIGHT, y_scale(y_shown))]
        drawn.append(element("path", class_="limit", d=path(ends)))
    drawn.append(element("path", class_="front", d=path(front)))
    widths = [text_width(short(mark.name), bold=mark.chosen) for mark in marks]
    reaches = [_RING if mark.chosen else _MARK + 2 for mark in marks]
    labels = label_boxes(places, widths, reaches, _lines(places, whiskers, front))
    together = zip(marks, places, whiskers, labels, strict=True)
    drawn += [_drawn_mark(*one) for one in sorted(together, key=lambda one: one[0].chosen)]  # the choice lies on top
    told = f"{y_label.capitalize()} against {x_label}. " + " ".join(f"{mark.note}." for mark in marks)
    return _drawing(drawn, key=key, title=title, told=told)


def curves(runs: Sequence[Curve], *, key: str, title: str) -> Element:
    """A value against training steps, a thin line a run, each model's name beside the ends of its lines.

    A run of one point is a dot. The axis spans what the runs that finished reach; a line that leaves it is cut there.
    """
    finished = [run for run in runs if not run.diverged]
    values = [y for run in finished or runs for _, y in run.points]
    steps = [x for run in runs for x, _ in run.points]
    names = list(dict.fromkeys(run.name for run in runs))
    right = WIDTH - 12 - max(text_width(short(name, _LONGEST_AT_END)) for name in names) - 10
    height = max(HEIGHT, TOP + BOTTOM + len(names) * LINE)
    x_scale = linear(0, max(steps), LEFT + 8, right)
    y_scale = linear(min(values), max(values), height - BOTTOM - 8, TOP + 8)
    low, high = min(values), max(values)
    drawn = [
        *x_axis(x_scale, ticks(0, max(steps), 4), 0, max(steps), "training step", height),
        *y_axis(y_scale, low, high, ""),
    ]
    for run in runs:
        inside = [(x, min(max(y, low), high)) for x, y in run.points]
        line = [(x_scale(x), y_scale(y)) for x, y in inside]
        words, class_ = element("title", run.name), f"run {_look(run.look)}"
        if len(line) > 1:
            drawn.append(element("path", words, class_=class_, d=path(line)))
        else:
            drawn.append(element("circle", words, class_=class_, cx=line[0][0], cy=line[0][1], r=2))
        if run.diverged:
            drawn.append(element("path", class_=f"end {_look(run.look)}", d=_cross(*line[-1])))
    ends = []
    for name in names:
        of_name = [run for run in runs if run.name == name]
        lasting = [run for run in of_name if not run.diverged] or of_name
        last = [y_scale(min(max(run.points[-1][1], low), high)) for run in lasting]
        ends.append((sum(last) / len(last), of_name[0].look, name))
    ends.sort(key=lambda end: end[0])
    labels = spread([y for y, _, _ in ends], LINE, TOP, height - BOTTOM)
    for (y, look, name), label in zip(ends, labels, strict=True):
        line = [(right + 2, y), (right + 10, label)]
        drawn.append(element("path", class_=f"leader {_look(look)}", d=path(line)))
        drawn.append(text(right + 13, label + 4, short(name, _LONGEST_AT_END), class_=f"name {_look(look)}"))
    told = f"{title} against training steps: {', '.join(names)}."
    return _drawing(drawn, key=key, title=title, told=told, height=height)


def difference(value: float, low: float, high: float, reach: float) -> Element:
    """A difference with its interval on a line from -reach to reach, to stand in a row of a table."""
    width, height = 150.0, 18.0
    scale = linear(-reach, reach, 4, width - 4)
    middle = height / 2
    return element(
        "svg",
        element("path", class_="zero", d=path([(scale(0), 0), (scale(0), height)])),
        element("path", class_="whisker", d=path([(scale(low), middle), (scale(high), middle)])),
        element("circle", class_="dot", cx=scale(value), cy=middle, r=3.2),
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        aria_hidden="true",
    )


def swatch(look: int | None) -> Element:
    """A candidate's mark, to stand beside its name in a table."""
    mark = element("path", class_=f"shape {_look(look)}", d=_shape(look, 7, 7))
    return element("svg", mark, class_="swatch", viewBox="0 0 14 14", width=14, height=14, aria_hidden="true")


def smoothed(points: Sequence[Point], kept: int = 150) -> list[Point]:
    """The mean of each point and its neighbours, over a fifteenth of the line, at no more than `kept` points."""
    reach = len(points) // 30
    found = []
    for i, (x, _) in enumerate(points):
        near = points[max(0, i - reach) : i + reach + 1]
        found.append((x, sum(y for _, y in near) / len(near)))
    stride = math.ceil(len(found) / kept) or 1
    thinned = found[::stride]
    return thinned if not found or thinned[-1] == found[-1] else [*thinned, found[-1]]


def _drawing(drawn: Iterable[Element], *, key: str, title: str, told: str, height: float = HEIGHT) -> Element:
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", told, id=f"{key}-desc"),
        *drawn,
        class_="chart",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        viewBox=f"0 0 {WIDTH:g} {height:g}",
    )


def _drawn_mark(mark: Mark, place: Point, whisker: Point, box: Box) -> Element:
    x, y = place
    low, high = whisker
    parts = [element("title", mark.note), element("path", class_="whisker", d=path([(x, low), (x, high)]))]
    end = box.nearest(x, y)
    if math.dist(place, end) > 16:
        parts.append(element("path", class_="leader", d=path([place, end])))
    if mark.chosen:
        parts.append(element("circle", class_="ring", cx=x, cy=y, r=_RING))
    parts.append(element("path", class_="shape", d=_shape(mark.look, x, y)))
    parts.append(_named(mark.name, box, x))
    return element("g", *parts, class_=f"mark {_look(mark.look)}{' chosen' if mark.chosen else ''}")


def _named(name: str, box: Box, x: float) -> Element:
    """A name in its box, which may be wider than the name, at the side that is nearer to the mark at `x`."""
    left, right, baseline = box.left, box.left + box.width, box.top + LINE - 4
    if left >= x:
        return text(left, baseline, short(name), class_="name")
    if right <= x:
        return text(right, baseline, short(name), class_="name end")
    return text((left + right) / 2, baseline, short(name), class_="name middle")


def _lines(places: Sequence[Point], whiskers: Sequence[Point], front: Sequence[Point]) -> list[tuple[Box, float]]:
    """What a name had better not stand on, and at what price: a whisker is worse than the front."""
    lines = [
        (Box(x - 1, min(ends), 2, abs(ends[0] - ends[1])), 25.0) for (x, _), ends in zip(places, whiskers, strict=True)
    ]
    for (x0, y0), (x1, y1) in itertools.pairwise(front):
        lines.append((Box(min(x0, x1), min(y0, y1), abs(x0 - x1) + 1, abs(y0 - y1) + 1), 4.0))
    return lines


def _stairs(points: Sequence[Point]) -> list[Point]:
    """The border of what is reached: level from each point to the next one's x, then straight up to it."""
    corners = [(after[0], before[1]) for before, after in itertools.pairwise(points)]
    stairs = [points[0]]
    for corner, point in zip(corners, points[1:], strict=True):
        stairs += [corner, point]
    return [*stairs, (WIDTH - RIGHT, points[-1][1])]


def _shape(look: int | None, x: float, y: float) -> str:
    """The outline of a mark around (x, y)."""
    r = _MARK
    diamond = [(0, -1.3 * r), (1.3 * r, 0), (0, 1.3 * r), (-1.3 * r, 0)]
    up = [(0, -1.2 * r), (1.15 * r, 0.85 * r), (-1.15 * r, 0.85 * r)]
    square = [(-0.9 * r, -0.9 * r), (0.9 * r, -0.9 * r), (0.9 * r, 0.9 * r), (-0.9 * r, 0.9 * r)]
    down = [(a, -b) for a, b in up]
    bar = [(-1.3 * r, -0.55 * r), (1.3 * r, -0.55 * r), (1.3 * r, 0.55 * r), (-1.3 * r, 0.55 * r)]
    outlines = [None, square, diamond, up, down, bar]
    outline = None if look is None else outlines[look % len(outlines)]
    if outline is None:
        return f"M{x - r:.1f} {y:.1f}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z"
    return path([(x + a, y + b) for a, b in outline]) + "z"


def _cross(x: float, y: float) -> str:
    return f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"


def _look(look: int | None) -> str:
    return "base" if look is None else f"c{look % COLOURS}"
