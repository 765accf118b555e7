"""The loop: what it computes, and that stopping it anywhere changes nothing."""

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bertram import interruption
from bertram.batch import IGNORED, Batch, Examples
from bertram.config import bert
from bertram.errors import BadInput
from bertram.models.heads import Model
from bertram.models.tensors import inputs_of, targets_of
from bertram.progress import Report, silent
from bertram.training import checkpoint, precision
from bertram.training.distributed import Processes
from bertram.training.feed import ShuffledRows
from bertram.training.loop import Loop, Outcome
from bertram.training.metrics_file import read_metrics
from bertram.training.recipe import Recipe
from bertram.training.setup import Evaluation, TrainingSetup
from bertram.training.step import Stepper

CONFIG = replace(bert(2, 64), vocab_size=40, num_attention_heads=2, intermediate_size=96)
RECIPE = Recipe(steps=40, batch_size=8, learning_rate=3e-3, save_every=7, log_every=1, evaluations=4)


def examples(rows: int = 64) -> Examples:
    """Texts whose label is whether token 7 stands in them."""
    random = np.random.default_rng(0)
    texts = [random.integers(8, 40, random.integers(2, 12)).tolist() for _ in range(rows)]
    labels = random.integers(0, 2, rows)
    inputs = Batch.pack([[1, *t, 7] if y else [1, *t] for t, y in zip(texts, labels, strict=True)])
    return Examples(inputs, {"classification": labels})


def train(out: Path, recipe: Recipe = RECIPE, report: Report = silent, **options: Any) -> tuple[Model, Outcome]:
    torch.manual_seed(recipe.seed)
    model = Model(CONFIG, {"classification": 2})
    evaluations = iter(range(1000))
    options = {
        "evaluate": lambda: evaluation(next(evaluations)),
        "constant_loss": lambda batch: math.log(2),
    } | options
    return model, run_loop(model, recipe, out, report, **options)


def run_loop(model: Model, recipe: Recipe, out: Path, report: Report = silent, **options: Any) -> Outcome:
    setup = TrainingSetup(network=model, feed=ShuffledRows(examples(), recipe.batch_size, recipe.seed), **options)
    return Loop(setup, recipe, out, Processes(0, 1, torch.device("cpu")), report).run()


def evaluation(score: float) -> Evaluation:
    return Evaluation(score, {"validation": score})


def losses(out: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(out / "metrics.jsonl") if "loss" in line}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_learns_a_word(tmp_path: Path, precision: Any) -> None:
    _, outcome = train(tmp_path, replace(RECIPE, steps=150, precision=precision))
    assert outcome.status == "finished"
    found = losses(tmp_path)
    assert np.mean([found[step] for step in range(141, 151)]) < 0.2 < found[1]


def test_data_share_counts_making_tensors_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that takes all the time there is, it is all of the step."""
    clock = [0.0]

    def slow(*arguments: Any) -> Any:
        clock[0] += 10.0
        return inputs_of(*arguments)

    monkeypatch.setattr("bertram.training.step.inputs_of", slow)
    monkeypatch.setattr("bertram.training.step.time", SimpleNamespace(monotonic=lambda: clock[0]))
    train(tmp_path, replace(RECIPE, steps=2))
    assert [line["data_share"] for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line] == [1.0, 1.0]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.02)])
def test_accumulation_changes_nothing(tmp_path: Path, precision: Any, tolerance: float) -> None:
    """A batch in passes of a text each, of which many are gathered, gives the gradient of the whole batch."""
    config = replace(RECIPE, steps=3, batch_size=40, precision=precision)
    small = replace(config, max_tokens=1)
    still = replace(CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0)
    found = []
    for name, recipe in (("whole", config), ("parts", small)):
        torch.manual_seed(0)
        model = Model(still, {"classification": 2})
        run_loop(model, recipe, tmp_path / name, evaluate=lambda: evaluation(0.0))
        lines = read_metrics(tmp_path / name / "metrics.jsonl")
        found.append([line[figure] for line in lines if "loss" in line for figure in ("loss", "gradient_norm")])
    assert found[0] == pytest.approx(found[1], rel=tolerance)


def test_same_seed_same_losses(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(tmp_path / name)
    train(tmp_path / "c", replace(RECIPE, seed=1))
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


def test_every_seed_and_step_has_dropout_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    make_pass = Stepper._pass

    def watched(self: Stepper, *given: Any) -> Any:
        drawn.append(float(torch.rand(())))
        return make_pass(self, *given)

    monkeypatch.setattr(Stepper, "_pass", watched)
    for seed in (0, 1, 2**31 - 1):
        train(tmp_path / str(seed), replace(RECIPE, steps=3, seed=seed))
    assert len(set(drawn)) == len(drawn) >= 9


@given(st.lists(st.lists(st.sampled_from([IGNORED, 0, 3]), min_size=1, max_size=4), max_size=5), st.booleans())
def test_targets_are_what_is_counted(rows: list[list[int]], whole: bool) -> None:
    """Of numbers all but IGNORED; of measurements all, whatever they are."""
    batch = Batch.pack(rows)
    labels = np.array([row[0] for row in rows], np.int64 if whole else np.float64)
    found = Examples(batch, {"pair": labels}, {"token": batch.token_ids})
    expected = {
        "pair": [(i, row[0]) for i, row in enumerate(rows) if not whole or row[0] != IGNORED],
        "token": [(i, token) for i, token in enumerate(token for row in rows for token in row) if token != IGNORED],
    }
    expected = {head: pairs for head, pairs in expected.items() if pairs}
    assert found.counts() == {head: len(pairs) for head, pairs in expected.items()}
    tensors = targets_of(found)
    assert tensors.keys() == expected.keys()
    for head, (places, values) in tensors.items():
        rows_of = range(len(values)) if places is None else places.tolist()
        assert list(zip(rows_of, values.tolist(), strict=True)) == expected[head]


class Killed(Exception):
    """Stands for SIGKILL: nothing of the loop's own handling may catch it."""


@pytest.mark.parametrize("last_step", [1, 7, 8, 20, 21, 39])
def test_resume_is_bit_identical(tmp_path: Path, last_step: int) -> None:
    def die(line: dict[str, Any]) -> None:
        if line["step"] == last_step:
            raise Killed

    whole, outcome = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "cut", report=die)
    evaluations = iter(range(last_step // 10, 1000))
    resumed, again = train(tmp_path / "cut", evaluate=lambda: evaluation(next(evaluations)))
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    assert (outcome.steps, outcome.tokens) == (again.steps, again.tokens)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_other_settings_do_not_resume(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(BadInput, match="other settings"):
        train(tmp_path, replace(RECIPE, learning_rate=1e-4))


def scored(
    out: Path, scores: list[float], meanwhile: Callable[[int], None] = lambda number: None, **recipe: Any
) -> tuple[Outcome, torch.Tensor, list[torch.Tensor]]:
    """Train with evaluations that give these scores; the outcome, a bias in the end, and as it was at each evaluation.

    `meanwhile` is called in every evaluation with its number, from 1 on.
    """
    given, kept = iter(scores), list[torch.Tensor]()
    torch.manual_seed(0)
    model = Model(CONFIG, {"classification": 2})
    bias = model.get_parameter("heads.classification.classifier.bias")

    def evaluate() -> Evaluation:
        kept.append(bias.detach().float().clone())
        meanwhile(len(kept))
        return evaluation(next(given))

    settings = replace(RECIPE, precision="fp32", **recipe)
    outcome = run_loop(model, settings, out, evaluate=evaluate)
    return outcome, bias.detach(), kept


def test_best_evaluation_is_kept(tmp_path: Path) -> None:
    """Scores that rise and fall: the model ends with the weights of the top, and patience stops the run."""
    outcome, bias, kept = scored(tmp_path, [0.1, 0.9, 0.3, 0.2], patience=1)
    assert (outcome.best_step, outcome.steps) == (20, 30)
    assert torch.equal(bias, kept[1])


def test_of_equal_evaluations_the_last_is_kept_and_patience_ends(tmp_path: Path) -> None:
    """One validation row is right at once, when little was learned."""
    outcome, bias, kept = scored(tmp_path, [0.5, 1.0, 1.0, 0.9], patience=2)
    assert (outcome.best_step, outcome.steps) == (30, 40)
    assert torch.equal(bias, kept[2])


def test_a_damaged_best_evaluation_is_told_and_the_one_before_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def damage(number: int) -> None:
        if number == 4:
            file = tmp_path / "checkpoints" / "best" / "step-20" / "state.safetensors"
            content = bytearray(file.read_bytes())
            content[-5] ^= 1
            file.write_bytes(content)

    outcome, bias, kept = scored(tmp_path, [0.5, 0.9, 0.3, 0.2], damage)
    assert outcome.best_step == 10
    assert torch.equal(bias, kept[0])
    assert "best/step-20: this checkpoint is damaged" in caplog.text


def test_what_a_killed_attempt_left_of_later_evaluations_is_made_anew(tmp_path: Path) -> None:
    """Their numbers are higher than those of the first evaluations that follow, which must not be pruned for them."""
    for step in (80, 90):
        checkpoint.save(tmp_path / "checkpoints" / "best", step, {"x": torch.zeros(1)}, {})
    outcome, bias, kept = scored(tmp_path, [0.9, 0.5, 0.4, 0.3])
    assert outcome.best_step == 10
    assert torch.equal(bias, kept[0])


def test_a_killed_attempt_leaves_the_best_of_its_last_checkpoint(tmp_path: Path) -> None:
    """Whatever was better after it: what goes on from there may compute other figures, as a GPU does."""

    def die(number: int) -> None:
        if number == 5:
            raise Killed

    with pytest.raises(Killed):  # at step 25, having been better at 5, 10, 15 and 20
        scored(tmp_path, [0.2, 0.3, 0.4, 0.5, 0.6], die, save_every=13, evaluations=8)
    outcome, *_ = scored(tmp_path, [0.1] * 6, save_every=13, evaluations=8)
    assert outcome.best_step == 10


def test_a_best_evaluation_that_was_lost_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def lose(_: int) -> None:
        shutil.rmtree(tmp_path / "checkpoints" / "best", ignore_errors=True)

    outcome, *_ = scored(tmp_path, [0.9, 0.5, 0.4, 0.3], lose)
    assert outcome.best_step == outcome.steps
    assert "has lost the best evaluation's weights" in caplog.text


def test_checkpoints_of_another_version_are_refused(tmp_path: Path) -> None:
    train(tmp_path)
    found = checkpoint.load_latest(tmp_path / "checkpoints")
    assert found is not None
    tensors, facts = found
    shutil.rmtree(tmp_path / "checkpoints")
    del facts["machine"]
    checkpoint.save(tmp_path / "checkpoints", facts.pop("step"), tensors, facts)
    with pytest.raises(BadInput, match="of another model or version"):
        train(tmp_path)


def test_another_machine_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def die(line: dict[str, Any]) -> None:
        if line.get("step") == 15:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path, replace(RECIPE, save_every=10), report=die)
    found = checkpoint.load_latest(tmp_path / "checkpoints")
    assert found is not None
    tensors, facts = found
    facts["machine"] |= {"threads": 64, "processes": 2}
    shutil.rmtree(tmp_path / "checkpoints")
    checkpoint.save(tmp_path / "checkpoints", facts.pop("step"), tensors, facts)
    train(tmp_path, replace(RECIPE, save_every=10))
    assert "this training began with threads 64 and processes 2; losses may differ" in caplog.text


def test_nan_is_divergence(tmp_path: Path) -> None:
    """The step that shows it has a line, and no second one when the training is taken up again."""
    recipe = replace(RECIPE, learning_rate=1e30, precision="fp32", log_every=100, save_every=1)
    for _ in range(2):
        _, outcome = train(tmp_path, recipe)
        assert outcome.status == "diverged"
        assert outcome.steps < 40
        (line,) = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
        assert line["step"] == outcome.steps
        assert None in (line["loss"], line["gradient_norm"])


def test_the_last_step_has_a_line(tmp_path: Path) -> None:
    for _ in range(2):
        train(tmp_path, replace(RECIPE, log_every=15))
        assert list(losses(tmp_path)) == [15, 30, 40]


def test_no_score_that_is_no_number_is_the_best(tmp_path: Path) -> None:
    """And every checkpoint is JSON, which knows no NaN."""
    scores = iter([math.nan, 0.5, math.inf, -math.inf])
    _, outcome = train(tmp_path, evaluate=lambda: evaluation(next(scores)))
    assert (outcome.status, outcome.best_step) == ("finished", 20)
    _, outcome = train(tmp_path / "never", evaluate=lambda: evaluation(math.nan))
    assert (outcome.status, outcome.best_step) == ("finished", 0)
    for out in (tmp_path, tmp_path / "never"):
        assert checkpoint.load_latest(out / "checkpoints") is not None


def test_an_early_stop_is_in_a_checkpoint(tmp_path: Path) -> None:
    """With its evaluation, which need not be made again where scoring is interrupted."""
    patient = replace(RECIPE, steps=40, evaluations=20, patience=2, save_every=6)
    _, outcome = train(tmp_path, patient, evaluate=lambda: evaluation(0.5))
    assert outcome.steps == 6
    found = checkpoint.load_latest(tmp_path / "checkpoints")
    assert found is not None
    assert (found[1]["step"], found[1]["state"]["evaluated"], found[1]["state"]["stale"]) == (6, 6, 2)


def test_a_loss_that_stays_is_divergence_beside_a_constant_one_only(tmp_path: Path) -> None:
    flat = replace(RECIPE, steps=100, learning_rate=0.0)
    nearly = 0.68  # what is untrained has about 0.693
    _, outcome = train(tmp_path / "beside one", flat, constant_loss=lambda batch: nearly)
    assert outcome.status == "diverged"
    assert "no more than one answer" in outcome.reason
    _, outcome = train(tmp_path / "alone", flat, constant_loss=None)
    assert (outcome.status, outcome.reason) == ("finished", "")


def test_loss_that_does_not_fall_is_divergence(tmp_path: Path) -> None:
    _, outcome = train(tmp_path, replace(RECIPE, steps=200, learning_rate=0.3))
    assert outcome.status == "diverged"
    assert "no more than one answer" in outcome.reason or "nan" in outcome.reason


def test_hours_become_steps_once(tmp_path: Path) -> None:
    _, outcome = train(tmp_path, replace(RECIPE, steps=None, hours=2 / 3600))
    assert outcome.steps > 1
    assert 0.5 < outcome.seconds < 8


def test_what_timing_decided_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of --hours, and the precision: also where a kill came before the first checkpoint of --save-every."""

    def die(line: dict[str, Any]) -> None:
        raise Killed

    monkeypatch.setattr("bertram.training.loop.chosen", lambda recipe, processes: "bf16")
    recipe = replace(RECIPE, steps=None, hours=2 / 3600, save_every=10**6)
    with pytest.raises(Killed):
        train(tmp_path, recipe, report=die)
    found = checkpoint.load_latest(tmp_path / "checkpoints")
    assert found is not None
    monkeypatch.setattr(Loop, "_begin", lambda self: pytest.fail("measured again"))
    monkeypatch.setattr("bertram.training.loop.chosen", lambda recipe, processes: pytest.fail("measured again"))
    _, outcome = train(tmp_path, recipe)
    assert (outcome.steps, outcome.precision) == (found[1]["state"]["total"], "bf16")


def test_a_checkpoint_comes_after_five_minutes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With steps of 70 seconds every fifth has one, and nothing of the training changes."""
    rare, clock, seen = replace(RECIPE, save_every=10**6), [0.0], set()
    expected, _ = train(tmp_path / "quick", rare)

    def tick(line: dict[str, Any]) -> None:
        clock[0] += 70.0 if "loss" in line else 0.0
        seen.update(path.name for path in (tmp_path / "slow" / "checkpoints").glob("step-*"))

    monkeypatch.setattr("bertram.training.loop.time", SimpleNamespace(monotonic=lambda: clock[0]))
    found, _ = train(tmp_path / "slow", rare, report=tick)
    assert seen == {f"step-{step}" for step in range(0, 41, 5)}
    assert all(map(torch.equal, found.parameters(), expected.parameters()))


def test_hours_leave_half_of_the_time_to_evaluations_and_so_make_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a step of half a second and an evaluation of 10 there is time for three of ten, and half for steps."""
    clock, make_step = [0.0], Stepper.take

    def now() -> float:
        clock[0] += 1e-6
        return clock[0]

    def step(*arguments: Any) -> Any:
        clock[0] += 0.5
        return make_step(*arguments)

    def evaluate() -> Evaluation:
        clock[0] += 10.0
        return evaluation(clock[0])

    for room in ("loop", "state", "step"):
        monkeypatch.setattr(f"bertram.training.{room}.time", SimpleNamespace(monotonic=now))
    monkeypatch.setattr(Stepper, "take", step)
    recipe = replace(RECIPE, steps=None, hours=100 / 3600, evaluations=10, average=1)
    _, outcome = train(tmp_path, recipe, evaluate=evaluate)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert sum("loss" not in line for line in lines) == 3
    assert clock[0] <= 100
    assert outcome.steps == 90
    assert "an evaluation takes 10 s: --hours leaves time for 3, not 10" in caplog.text


def test_the_greatest_peak_of_the_processes_that_trained_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(line: dict[str, Any]) -> None:
        if line["step"] == 20:
            raise Killed

    monkeypatch.setattr("bertram.training.state.peak_memory_mb", lambda: 500.0)
    with pytest.raises(Killed):
        train(tmp_path, report=die)
    monkeypatch.setattr("bertram.training.state.peak_memory_mb", lambda: 100.0)
    assert train(tmp_path)[1].peak_memory_mb == 500.0


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest"])
def test_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    tensors = {"x": torch.arange(100.0)}
    for step in (1, 2):
        checkpoint.save(tmp_path, step, tensors, {"state": {"step": step}})
    file = tmp_path / "step-2" / ("manifest.json" if damage == "manifest" else "state.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
    else:
        del content[len(content) // 2 :]
    file.write_bytes(content)
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    assert found[1]["state"] == {"step": 1}


def test_a_damaged_checkpoint_is_not_one_of_those_kept(tmp_path: Path) -> None:
    train(tmp_path)
    later = tmp_path / "checkpoints" / "step-1000"
    later.mkdir()
    (later / "state.json").write_text("{}")
    train(tmp_path)
    assert not later.exists()


def test_old_checkpoints_are_pruned(tmp_path: Path) -> None:
    for step in range(1, 6):
        checkpoint.save(tmp_path, step, {"x": torch.zeros(3)}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-4", "step-5"]


def test_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for a full disk: the save says so, and what was there is still whole."""
    code = f"""
import resource, torch
from pathlib import Path
from bertram.training import checkpoint
free, tensors = resource.RLIM_INFINITY, {{"x": torch.arange(4096.0)}}
for sixteenth in range(16):
    place = Path({str(tmp_path)!r}) / str(sixteenth)
    checkpoint.save(place, 1, tensors, {{}})
    limit = (place / "step-1" / "state.safetensors").stat().st_size * sixteenth // 16
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, free))
    try:
        checkpoint.save(place, 2, tensors, {{}})
    except OSError:
        told = sixteenth
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, free))
    print(told)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [str(sixteenth) for sixteenth in range(16)]
    for place in tmp_path.iterdir():
        found = checkpoint.load_latest(place)
        assert found is not None
        assert found[1]["step"] == 1
        assert torch.equal(found[0]["x"], torch.arange(4096.0))
        assert [p.name for p in place.iterdir()] == ["step-1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    def interrupt(line: dict[str, Any]) -> None:
        if line["step"] == 12 and "loss" in line:
            os.kill(os.getpid(), number)

    with pytest.raises(interruption.Interrupted) as caught:
        train(tmp_path, report=interrupt)
    assert caught.value.exit_code == 128 + number
    found = checkpoint.load_latest(tmp_path / "checkpoints")
    assert found is not None
    assert found[1]["state"]["step"] == 12


def test_nohup_keeps_a_hangup_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.stoppable(), interruption.StopRequests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_learning_rate_rises_and_falls(tmp_path: Path) -> None:
    train(tmp_path, replace(RECIPE, warmup=0.25))
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert int(np.argmax(rates)) == 10
    assert rates[10] == RECIPE.learning_rate
    assert np.all(np.diff(rates[:11]) > 0)
    assert np.all(np.diff(rates[10:]) < 0)
    assert math.isclose(rates[-1], RECIPE.learning_rate / 30)


def test_learning_rate_falls_by_a_power_of_what_is_left(tmp_path: Path) -> None:
    train(tmp_path, replace(RECIPE, warmup=0.25, decay_power=2.0))
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert rates[10:] == pytest.approx([3e-3 * ((40 - step) / 30) ** 2 for step in range(10, 40)])


def test_learning_rate_falls_by_the_root_of_the_step(tmp_path: Path) -> None:
    train(tmp_path, replace(RECIPE, warmup=0.25, schedule="inverse-sqrt"))
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    expected = [3e-3 * (step + 1) / 11 if step < 10 else 3e-3 * math.sqrt(11 / (step + 1)) for step in range(40)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(("third", "last", "averaged"), [(0.3, 0.6, 2), (0.3, 0.4, 1), (0.55, 0.6, 2)])
def test_the_mean_of_weights_is_kept_where_it_scores_better(
    tmp_path: Path, third: float, last: float, averaged: int
) -> None:
    """The fifth evaluation is of the mean of the third and the fourth, one of which is the best of all."""
    outcome, bias, kept = scored(tmp_path, [0.1, 0.2, third, 0.5, last], average=2)
    assert (outcome.best_step, outcome.averaged) == (40, averaged)
    expected = (kept[2] + kept[3]) / 2 if averaged == 2 else kept[3]
    torch.testing.assert_close(bias, expected)
    torch.testing.assert_close(kept[4], (kept[2] + kept[3]) / 2)


@pytest.mark.parametrize(
    ("native", "ratio", "expected"), [(True, 0.5, "bf16"), (True, 1.7, "fp32"), (False, 0.5, "fp32")]
)
def test_bfloat16_is_taken_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, native: bool, ratio: float, expected: str
) -> None:
    alone = Processes(0, 1, torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(
        precision, "_product_seconds", lambda *kinds: [ratio if kind is torch.bfloat16 else 1.0 for kind in kinds]
    )
    # What is kept stays kept.
    monkeypatch.setattr(precision, "_gains_by_bfloat16", precision._gains_by_bfloat16.__wrapped__)
    assert precision.chosen(Recipe(), alone) == expected
    assert all(precision.chosen(Recipe(precision=asked), alone) == asked for asked in ("bf16", "fp32"))


def test_a_signal_that_was_swallowed_stops_the_training() -> None:
    """As where it comes in a destructor, whose exceptions Python tells and forgets."""
    with interruption.stoppable():
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(interruption.Interrupted, match="SIGINT"), interruption.StopRequests() as stop:
            stop.check()
    with interruption.StopRequests() as stop:
        assert not stop.requested
