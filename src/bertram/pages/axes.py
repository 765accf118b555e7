"""The frame of a chart: the size of its drawing, scales, ticks and axes, and the strokes that all of it is made of.

Axes span the data only (the range frame; Tufte 1983). Lengths are in units of the drawing, which is shown at about one
unit a pixel.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from bertram.pages.markup import Element, element

WIDTH, HEIGHT = 420.0, 304.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 16.0, 24.0, 46.0  # margins

Scale = Callable[[float], float]
"""From a value to where it is drawn."""
Point = tuple[float, float]


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Values from low to high between start and end; all in the middle where low and high are one."""
    if high <= low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """The same by the logarithms of the values, which are above 0."""
    inner = linear(math.log(low), math.log(high), start, end)
    return lambda value: inner(math.log(value))


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from low to high, about so many."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return [low]
    rough = (high - low) / about
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade, or only 1 where that makes too many; round numbers where it makes none."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [t for d in decades for t in (float(f"{f}e{d}") for f in factors) if low * 0.999 <= t <= high * 1.001]
        if len(found) <= 6:
            break
    return found if len(found) > 1 else ticks(low, high, 3)


def x_axis(
    scale: Scale, at: Sequence[float], low: float, high: float, label: str, height: float = HEIGHT
) -> list[Element]:
    """The axis from low to high at the bottom of a drawing of this height, with ticks `at` some values."""
    y = height - BOTTOM + 6
    drawn = [element("path", class_="axis", d=path([(scale(low), y), (scale(high), y)]))]
    for tick in at:
        drawn.append(element("path", class_="axis", d=path([(scale(tick), y), (scale(tick), y + 4)])))
        drawn.append(text(scale(tick), y + 16, f"{tick:,.0f}" if tick >= 100 else f"{tick:.3g}", class_="tick middle"))
    return [*drawn, text(LEFT, height - 6, label, class_="label")]


def y_axis(scale: Scale, low: float, high: float, label: str) -> list[Element]:
    """The axis from low to high at the left, with ticks at round numbers, and `label` above it unless it is empty."""
    x = LEFT - 6
    drawn = [element("path", class_="axis", d=path([(x, scale(low)), (x, scale(high))]))]
    at = ticks(low, high, 5)
    decimals = max(0, -math.floor(math.log10(at[1] - at[0]) + 1e-9)) if len(at) > 1 else 3
    style = f".{decimals}f" if max(map(abs, at)) < 1e5 else ".2g"
    for tick in at:
        drawn.append(element("path", class_="axis", d=path([(x - 4, scale(tick)), (x, scale(tick))])))
        drawn.append(text(x - 7, scale(tick) + 4, f"{tick:{style}}".replace("-", "−"), class_="tick end"))
    return [*drawn, text(4, 14, label, class_="label")] if label else drawn


def path(points: Iterable[Point]) -> str:
    """The `d` of an SVG path through points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def text(x: float, y: float, words: str, *, class_: str) -> Element:
    """Words whose baseline is at y, and which begin at x unless the class says otherwise."""
    return element("text", words, x=x, y=y, class_=class_)
