"""Tables as a terminal shows them."""

from rich import box
from rich.table import Table
from rich.text import Text


def plain_table(*headings: str) -> Table:
    """A table with a line below its headings and no other; columns but the first are of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for place, heading in enumerate(headings):
        # Where there is no room, a number goes on in the next line, lest it lose digits.
        table.add_column(Text(heading), justify="right" if place else "left", no_wrap=not place, overflow="fold")
    return table
