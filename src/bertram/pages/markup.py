"""HTML and SVG as trees, so that whatever stands in them as text can only be text."""

from collections.abc import Iterable, Sequence
from importlib import resources
from xml.etree import ElementTree

Element = ElementTree.Element
Child = Element | str

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def element(tag: str, *children: Child, **attributes: object) -> Element:
    """An element with its children in order. `class_` stands for class, `_` for a hyphen; numbers are shortened."""
    made = Element(tag, {name.rstrip("_").replace("_", "-"): _value(value) for name, value in attributes.items()})
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + child
        else:
            made.text = (made.text or "") + child
    return made


def page_of(title: str, *children: Child) -> str:
    """A page of HTML, which runs no script and loads nothing."""
    style = resources.files("bertram.pages").joinpath("report.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style),
    )
    root = element("html", head, element("body", element("main", *children)), lang="en")
    return "<!doctype html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"


def table(name: str, headings: Sequence[str], rows: Iterable[Element]) -> Element:
    """A table in a box of its own."""
    head = element("thead", element("tr", *(element("th", heading, scope="col") for heading in headings)))
    return _scrolling(name, element("table", head, element("tbody", *rows)))


def figure(title: str, chart: Element, caption: str | None = None) -> Element:
    """A chart in a box of its own, between its title and its caption."""
    captions = [] if caption is None else [element("figcaption", caption)]
    return element("figure", element("h3", title), _scrolling(title, chart), *captions)


def _scrolling(name: str, child: Element) -> Element:
    """A box which scrolls sideways, by keyboard too, where the page is narrow."""
    return element("div", child, class_="scroll", tabindex=0, role="region", aria_label=name)


def _value(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
