"""What a measurement prints: three tables, and in words how it was made."""

from typing import Any

from rich.console import Group
from rich.text import Text

from bertram.benchmark.contestants import INT8
from bertram.exporting import MIN_AGREEMENT
from bertram.terminal import plain_table


def render_table(result: dict[str, Any]) -> Group:
    """What `rich` prints of `bench`'s result."""
    rows = result["rows"]
    lengths, shapes = list(rows[0]["latency_ms"]), list(rows[0]["peak_mb"])
    times, peaks = [f"ms, {length}" for length in lengths], [f"MB, {shape}" for shape in shapes]
    speed = plain_table("", "tokens a second", "of the ceiling", "p99 / p50 of a stream")
    size = plain_table("", *times, "load, s", *peaks)
    versus = plain_table("vs best other", "speed", *times, *peaks)
    for row in rows:
        speed.add_row(
            Text(row["setting"]),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['ceiling_share']:.0%}" if "ceiling_share" in row else "",
            f"{row['stream']['ratio']:.2f}",
        )
        size.add_row(
            Text(row["setting"]),
            *(f"{row['latency_ms'][length]:.1f}" for length in lengths),
            f"{row['load_seconds']:.2f}",
            *(f"{row['peak_mb'][shape]:.0f}" for shape in shapes),
        )
        if ratios := row.get("vs_best_other"):
            each = ratios["tokens_per_second"], *ratios["latency_ms"].values(), *ratios["peak_mb"].values()
            versus.add_row(Text(row["setting"]), *(f"{ratio:.2f}" for ratio in each))
    tables = [speed, size, *([versus] if versus.rows else [])]
    return Group(*(part for table in tables for part in (Text(), table)), Text(), Text("\n".join(_notes(result))))


def _notes(result: dict[str, Any]) -> list[str]:
    notes = [f"{name} is left out: {reason}" for name, reason in result["left_out"].items()]
    if result["agreement"] is not None and result["agreement"] < MIN_AGREEMENT:
        notes.append(
            f"{INT8} has all weights in int8 and agrees with the model to {result['agreement']:.1%} on drawn tokens; "
            "bertram export --texts measures this on yours, and keeps weights in float32 where needed, which is slower"
        )
    how = (
        f"{result['texts']:,} texts of {result['mean_tokens']} tokens on average, threads: {result['threads']}, "
        f"medians of {result['rounds']} round{'s' * (result['rounds'] > 1)}; loading and memory once, before them"
    )
    if ceiling := ", ".join(f"{value:,.0f} in {precision}" for precision, value in result["ceiling"].items()):
        how += f"; the machine multiplies matrices at 10⁹ operations a second, the ceiling: {ceiling}"
    return [*notes, how]
