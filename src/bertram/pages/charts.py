"""Charts as inline SVG: no script, text that stays text, labels on the marks instead of legends.

Colours come from report.css by class (c0 … c7, and `base` for the baseline), so that one drawing serves light and
dark; shapes repeat what colours say. Axes span the data only (the range frame; Tufte 1983).

Lengths are in units of the drawing, which is shown at about one unit a pixel.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from bertram.pages.markup import Element, element

COLOURS = 8

_WIDTH, _HEIGHT = 420.0, 304.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 16.0, 24.0, 46.0
_TEXT, _LINE = 12.0, 15.0
_MARK, _RING = 5.0, 9.5  # radii
_LONGEST, _LONGEST_AT_END = 20, 16  # characters of a name that a chart shows
_GRID = 8.0  # step of the search for a label's place
_SMALLEST = 1e-3  # what a logarithmic axis shows for 0

Scale = Callable[[float], float]
Point = tuple[float, float]


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    width: float
    height: float

    def overlap(self, other: "Box", gap: float = 0.0) -> float:
        """The area that both cover, once `gap` is added around this one."""
        across = min(self.left + self.width + gap, other.left + other.width) - max(self.left - gap, other.left)
        down = min(self.top + self.height + gap, other.top + other.height) - max(self.top - gap, other.top)
        return max(across, 0.0) * max(down, 0.0)

    def nearest(self, x: float, y: float) -> Point:
        """The point of the box that is nearest to (x, y)."""
        return min(max(x, self.left), self.left + self.width), min(max(y, self.top), self.top + self.height)


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
    x_scale = _logarithmic(min(x_domain), max(x_domain), _LEFT + 8, _WIDTH - _RIGHT - 8)
    y_scale = _linear(min(y_domain), max(y_domain), _HEIGHT - _BOTTOM - 8, _TOP + 8)
    places = [(x_scale(x), y_scale(mark.y)) for x, mark in zip(xs, marks, strict=True)]
    front = _stairs([places[i] for i in pareto([(x, mark.y) for x, mark in zip(xs, marks, strict=True)])])
    whiskers = [(y_scale(mark.low), y_scale(mark.high)) for mark in marks]
    drawn = [
        *_x_axis(x_scale, _log_ticks(min(x_domain), max(x_domain)), min(x_domain), max(x_domain), x_label),
        *_y_axis(y_scale, min(y_domain), max(y_domain), y_label),
    ]
    if x_shown is not None:
        ends = [(x_scale(x_shown), _TOP), (x_scale(x_shown), _HEIGHT - _BOTTOM)]
        drawn.append(element("path", class_="limit", d=_path(ends)))
    if y_shown is not None:
        ends = [(_LEFT, y_scale(y_shown)), (_WIDTH - _RIGHT, y_scale(y_shown))]
        drawn.append(element("path", class_="limit", d=_path(ends)))
    drawn.append(element("path", class_="front", d=_path(front)))
    labels = _label_places(marks, places, whiskers, front)
    together = zip(marks, places, whiskers, labels, strict=True)
    drawn += [_drawn_mark(*one) for one in sorted(together, key=lambda one: one[0].chosen)]  # the choice lies on top
    told = f"{y_label.capitalize()} against {x_label}. " + " ".join(f"{mark.note}." for mark in marks)
    return _drawing(drawn, key=key, title=title, told=told)


def curves(runs: Sequence[Curve], *, key: str, title: str) -> Element:
    """A value against training steps, a thin line a run, each model's name beside the ends of its lines.

    The axis spans what the runs that finished reach; a line that leaves it is cut there.
    """
    finished = [run for run in runs if not run.diverged]
    values = [y for run in finished or runs for _, y in run.points]
    steps = [x for run in runs for x, _ in run.points]
    names = list(dict.fromkeys(run.name for run in runs))
    right = _WIDTH - 12 - max(_text_width(_short(name, _LONGEST_AT_END)) for name in names) - 10
    height = max(_HEIGHT, _TOP + _BOTTOM + len(names) * _LINE)
    x_scale = _linear(0, max(steps), _LEFT + 8, right)
    y_scale = _linear(min(values), max(values), height - _BOTTOM - 8, _TOP + 8)
    low, high = min(values), max(values)
    drawn = [
        *_x_axis(x_scale, _ticks(0, max(steps), 4), 0, max(steps), "training step", height),
        *_y_axis(y_scale, low, high, ""),
    ]
    for run in runs:
        inside = [(x, min(max(y, low), high)) for x, y in run.points]
        line = [(x_scale(x), y_scale(y)) for x, y in inside]
        drawn.append(element("path", element("title", run.name), class_=f"run {_look(run.look)}", d=_path(line)))
        if run.diverged:
            drawn.append(element("path", class_=f"end {_look(run.look)}", d=_cross(*line[-1])))
    ends = []
    for name in names:
        of_name = [run for run in runs if run.name == name]
        lasting = [run for run in of_name if not run.diverged] or of_name
        last = [y_scale(min(max(run.points[-1][1], low), high)) for run in lasting]
        ends.append((sum(last) / len(last), of_name[0].look, name))
    ends.sort(key=lambda end: end[0])
    spread = _spread([y for y, _, _ in ends], _LINE, _TOP, height - _BOTTOM)
    for (y, look, name), label in zip(ends, spread, strict=True):
        line = [(right + 2, y), (right + 10, label)]
        drawn.append(element("path", class_=f"leader {_look(look)}", d=_path(line)))
        drawn.append(_text(right + 13, label + 4, _short(name, _LONGEST_AT_END), class_=f"name {_look(look)}"))
    told = f"{title} against training steps: {', '.join(names)}."
    return _drawing(drawn, key=key, title=title, told=told, height=height)


def difference(value: float, low: float, high: float, reach: float) -> Element:
    """A difference with its interval on a line from -reach to reach, to stand in a row of a table."""
    width, height = 150.0, 18.0
    scale = _linear(-reach, reach, 4, width - 4)
    middle = height / 2
    return element(
        "svg",
        element("path", class_="zero", d=_path([(scale(0), 0), (scale(0), height)])),
        element("path", class_="whisker", d=_path([(scale(low), middle), (scale(high), middle)])),
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


def _drawing(drawn: Iterable[Element], *, key: str, title: str, told: str, height: float = _HEIGHT) -> Element:
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", told, id=f"{key}-desc"),
        *drawn,
        class_="chart",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        viewBox=f"0 0 {_WIDTH:g} {height:g}",
    )


def _drawn_mark(mark: Mark, place: Point, whisker: Point, box: Box) -> Element:
    x, y = place
    low, high = whisker
    parts = [element("title", mark.note), element("path", class_="whisker", d=_path([(x, low), (x, high)]))]
    end = box.nearest(x, y)
    if math.dist(place, end) > 16:
        parts.append(element("path", class_="leader", d=_path([place, end])))
    if mark.chosen:
        parts.append(element("circle", class_="ring", cx=x, cy=y, r=_RING))
    parts.append(element("path", class_="shape", d=_shape(mark.look, x, y)))
    parts.append(_named(mark.name, box, x))
    return element("g", *parts, class_=f"mark {_look(mark.look)}{' chosen' if mark.chosen else ''}")


def _named(name: str, box: Box, x: float) -> Element:
    """A name in its box, which may be wider than the name, at the side that is nearer to the mark at `x`."""
    left, right, baseline = box.left, box.left + box.width, box.top + _LINE - 4
    if left >= x:
        return _text(left, baseline, _short(name), class_="name")
    if right <= x:
        return _text(right, baseline, _short(name), class_="name end")
    return _text((left + right) / 2, baseline, _short(name), class_="name middle")


def _label_places(
    marks: Sequence[Mark], places: Sequence[Point], whiskers: Sequence[Point], front: Sequence[Point]
) -> list[Box]:
    """A box for every mark's name: close to the mark, off every other name and mark, and off lines if there is room."""
    reach = [_RING if mark.chosen else _MARK + 2 for mark in marks]
    solid = [Box(x - r, y - r, 2 * r, 2 * r) for (x, y), r in zip(places, reach, strict=True)]
    lines = [
        (Box(x - 1, min(ends), 2, abs(ends[0] - ends[1])), 25) for (x, _), ends in zip(places, whiskers, strict=True)
    ]
    for (x0, y0), (x1, y1) in itertools.pairwise(front):
        lines.append((Box(min(x0, x1), min(y0, y1), abs(x0 - x1) + 1, abs(y0 - y1) + 1), 4))
    found: dict[int, Box] = {}
    # Names in the thick of it choose first.
    crowding = [sum(math.dist(a, b) < 60 for b in places) for a in places]
    for i in sorted(range(len(marks)), key=lambda i: (-crowding[i], places[i])):
        width = _text_width(_short(marks[i].name), bold=marks[i].chosen)
        taken = [*solid, *found.values()]
        boxes = _boxes(places[i], width, reach[i] + 4)
        found[i] = min(boxes, key=partial(_badness, place=places[i], taken=taken, lines=lines))
    return [found[i] for i in range(len(marks))]


def _boxes(place: Point, width: float, gap: float) -> list[Box]:
    """Where a name may stand: right, left, above or below its mark, or anywhere on a grid."""
    x, y = place
    middle = y - _LINE / 2
    beside = [(x + gap, middle), (x - gap - width, middle), (x + gap, y + 2), (x + gap, y - _LINE - 2)]
    beside += [(x - gap - width, y + 2), (x - gap - width, y - _LINE - 2)]
    right, bottom = _WIDTH - 4 - width, _HEIGHT - _BOTTOM - _LINE
    rows = int((bottom - _TOP) / _GRID) + 1
    columns = int((right - _LEFT - 4) / _GRID) + 1
    grid = [(_LEFT + 4 + _GRID * i, _TOP + _GRID * j) for i in range(columns) for j in range(rows)]
    inside = [(left, top) for left, top in beside if _LEFT + 4 <= left <= right and _TOP <= top <= bottom]
    return [Box(left, top, width, _LINE) for left, top in inside + grid]


def _badness(box: Box, place: Point, taken: Sequence[Box], lines: Sequence[tuple[Box, int]]) -> float:
    """Distance, much more for standing on a name or a mark, and its own price for standing on each line."""
    x, y = place
    collisions = sum(box.overlap(other, gap=2) for other in taken)
    crossings = sum(price for line, price in lines if box.overlap(line, gap=1))
    askew = abs(box.top + box.height / 2 - y)
    return 1000 * collisions + crossings + math.dist(place, box.nearest(x, y)) + 0.2 * askew


def _stairs(points: Sequence[Point]) -> list[Point]:
    """The border of what is reached: level from each point to the next one's x, then straight up to it."""
    corners = [(after[0], before[1]) for before, after in itertools.pairwise(points)]
    path = [points[0]]
    for corner, point in zip(corners, points[1:], strict=True):
        path += [corner, point]
    return [*path, (_WIDTH - _RIGHT, points[-1][1])]


def _x_axis(
    scale: Scale, ticks: Sequence[float], low: float, high: float, label: str, height: float = _HEIGHT
) -> list[Element]:
    y = height - _BOTTOM + 6
    drawn = [element("path", class_="axis", d=_path([(scale(low), y), (scale(high), y)]))]
    for tick in ticks:
        drawn.append(element("path", class_="axis", d=_path([(scale(tick), y), (scale(tick), y + 4)])))
        drawn.append(_text(scale(tick), y + 16, f"{tick:,.0f}" if tick >= 100 else f"{tick:.3g}", class_="tick middle"))
    return [*drawn, _text(_LEFT, height - 6, label, class_="label")]


def _y_axis(scale: Scale, low: float, high: float, label: str) -> list[Element]:
    x = _LEFT - 6
    drawn = [element("path", class_="axis", d=_path([(x, scale(low)), (x, scale(high))]))]
    ticks = _ticks(low, high, 5)
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 3
    style = f".{decimals}f" if max(map(abs, ticks)) < 1e5 else ".2g"
    for tick in ticks:
        drawn.append(element("path", class_="axis", d=_path([(x - 4, scale(tick)), (x, scale(tick))])))
        text = f"{tick:{style}}".replace("-", "−")
        drawn.append(_text(x - 7, scale(tick) + 4, text, class_="tick end"))
    return [*drawn, _text(4, 14, label, class_="label")] if label else drawn


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from low to high, about so many."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return [low]
    rough = (high - low) / about
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade, or only 1 where that makes too many; round numbers where it makes none."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [t for d in decades for t in (float(f"{f}e{d}") for f in factors) if low * 0.999 <= t <= high * 1.001]
        if len(ticks) <= 6:
            break
    return ticks if len(ticks) > 1 else _ticks(low, high, 3)


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    if high <= low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    inner = _linear(math.log(low), math.log(high), start, end)
    return lambda value: inner(math.log(value))


def _spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places in order, at least `gap` apart and within low and high if they can be, close to the sorted `wanted`."""
    places: list[float] = []
    for i, y in enumerate(wanted):
        places.append(max(y, low + i * gap, places[-1] + gap if places else low))
    for i in reversed(range(len(places))):
        ceiling = places[i + 1] - gap if i + 1 < len(places) else high
        places[i] = min(places[i], ceiling)
    return places


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
    return _path([(x + a, y + b) for a, b in outline]) + "z"


def _cross(x: float, y: float) -> str:
    return f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"


def _path(points: Iterable[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _text(x: float, y: float, text: str, *, class_: str) -> Element:
    return element("text", text, x=x, y=y, class_=class_)


def _look(look: int | None) -> str:
    return "base" if look is None else f"c{look % COLOURS}"


def _short(name: str, longest: int = _LONGEST) -> str:
    """Cut in the middle, for names that differ tend to differ at their ends."""
    tail = longest // 2
    return name if len(name) <= longest else f"{name[: longest - tail - 1]}…{name[-tail:]}"


def _text_width(text: str, *, bold: bool = False) -> float:
    """What a line of text takes at most in the sans-serif faces that people have; DejaVu Sans is the widest."""
    widths = {**dict.fromkeys("iljI.,:;'|!()[] ", 0.38), **dict.fromkeys("mwMW@%&…", 0.98)}
    ems = (widths.get(c, 1.0 if ord(c) > 0x2E7F else 0.73 if c.isupper() or c == "_" else 0.64) for c in text)
    return _TEXT * sum(ems) * (1.1 if bold else 1.0)
