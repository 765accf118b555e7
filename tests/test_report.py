import io
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bertram.comparison.differences import caveats
from bertram.comparison.report import page, write_report
from bertram.comparison.selection import Limits
from bertram.comparison.table import render_table
from bertram.pages import axes, charts, figures, labels
from bertram.pages.markup import POLICY
from bertram.tasks.regression import Regression
from bertram.tasks.similarity import Similarity
from fake_comparison import USUAL, Fake, comparison

NASTY = '</title></style></script><script>alert(1)</script><img src=x onerror="alert(2)"> & \'"[red]x[/red]'


class Page(HTMLParser):
    """What a browser's parser would see: every tag with its attributes, and the text of every table."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.rows, self.text, self.in_cell = [], [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("th", "td")

    def handle_data(self, data):
        self.text.append(data)
        if self.in_cell:
            self.rows[-1][-1] += data

    def named(self, tag, class_=None):
        return [a for t, a in self.tags if t == tag and (class_ is None or class_ in a.get("class", "").split())]


def printed(results, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render_table(results))
    return console.file.getvalue()


@pytest.fixture(scope="module")
def usual():
    return comparison()


@pytest.fixture(scope="module")
def nasty():
    fakes = [
        USUAL[0],
        Fake(NASTY, "bert-tiny", 0.85, 3.0, diverged=(1,)),
        Fake("[red]plain[/red]", "bert-mini", 0.87, 9.0),
    ]
    results, curves = comparison(fakes)
    results["data"]["labels"] = {NASTY: 3, "__proto__": 4}
    results["data"]["train"] = NASTY
    results["candidates"][1]["runs"][1]["reason"] = NASTY
    return results, curves


class TestPage:
    def test_names_the_choice_and_its_reason(self, usual):
        results, curves = usual
        found = Page(page(results, curves))
        text = "".join(found.text)
        assert f"Ship {results['choice']['model']}" in text
        assert results["choice"]["reason"] in text

    def test_is_written_whole(self, usual, tmp_path):
        write_report(*usual, tmp_path / "report.html")
        assert (tmp_path / "report.html").read_text(encoding="utf-8") == page(*usual)

    def test_loads_nothing(self, usual):
        html = page(*usual)
        found = Page(html)
        loading = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background", "style"}
        assert not [(t, a) for t, a in found.tags if loading & set(a)]
        assert not {"script", "link", "iframe", "object", "embed", "base", "img", "image", "use"} & {
            t for t, _ in found.tags
        }
        assert "url(" not in html
        assert "@import" not in html
        assert {"http-equiv": "Content-Security-Policy", "content": POLICY} in found.named("meta")

    def test_every_candidate_has_one_mark_in_each_scatter_and_one_row(self, usual):
        results, curves = usual
        found = Page(page(results, curves))
        assert len(found.named("g", "mark")) == 2 * len(results["candidates"])
        assert len(found.named("g", "chosen")) == 2
        assert len(found.named("tr", "chosen")) == 1
        for row in results["candidates"]:
            assert sum(cells[0] == row["model"] for cells in found.rows) == 1
        assert len(found.named("path", "run")) == 2 * 3 * 4  # two charts, three seeds, four models that train

    def test_engines_are_told_with_their_agreement(self):
        results, curves = comparison([USUAL[0], USUAL[2], replace(USUAL[3], agreement=None)])
        headings, *rows = [cells for cells in Page(page(results, curves)).rows if len(cells) > 6]
        found = [cells[headings.index("engine") :][:2] for cells in rows]
        assert headings[headings.index("engine") + 1] == "agreement"
        assert found == [["–", "–"], ["int8, 0.750", "99.6%"], ["fp32, 0.750", "100.0%"]]
        lines = [line.strip() for line in printed(results, 80).splitlines()]
        assert sum(line.startswith("int8, 0.750") for line in lines) == 1
        assert sum(line.startswith("fp32, 0.750") for line in lines) == 1

    def test_what_no_interval_holds_is_told(self):
        several, one = comparison(seeds=3), comparison(seeds=1)
        one[0]["data"]["split"] = "validation"
        for (results, curves), told in ((several, 0), (one, 1)):
            page_text, table_text = "".join(Page(page(results, curves)).text), printed(results, 200)
            for words in ("One run a model", "chose the checkpoints too"):
                assert page_text.count(words) == table_text.count(words) == told
            assert ("over items and seeds" in page_text) != bool(told)
            assert ("by Student's t" in page_text) != bool(told)
            assert ("bootstrap-95%-items-seeds" in results["candidates"][1]["score"]["signature"]) != bool(told)

    def test_every_pair_has_a_row(self, usual):
        results, curves = usual
        found = Page(page(results, curves))
        for pair in results["comparisons"]:
            (cells,) = [cells for cells in found.rows if cells[0] == f"{pair['a']} − {pair['b']}"]
            assert cells[1] == figures.score(pair["difference"])
            assert cells[-2:] == [figures.p_value(pair["p"]), figures.p_value(pair["p_holm"])]

    def test_charts_are_named_for_those_who_do_not_see_them(self, usual):
        found = Page(page(*usual))
        ids = {a["id"] for _, a in found.tags if "id" in a}
        drawn = found.named("svg", "chart")
        assert len(drawn) == 4
        for chart in drawn:
            assert chart["role"] == "img"
            assert set(chart["aria-labelledby"].split()) <= ids
        assert all(a.get("aria-hidden") == "true" for a in found.named("svg") if a not in drawn)

    def test_says_that_sharing_saves_storage_and_not_work(self, usual):
        text = "".join(Page(page(*usual)).text)
        told = re.search(r"albert-mini against bert-mini\.(.*?)(?=albert-mini against|Score against)", text, re.DOTALL)[
            1
        ]
        assert "Both compute about the same" in told
        assert "sharing parameters saves storage, not computation" in told
        assert text.count("sharing parameters saves") == 1

    def test_names_and_labels_are_text(self, nasty):
        results, curves = nasty
        html = page(results, curves)
        found = Page(html)
        assert not {"script", "img"} & {t for t, _ in found.tags}
        assert not [a for _, a in found.tags if any(name.startswith("on") for name in a)]
        text = "".join(found.text)
        assert NASTY in text
        assert "__proto__" in text
        assert [cells[-1] for cells in found.rows if cells[0] == NASTY and len(cells) == 4] == [NASTY]

    @settings(max_examples=30, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
    def test_any_name_keeps_the_structure(self, name):
        plain, odd = (Page(page(*_renamed(new))) for new in ("bert-tiny", name))
        assert [(t, sorted(a)) for t, a in plain.tags] == [(t, sorted(a)) for t, a in odd.tags]
        assert name in "".join(odd.text)

    def test_diverged_runs_are_listed_with_their_reasons(self):
        fakes = [*USUAL[:2], Fake("wild", "bert-mini", 0.8, 9.0, diverged=(0, 2))]
        found = Page(page(*comparison(fakes)))
        rows = [cells for cells in found.rows if cells[0] == "wild" and len(cells) == 4]
        assert rows == [
            ["wild", str(seed), str(40 + seed), f"the loss was not finite at step {40 + seed}"] for seed in (0, 2)
        ]
        assert len(found.named("path", "end")) == 2

    def test_a_candidate_without_a_score_is_named_and_not_drawn(self):
        fakes = [*USUAL[:2], Fake("wild", "bert-mini", 0.8, 9.0, diverged=(0, 1, 2))]
        results, curves = comparison(fakes)
        found = Page(page(results, curves))
        assert len(found.named("g", "mark")) == 2 * 2
        assert "not shown: wild." in "".join(found.text)
        assert [cells[1:3] for cells in found.rows if cells[0].startswith("wild") and len(cells) > 6] == [["–", "–"]]

    def test_all_diverged(self):
        results, curves = comparison([Fake("wild", "bert-mini", 0.8, 9.0, diverged=(0, 1, 2))])
        found = Page(page(results, curves))
        assert "Ship none of these" in "".join(found.text)
        assert not found.named("g", "mark")
        assert "every run diverged" in printed(results, 80)

    def test_a_single_candidate(self):
        found = Page(page(*comparison(USUAL[:1])))
        assert len(found.named("g", "mark")) == 2
        assert not found.named("path", "run")

    def test_regression(self):
        results, curves = comparison(USUAL[:3], task=Regression(2.5, 1.2))
        text = "".join(Page(page(results, curves)).text)
        assert "pearson" in text
        assert "accuracy" not in text
        assert "pearson" in printed(results, 80)

    def test_limits_are_drawn_where_they_bite(self):
        html = page(*comparison(USUAL[:3], limits=Limits(max_latency_ms=5.0, min_score=0.5)))
        assert len(Page(html).named("path", "limit")) == 1
        assert "A dotted line is a limit" in html
        harmless = page(*comparison(USUAL[:3], limits=Limits(max_latency_ms=500.0)))
        assert not Page(harmless).named("path", "limit")
        assert "A dotted line is a limit" not in harmless

    def test_a_busy_machine_is_told_of(self, usual):
        told = "p95 by round: bert-tiny 1.84 to 5.82 ms. Repeat the command to measure again"
        busy, curves = comparison([USUAL[0], replace(USUAL[1], slowest=3.0), USUAL[2]])
        assert told in "".join(Page(page(busy, curves)).text)
        assert told in " ".join(printed(busy, 80).split())
        assert "busy" not in page(*usual) + printed(usual[0], 80)

    def test_texts_that_were_cut_are_told_of(self):
        results, curves = comparison(USUAL[:3], seeds=1)
        rows = results["candidates"]
        for row, length, cut in ((rows[1], 128, 1_234), (rows[2], 512, 12)):  # of 18,000
            row |= {"max_length": length, "truncated_texts": cut}
        told = "bert-tiny read only the first 128 tokens of 1,234 of the 18,000 training texts."
        assert told in page(results, curves)
        assert sum("read only the first" in words for words in caveats(results)) == 1
        rows[1]["truncated_texts"] = 20_000  # of both texts of a row
        assert any("of the 36,000 training" in words for words in caveats(results | {"task": Similarity().to_dict()}))

    def test_runs_that_diverged_and_few_rows_are_told_of(self):
        results, _ = comparison((USUAL[0], replace(USUAL[2], diverged=(1, 2))))
        unknown, lost = caveats(results)
        assert unknown.startswith("One run a model")
        assert lost == "albert-mini: 2 of 3 runs diverged; its score is of the others."
        results["data"]["rows"]["test"] = 1
        assert "Only 1 row was judged: another sample may differ." in caveats(results)

    def test_what_may_only_guess_is_told_of(self):
        results, _ = comparison(seeds=3)
        low, model = min((row["score"]["low"], row["model"]) for row in results["candidates"])
        (told,) = caveats(results | {"constant_score": low})
        assert told.startswith(
            f"One answer to every text can score {figures.score(low)}, and {model} cannot be told from that"
        )

    def test_an_interval_without_width_is_told_of(self):
        results, _ = comparison(USUAL, seeds=3)
        results["candidates"][1]["score"] |= {"mean": 1.0, "low": 1.0, "high": 1.0}
        (told,) = caveats(results)
        assert told.startswith("bert-tiny: any draw of these texts scores the same")

    def test_what_is_not_known_of_seeds_is_told(self):
        results, _ = comparison(USUAL[:2], seeds=2)
        assert any(words.startswith("With so few seeds") for words in caveats(results))
        results["candidates"][1]["runs"][0] |= {"status": "diverged", "score": None}
        assert any(words.startswith("One run a model") for words in caveats(results))
        results, _ = comparison(USUAL, seeds=3)
        assert caveats(results) == []
        results["candidates"][1]["runs"][0]["score"] = 0.1
        assert caveats(results) == [
            "bert-tiny varies more from seed to seed than the others, so it is judged by its own seeds alone."
        ]

    def test_no_candidate_fits(self, usual):
        results, curves = comparison(limits=Limits(max_memory_mb=2.0))
        text = "".join(Page(page(results, curves)).text)
        assert "Ship none of these" in text
        assert text.count(" misses: ") == len(results["candidates"])


def _renamed(name):
    results, curves = _SMALL
    rename = {"bert-tiny": name}
    candidates = [row | {"model": rename.get(row["model"], row["model"])} for row in results["candidates"]]
    pairs = [row | {end: rename.get(row[end], row[end]) for end in "ab"} for row in results["comparisons"]]
    renamed = {rename.get(model, model): seeds for model, seeds in curves.items()}
    return results | {"candidates": candidates, "comparisons": pairs}, renamed


_SMALL = comparison(USUAL[:2], seeds=1, limits=Limits(max_latency_ms=1.0))


class TestColours:
    """Text keeps WCAG 2's contrast of 4.5 on the page in both schemes."""

    @pytest.mark.parametrize("scheme", [0, 1])
    def test_contrast(self, usual, scheme):
        html = page(*usual)
        found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", html.split(":root {")[1 + scheme].split("}")[0]))
        assert len(found) == 6 + charts.COLOURS
        for name in ["ink", "soft", "accent", *(f"c{i}" for i in range(charts.COLOURS))]:
            for ground in ("paper", "band"):
                assert _contrast(found[name], found[ground]) >= 4.5, (name, ground)


def _contrast(a, b):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


class TestPareto:
    def test_by_hand(self):
        """(3, 4) is beaten by (2, 5); (5, 5) costs more than (2, 5) and scores no more; (1, 2) beats (1, 1)."""
        points = [(3, 4), (1, 2), (2, 5), (5, 5), (4, 7), (1, 1)]
        assert charts.pareto(points) == [1, 2, 4]

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
    def test_is_what_nothing_beats(self, points):
        front = {points[i] for i in charts.pareto(points)}
        unbeaten = {(x, y) for x, y in points if not any((a <= x and b >= y) and (a, b) != (x, y) for a, b in points)}
        assert front == unbeaten


class TestLabels:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.5, 0.95)), min_size=1, max_size=8), st.integers(3, 40))
    def test_never_overlap_each_other_nor_leave_the_drawing(self, points, length):
        places = [(50 + 3.5 * x, 280 - 270 * y) for x, y in points]
        widths = [labels.text_width(labels.short(f"{i}" + "m" * length), bold=i == 0) for i in range(len(points))]
        reaches = [9.5 if i == 0 else 7.0 for i in range(len(points))]
        whiskers = [(labels.Box(x - 1, y - 9, 2, 18), 25.0) for x, y in places]
        boxes = labels.label_boxes(places, widths, reaches, whiskers)
        for i, box in enumerate(boxes):
            assert box.left >= 0
            assert box.left + box.width <= axes.WIDTH
            assert all(box.overlap(other) == 0 for other in boxes[i + 1 :])

    @given(st.lists(st.floats(20, 250), min_size=1, max_size=12))
    def test_at_the_ends_of_lines_keep_their_distance_and_order(self, wanted):
        places = labels.spread(sorted(wanted), 15.0, 24.0, 260.0)
        assert all(b - a >= 15 - 1e-6 for a, b in itertools.pairwise(places))
        assert places[0] >= 24 - 1e-6
        assert places[-1] <= 260 + 1e-6


class TestCurves:
    def test_a_run_of_one_point_is_a_dot(self):
        """Of a path that only moves nothing is painted."""
        runs = [charts.Curve("a", 0, [(1.0, 0.5), (2.0, 0.7)], False), charts.Curve("b", 1, [(2.0, 0.5)], False)]
        chart = charts.curves(runs, key="k", title="t")
        line, dot = (mark for mark in chart if mark.get("class", "").startswith("run "))
        assert (line.tag, line.get("class")) == ("path", "run c0")
        assert (dot.tag, dot.get("class"), dot.findtext("title")) == ("circle", "run c1", "b")
        assert line.get("d").endswith(f"L{float(dot.get('cx')):.1f} {axes.TOP + 8:.1f}")


class TestSmoothing:
    def test_keeps_a_constant_and_both_ends(self):
        line = [(step, 2.0) for step in range(1000)]
        found = charts.smoothed(line)
        assert len(found) <= 151
        assert {y for _, y in found} == {2.0}
        assert (found[0][0], found[-1][0]) == (0, 999)

    def test_halves_the_noise(self):
        found = charts.smoothed([(step, float(step % 2)) for step in range(300)])
        assert all(0.4 < y < 0.6 for _, y in found[5:-5])


class TestFigures:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.1184, "0.118"),
            (0.3, "0.3"),
            (4.606, "4.61"),
            (9.999, "10.0"),
            (45.2, "45.2"),
            (120.4, "120"),
            (1234.5, "1,234"),
            (0, "0"),
            (-4.606, "−4.61"),
        ],
    )
    def test_quantity(self, value, text):
        assert figures.quantity(value) == text

    @pytest.mark.parametrize(
        ("value", "text"), [(950, "950"), (11.17e6, "11.2M"), (312_400, "312k"), (999_900, "1.00M"), (None, "–")]
    )
    def test_count(self, value, text):
        assert figures.count(value) == text

    @pytest.mark.parametrize(("p", "text"), [(0.0005, "< 0.001"), (0.0124, "0.012"), (0.214, "0.21"), (1.0, "1.00")])
    def test_p_value(self, p, text):
        assert figures.p_value(p) == text

    @pytest.mark.parametrize(
        ("a", "b", "text"),
        [
            (102, 100, "about the same"),
            (31, 10, "3.1 times"),
            (140, 100, "40% more"),
            (72, 100, "28% less"),
            (1, 600, "1/600"),
        ],
    )
    def test_relative(self, a, b, text):
        assert figures.relative(a, b) == text

    def test_no_score_is_minus_nought(self):
        assert figures.score(-0.0001) == "0.000"


class TestTable:
    @pytest.mark.parametrize("width", [80, 120])
    def test_fits_the_terminal_and_says_everything(self, usual, width):
        results, _ = usual
        lines = printed(results, width).splitlines()
        assert all(len(line) <= width for line in lines)
        for row in results["candidates"]:
            start = re.escape(row["model"]), re.escape(figures.score(row["score"]["mean"]))
            assert sum(re.match(rf"(→ )?{start[0]} +{start[1]} ", line) is not None for line in lines) == 1
        (chosen,) = [line for line in lines if line.startswith("→")]
        assert chosen.split()[1] == results["choice"]["model"]
        assert " ".join(results["choice"]["reason"].split()) in " ".join(" ".join(lines).split())

    def test_memory_on_a_gpu_stands_beside_the_process_s(self, usual):
        results, curves = usual
        rows = [
            row | {"training_memory_mb": 1753.2, "training_gpu_memory_mb": 16150.2} for row in results["candidates"]
        ]
        text = printed(results | {"candidates": rows}, 80)
        assert "1,753+16,150" in text
        assert "…" not in text
        assert "of the process + of the GPU" in text
        assert "1,753+16,150" in page(results | {"candidates": rows}, curves)
        assert "GPU" not in printed(results, 80)

    @pytest.mark.parametrize("width", [72, 80])
    def test_no_figure_loses_a_digit(self, usual, width):
        """Where a column has too little room, a figure goes on in the next line."""
        results, _ = usual
        large = {"training_memory_mb": 11753.2, "training_gpu_memory_mb": 16150.2, "tokens_per_second": 123_456.0}
        rows = [row | large for row in results["candidates"]]
        rows[0] = rows[0] | {"score": rows[0]["score"] | {"mean": 0.0432, "low": -0.0331, "high": 0.1204}}
        digits = re.sub(r"\D", "", printed(results | {"candidates": rows}, 200))
        assert sorted(re.sub(r"\D", "", printed(results | {"candidates": rows}, width))) == sorted(digits)

    def test_names_are_no_markup(self, nasty):
        assert "[red]plain[/red]" in printed(nasty[0], 200)

    def test_diverged_runs_are_counted(self, nasty):
        assert "1 of 3 diverged" in printed(nasty[0], 200)
