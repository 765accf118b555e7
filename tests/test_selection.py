import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertram.comparison.selection import SIGNIFICANT, Limits, choose, difference_of
from bertram.errors import BadInput


def candidate(model, mb, mean=None, memory=10.0, p95=5.0):
    score = None if mean is None else {"metric": "accuracy", "mean": mean, "low": mean - 0.02, "high": mean + 0.02}
    return {
        "model": model,
        "bytes_on_disk": int(mb * 1e6),
        "inference_memory_mb": memory,
        "latency_ms": {"p50": p95 / 2, "p95": p95},
        "score": score,
        "engine": None,
        "directory": "runs/0",
        "runs": [{"directory": "runs/0", "status": "diverged" if mean is None else "finished", "score": mean}],
    }


def compared(candidates, p_holm):
    """Comparisons of all pairs; `p_holm` by pair, 1 where it is not given."""
    scored = [row for row in candidates if row["score"] is not None]
    found = []
    for i, a in enumerate(scored):
        for b in scored[i + 1 :]:
            difference = a["score"]["mean"] - b["score"]["mean"]
            bounds = {"low": difference - 0.03, "high": difference + 0.03}
            p = p_holm.get((a["model"], b["model"]), 1.0)
            found.append(
                {"a": a["model"], "b": b["model"], "difference": difference, **bounds, "p": p / 2, "p_holm": p}
            )
    return found


SMALL, MIDDLE, LARGE = (
    candidate("small", 1, 0.80),
    candidate("middle", 20, 0.90, 60, 7),
    candidate("large", 90, 0.91, 200, 30),
)
CANDIDATES = [LARGE, SMALL, MIDDLE]
WORSE = {("large", "small"): 0.001, ("small", "middle"): 0.002}


class TestParse:
    @pytest.mark.parametrize(
        ("text", "megabytes"),
        [("64MB", 64), ("1.5GB", 1500), ("1.5 gb", 1500), (".5GB", 500), ("500kB", 0.5), ("1MiB", 1.048576)],
    )
    def test_memory(self, text, megabytes):
        assert Limits.parse(text, None, None).max_memory_mb == pytest.approx(megabytes)

    @pytest.mark.parametrize(("text", "milliseconds"), [("20ms", 20), ("0.5s", 500), ("800us", 0.8), (" 3 ms ", 3)])
    def test_latency(self, text, milliseconds):
        assert Limits.parse(None, text, None).max_latency_ms == pytest.approx(milliseconds)

    def test_no_limit(self):
        assert Limits.parse(None, None, None) == Limits(None, None, None)

    @pytest.mark.parametrize(
        "text", ["3", "MB", "", "0MB", "-3MB", "nanMB", "infGB", "3 parsecs", "20ms", "1e3MB", "9" * 400 + "GB", 64]
    )
    def test_bad_memory_says_what_to_write(self, text):
        with pytest.raises(BadInput, match=r"--max-memory .*write .* 64MB or 1.5GB") as error:
            Limits.parse(text, None, None)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 150

    @pytest.mark.parametrize("text", ["20", "0s", "-1ms", "64MB", "٣ms", 20.0])
    def test_bad_latency_says_what_to_write(self, text):
        with pytest.raises(BadInput, match=r"--max-latency .*write .* 20ms or 0.5s"):
            Limits.parse(None, text, None)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 85.0, "0.9"])
    def test_bad_score_says_what_to_write(self, value):
        with pytest.raises(BadInput, match=r"--min-score .*from 0 to 1"):
            Limits.parse(None, None, value)


class TestWithALeastScore:
    def test_the_smallest_that_fits(self):
        found = choose(CANDIDATES, compared(CANDIDATES, WORSE), Limits(min_score=0.85))
        assert found["model"] == "middle"
        assert found["fits"] == ["large", "middle"]
        assert found["missed"] == {"small": ["accuracy 0.800, 0.050 short"]}
        assert found["limits"] == {"max_memory_mb": None, "max_latency_ms": None, "min_score": 0.85}
        assert (
            found["reason"]
            == "middle is the smallest of 2 candidates that fit, 20.0 MB on disk: accuracy 0.900, at least 0.85."
        )

    def test_an_interval_that_reaches_below_is_said(self):
        found = choose(CANDIDATES, compared(CANDIDATES, {}), Limits(min_score=0.89))
        assert found["reason"].endswith("But the 95% interval of its accuracy reaches down to 0.880.")

    def test_what_ships_must_reach_it_too(self):
        spoiled = MIDDLE | {"engine": {"precision": "int8", "agreement": 0.98, "score": 0.87}}
        found = choose([LARGE, spoiled], compared([LARGE, spoiled], {}), Limits(min_score=0.89))
        assert found["model"] == "large"
        assert found["missed"] == {"middle": ["accuracy of its engine 0.870, 0.020 short"]}

    def test_one_of_nothing_is_missed_by_less_than_nothing(self):
        found = choose([candidate("small", 1, -0.02)], [], Limits(min_score=0.0))
        assert found["model"] is None
        assert found["missed"]["small"][0].endswith("0.020 short")

    def test_a_low_one_takes_even_what_is_significantly_worse(self):
        assert choose(CANDIDATES, compared(CANDIDATES, WORSE), Limits(min_score=0.5))["model"] == "small"


class TestWhatTheMeanDoesNotSay:
    def test_an_engine_that_lost_some(self):
        spoiled = LARGE | {"engine": {"precision": "int8", "agreement": 0.98, "score": 0.87}}
        reason = choose([spoiled], [], Limits())["reason"]
        assert reason.endswith("Its engine, which ships, scores 0.870, the model 0.910.")
        kept = LARGE | {"engine": {"precision": "int8", "agreement": 0.98, "score": 0.9101}}
        assert "engine" not in choose([kept], [], Limits())["reason"]

    def test_runs_that_diverged(self):
        runs = [*LARGE["runs"], {"directory": "runs/1", "status": "diverged", "score": None}]
        assert choose([LARGE | {"runs": runs}], [], Limits())["reason"].endswith("1 of its 2 runs diverged.")


class TestWithoutALeastScore:
    def test_the_smallest_not_significantly_worse_than_the_best(self):
        found = choose(CANDIDATES, compared(CANDIDATES, WORSE | {("large", "middle"): 0.21}), Limits())
        assert found["model"] == "middle"
        assert found["reason"].startswith("middle, 20.0 MB on disk, is the smallest whose accuracy is not signif")
        assert (
            "0.900 against 0.910 of large, a difference of −0.010 (95% interval −0.040 to 0.020, p = 0.21"
            in found["reason"]
        )

    def test_the_best_where_all_others_are_worse(self):
        found = choose(CANDIDATES, compared(CANDIDATES, WORSE | {("large", "middle"): 0.01}), Limits())
        assert found["model"] == "large"
        assert (
            "large scores best, accuracy 0.910 with 90.0 MB on disk; both smaller candidates are sign"
            in found["reason"]
        )

    def test_best_and_smallest(self):
        found = choose([LARGE, candidate("tiny", 1, 0.95)], compared([LARGE, candidate("tiny", 1, 0.95)], {}), Limits())
        assert (
            found["reason"]
            == "tiny is the smallest candidate, 1.00 MB on disk, and none scores better: accuracy 0.950."
        )

    def test_limits_come_first_and_the_best_is_the_best_that_fits(self):
        found = choose(CANDIDATES, compared(CANDIDATES, WORSE), Limits(max_memory_mb=64, max_latency_ms=20))
        assert found["model"] == "middle"
        assert found["missed"] == {"large": ["memory 200 MB, 136 MB over", "p95 latency 30.0 ms, 10.0 ms over"]}
        assert found["reason"].startswith("Of the 2 candidates that fit, middle scores best")
        assert found["reason"].endswith("within the limits: memory 60.0 MB of 64; p95 latency 7.00 ms of 20.")

    def test_a_single_candidate(self):
        found = choose([SMALL], [], Limits())
        assert found["model"] == "small"
        assert found["reason"] == "small is the only candidate that fits: accuracy 0.800, 1.00 MB on disk."


class TestNoneFits:
    def test_says_by_how_much_the_nearest_misses(self):
        """By parts of the limit: small misses 0.95 by 16%, middle 10 MB six times over."""
        found = choose(CANDIDATES, compared(CANDIDATES, {}), Limits(max_memory_mb=10, min_score=0.95))
        assert found["model"] is None
        assert found["fits"] == []
        assert set(found["missed"]) == {"small", "middle", "large"}
        assert found["reason"] == "No candidate fits. small comes nearest: accuracy 0.800, 0.150 short."

    def test_diverged_candidates_never_fit(self):
        lost = candidate("lost", 0.1)
        found = choose([lost, SMALL], [], Limits())
        assert found["model"] == "small"
        assert found["missed"] == {"lost": ["every run diverged"]}
        alone = choose([lost], [], Limits())
        assert alone["model"] is None
        assert alone["reason"] == "No candidate fits: every run diverged."


def test_differences_are_turned():
    found = difference_of("middle", "large", compared(CANDIDATES, {}))
    assert found["difference"] == pytest.approx(-0.01)
    assert (found["low"], found["high"]) == (pytest.approx(-0.04), pytest.approx(0.02))
    back = difference_of("large", "middle", compared(CANDIDATES, {}))
    assert (back["low"], back["high"]) == (-found["high"], -found["low"])


@st.composite
def comparisons(draw):
    scores = draw(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=6))
    cost = st.floats(0.01, 1000)
    rows = [candidate(f"m{i}", draw(cost), score, draw(cost), draw(cost)) for i, score in enumerate(scores)]
    p = {(a["model"], b["model"]): draw(st.sampled_from([0.001, 0.04, 0.06, 1.0])) for a in rows for b in rows}
    return rows, compared(rows, p)


bound = st.none() | st.floats(0.01, 1000)
limits = st.builds(Limits, bound, bound, st.none() | st.floats(0.01, 1))


def keeps(row, limit):
    pairs = [
        (row["inference_memory_mb"], limit.max_memory_mb),
        (row["latency_ms"]["p95"], limit.max_latency_ms),
        (-row["score"]["mean"] if row["score"] else math.inf, None if limit.min_score is None else -limit.min_score),
    ]
    return row["score"] is not None and all(most is None or value <= most for value, most in pairs)


@given(comparisons(), limits)
def test_the_chosen_one_fits_and_nothing_smaller_would_do(compared_rows, limit):
    rows, pairs = compared_rows
    found = choose(rows, pairs, limit)
    fitting = [row for row in rows if keeps(row, limit)]
    assert found["fits"] == [row["model"] for row in fitting]
    assert set(found["missed"]) == {row["model"] for row in rows} - set(found["fits"])
    assert (found["model"] is None) == (not fitting)
    if not fitting:
        return
    chosen = next(row for row in fitting if row["model"] == found["model"])
    smaller = [row for row in fitting if row["bytes_on_disk"] < chosen["bytes_on_disk"]]
    if limit.min_score is not None:
        assert not smaller
        return
    best = max(row["score"]["mean"] for row in fitting)
    for row in smaller:
        rivals = [other for other in fitting if other["score"]["mean"] == best and other is not row]
        assert any(difference_of(row["model"], other["model"], pairs)["p_holm"] < SIGNIFICANT for other in rivals)


@given(comparisons(), limits, st.floats(1, 10))
def test_looser_limits_never_lose(compared_rows, limit, factor):
    """What fitted still fits; with a least score the choice only gets smaller."""
    rows, pairs = compared_rows
    looser = replace(
        limit,
        max_memory_mb=limit.max_memory_mb and limit.max_memory_mb * factor,
        max_latency_ms=limit.max_latency_ms and limit.max_latency_ms * factor,
        min_score=limit.min_score and limit.min_score / factor,
    )
    before, after = choose(rows, pairs, limit), choose(rows, pairs, looser)
    assert set(before["fits"]) <= set(after["fits"])
    if before["model"] is not None:
        assert after["model"] is not None
        if limit.min_score is not None:
            sizes = {row["model"]: row["bytes_on_disk"] for row in rows}
            assert sizes[after["model"]] <= sizes[before["model"]]
