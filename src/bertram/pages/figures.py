"""Figures as people write them: three digits where three are known, a true minus, a unit."""

import math

MISSING = "–"


def quantity(value: float | None) -> str:
    """Three significant digits, and no fewer than all before the point: 0.118, 4.61, 45.2, 1,234."""
    if value is None:
        return MISSING
    size = abs(float(f"{value:.3g}"))  # 9.999 has the digits of 10.0
    digits = 0 if size == 0 else max(0, 2 - math.floor(math.log10(size)))
    rounded = f"{value:,.{digits}f}"
    return _minus(rounded.rstrip("0").rstrip(".") if "." in rounded and size < 1 else rounded)


def count(value: float | None) -> str:
    """The same with a letter for thousands, millions and billions: 950, 312k, 11.2M."""
    if value is None:
        return MISSING
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return quantity(value / size) + letter
    return f"{value:.0f}"


def megabytes(size: float) -> str:
    """A number of bytes in megabytes (10⁶ bytes)."""
    return f"{quantity(size / 1e6)} MB"


def score(value: float | None) -> str:
    """A score or a difference of two, to three decimals."""
    return MISSING if value is None else _minus(f"{value:.3f}".replace("-0.000", "0.000"))


def interval(low: float, high: float) -> str:
    return f"{score(low)} to {score(high)}"


def p_value(p: float) -> str:
    """Two digits or three, such as 0.21 and 0.012, and no fewer than a thousandth."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """`p_value` with its letter: p = 0.21, p < 0.001."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def relative(value: float, other: float) -> str:
    """How `value` stands to `other`, both above 0: "about the same", "3.1 times", "40% more", "28% less", "1/600"."""
    ratio = value / other
    if 0.95 < ratio < 1.05:
        return "about the same"
    if ratio >= 1.95:
        return f"{ratio:.1f} times" if ratio < 9.95 else f"{ratio:,.0f} times"
    if ratio <= 0.1:
        return f"1/{1 / ratio:,.0f}"
    return f"{abs(ratio - 1):.0%} {'more' if ratio > 1 else 'less'}"


def several(number: int, noun: str) -> str:
    """A number of things: 1 seed, 3 seeds."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _minus(text: str) -> str:
    return text.replace("-", "−")
