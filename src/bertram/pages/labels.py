"""Where the names on a chart stand, so that they cover neither one another nor what they name.

Lengths are in units of the drawing, as in `axes`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from bertram.pages.axes import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, Point

LINE = 15.0
"""Height of a line of text."""

_TEXT = 12.0
_LONGEST = 20  # characters of a name that a chart shows
_GRID = 8.0  # step of the search for a label's place


@dataclass(frozen=True)
class Box:
    """A rectangle."""

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


def short(name: str, longest: int = _LONGEST) -> str:
    """Cut in the middle, for names that differ tend to differ at their ends."""
    tail = longest // 2
    return name if len(name) <= longest else f"{name[: longest - tail - 1]}…{name[-tail:]}"


def text_width(text: str, *, bold: bool = False) -> float:
    """What a line of text takes at most in the sans-serif faces that people have; DejaVu Sans is the widest."""
    widths = {**dict.fromkeys("iljI.,:;'|!()[] ", 0.38), **dict.fromkeys("mwMW@%&…", 0.98)}
    ems = (widths.get(c, 1.0 if ord(c) > 0x2E7F else 0.73 if c.isupper() or c == "_" else 0.64) for c in text)
    return _TEXT * sum(ems) * (1.1 if bold else 1.0)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places in order, at least `gap` apart and within low and high if they can be, close to the sorted `wanted`."""
    places: list[float] = []
    for i, y in enumerate(wanted):
        places.append(max(y, low + i * gap, places[-1] + gap if places else low))
    for i in reversed(range(len(places))):
        ceiling = places[i + 1] - gap if i + 1 < len(places) else high
        places[i] = min(places[i], ceiling)
    return places


def label_boxes(
    places: Sequence[Point], widths: Sequence[float], reaches: Sequence[float], lines: Sequence[tuple[Box, float]]
) -> list[Box]:
    """A box for the label of each mark: close to it, off every other label and mark, and off lines if there is room.

    Args:
        places, reaches: the middle of each mark, and how far it reaches from there.
        widths: of the labels.
        lines: what a label had better not cross, and at what price: as if it stood so much farther from its mark.
    """
    solid = [Box(x - r, y - r, 2 * r, 2 * r) for (x, y), r in zip(places, reaches, strict=True)]
    found: dict[int, Box] = {}
    # Labels in the thick of it choose first.
    crowding = [sum(math.dist(a, b) < 60 for b in places) for a in places]
    for i in sorted(range(len(places)), key=lambda i: (-crowding[i], places[i])):
        badness = partial(_badness, place=places[i], taken=[*solid, *found.values()], lines=lines)
        found[i] = min(_boxes(places[i], widths[i], reaches[i] + 4), key=badness)
    return [found[i] for i in range(len(places))]


def _boxes(place: Point, width: float, gap: float) -> list[Box]:
    """Where a label may stand: right, left, above or below its mark, or anywhere on a grid."""
    x, y = place
    middle = y - LINE / 2
    beside = [(x + gap, middle), (x - gap - width, middle), (x + gap, y + 2), (x + gap, y - LINE - 2)]
    beside += [(x - gap - width, y + 2), (x - gap - width, y - LINE - 2)]
    right, bottom = WIDTH - 4 - width, HEIGHT - BOTTOM - LINE
    rows = int((bottom - TOP) / _GRID) + 1
    columns = int((right - LEFT - 4) / _GRID) + 1
    grid = [(LEFT + 4 + _GRID * i, TOP + _GRID * j) for i in range(columns) for j in range(rows)]
    inside = [(left, top) for left, top in beside if LEFT + 4 <= left <= right and TOP <= top <= bottom]
    return [Box(left, top, width, LINE) for left, top in inside + grid]


def _badness(box: Box, place: Point, taken: Sequence[Box], lines: Sequence[tuple[Box, float]]) -> float:
    """Distance, much more for standing on a label or a mark, and its own price for standing on each line."""
    x, y = place
    collisions = sum(box.overlap(other, gap=2) for other in taken)
    crossings = sum(price for line, price in lines if box.overlap(line, gap=1))
    askew = abs(box.top + box.height / 2 - y)
    return 1000 * collisions + crossings + math.dist(place, box.nearest(x, y)) + 0.2 * askew
