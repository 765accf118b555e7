"""What a measurement makes of its clock: rounds of single texts, which differ on a busy machine."""

import itertools
import re

import pytest

from bertram.comparison import measure as module
from bertram.text.table import Table

SAMPLE = Table([("word " * (row % 50)).strip() for row in range(100)], None, ["x"] * 100)


class Clock:
    """Time passes by answers alone: a millisecond a text, and for single ones times the `slowness` of their round."""

    def __init__(self, slowness=(1, 1, 1, 1, 1)):
        self.slowness, self.now, self.asked = slowness, 0.0, []

    def perf_counter(self):
        return self.now

    def answer(self, texts, texts_b):
        self.asked.append(len(texts))
        if len(texts) > 1:
            self.now += 1e-3 * len(texts)
        else:
            singles = self.asked.count(1) - 1 - module._WARM_UP
            self.now += 1e-3 * self.slowness[max(0, singles) // module._SINGLE_TEXTS]


@pytest.fixture
def measured(monkeypatch, tmp_path):
    def run(clock, sample=SAMPLE):
        monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(module, "is_baseline", lambda model: True)
        monkeypatch.setattr(module, "_baseline", lambda model: (clock.answer, 0.0, None))
        return module.measure(tmp_path, sample, 2.0)

    return run


def test_latency_is_that_of_the_middle_round(measured):
    assert measured(Clock((40, 2, 3, 1, 30)))["latency_ms"] == {"p50": 3, "p95": 3, "low": 1, "high": 40}


def test_rounds_lie_apart_and_throughput_is_measured_between_them(measured):
    clock = Clock()
    assert measured(clock)["texts_per_second"] == pytest.approx(1000)
    order = "".join("1" if number == 1 else "+" for number in clock.asked[module._WARM_UP :])
    assert re.fullmatch(rf"(1{{{module._SINGLE_TEXTS}}}\+{{3,5}}){{{module._ROUNDS}}}", order)  # 0.4 s of 0.1 s each


def test_one_pass_is_enough_where_it_takes_long(measured):
    clock = Clock()
    measured(clock, SAMPLE.select([row % 100 for row in range(5000)]))
    assert clock.asked.count(5000) == 1


def test_single_texts_have_all_lengths():
    lengths = [len(SAMPLE.texts[row]) for row in module._of_all_lengths(SAMPLE)]
    assert len(lengths) == module._SINGLE_TEXTS
    assert [lengths[0], lengths[-1]] == [0, 49 * 5 - 1]
    assert max(b - a for a, b in itertools.pairwise(lengths)) <= 10


def test_few_texts_are_all_measured(measured):
    clock = Clock()
    measured(clock, SAMPLE.select([3, 4]))
    assert clock.asked.count(1) == 2 * (1 + module._ROUNDS)  # a warm-up of both
