"""The reports of compare and shrink in a browser: each stays within the page, can be read, runs and loads nothing."""

import json
import shutil

import pytest

from bertram.comparison.report import write_report
from bertram.comparison.selection import Limits
from bertram.files import write_json
from bertram.shrinking.report import write_report as write_shrinking_report
from fake_comparison import USUAL, Fake, comparison

pytestmark = pytest.mark.browser

NASTY = '</title></style><script>window.ran = 1</script><img src=x onerror="window.ran = 1">&"'
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", *QUIET]
CLOSE = [
    Fake("tf-idf", None, 0.871, 0.12),
    Fake("distilled-albert-for-reviews-v2-mini", "albert-mini", 0.878, 7.1, diverged=(1,)),
    Fake("bert-mini", "bert-mini", 0.876, 6.8),
    Fake("bert-mini-2", "bert-mini", 0.874, 6.9),
    Fake("WWWWWWWWWWWWWWWWWWWWWWWWWWWW", "albert-small", 0.88, 22.0),
    Fake("情感分析模型中文版第二版本测试用", "bert-small", 0.881, 21.0),
    Fake(NASTY, "bert-base", 0.886, 104.0),
]
CASES = {
    "usual": lambda: comparison(),
    "close": lambda: comparison(CLOSE, limits=Limits(max_memory_mb=64.0, max_latency_ms=20.0)),
    "none fits": lambda: comparison(limits=Limits(max_memory_mb=2.0, min_score=0.89)),
    "single": lambda: comparison(USUAL[:1]),
    "all diverged": lambda: comparison([Fake("wild", "bert-mini", 0.8, 9.0, diverged=(0, 1, 2))]),
}
SCREENS = [(width, scheme) for width in (1280, 400, 320) for scheme in ("light", "dark")]
WIDEST = "svg text { font-family: 'DejaVu Sans', Verdana !important; }"
"""The widest letters there are."""

# Pairs of texts of a chart whose boxes overlap by more than a pixel, and texts that leave it.
COLLISIONS = """() => {
  const found = [];
  for (const chart of document.querySelectorAll("svg.chart")) {
    const box = chart.getBoundingClientRect();
    const boxes = [...chart.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
    boxes.forEach(([a, p], i) => {
      if (p.left < box.left || p.right > box.right || p.bottom > box.bottom) found.push([a, "leaves the chart"]);
      for (const [b, q] of boxes.slice(i + 1)) {
        const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
        const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
        if (across > 1 && down > 1) found.push([a, b]);
      }
    });
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    for name, make in CASES.items():
        results, curves = make()
        results["data"]["labels"] = {NASTY: 3, "x" * 300: 4}
        write_report(results, curves, folder / f"{name}.html")
    for place, name in enumerate(("one group", "two groups", "rank 16", NASTY.replace("/", "|"))):
        write_json(folder / name / "results.json", shrunken(place))
        lines = [{"step": step, "validation_cosine": 1 - 1 / step} for step in (5, 10, 20)]
        (folder / name / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    write_shrinking_report(folder / "rank 16", shrunken(2))
    return folder


def shrunken(place):
    """results.json of `bertram shrink`."""
    measured = {"precision": "int8", "tokens_per_second": 9e3, "latency_ms": {"16": 2.5}, "peak_mb": {"8 × 30": 80.0}}
    measured |= {"max_length": 128}
    sides = {
        side: measured | {"model": NASTY, "unique_parameters": count, "engine_bytes": count, "scores": {}}
        for side, count in (("teacher", 22_000_000), ("student", 6_000_000 + 300_000 * place))
    }
    sides["teacher"]["sha256"] = "0"
    near = {"value": 0.9 + 0.02 * place, "low": 0.89, "high": 0.97, "n": 500}
    return sides | {
        "shrinking": {"groups": 1, "depth": 6, "embedding_size": 128, "rank": 8 * place},
        "agreement": {"vectors": near, "similarities": near},
        "data": {"rows": {"train": 10_000}},
        "held_out": {"texts": ["0"], "seed": 0, "max_length": 128},
        "evaluated": None,
    }


@pytest.mark.parametrize("case", [*CASES, "rank 16/report"])
def test_report(browser, reports, case):
    address = (reports / f"{case}.html").as_uri()
    page = browser.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address, wait_until="load")
    try:
        for width, scheme in SCREENS:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(COLLISIONS) == [], (width, scheme)
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(int(part) for part in ground[4:-1].split(",")) > 3 * 128) == (scheme == "light")
        page.add_style_tag(content=WIDEST)
        for width, scheme in SCREENS:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(COLLISIONS) == [], (width, scheme)
        assert asked == [address]
        assert said == []
        assert page.evaluate("window.ran") is None
    finally:
        page.close()


@pytest.mark.parametrize("width", [1280, 320])
def test_charts_are_big_enough_to_read(browser, reports, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((reports / "usual.html").as_uri())
    heights = page.evaluate(
        "[...document.querySelectorAll('svg.chart .name')].map(t => t.getBoundingClientRect().height)"
    )
    page.close()
    assert len(heights) == 2 * 5 + 2 * 4
    assert min(heights) >= 12
