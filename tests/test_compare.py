"""`bertram compare` on real processes: what it measures, what it chooses, and what it says of runs that diverged."""

import contextlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bertram
from bertram.comparison import candidates
from bertram.comparison import compare as module
from bertram.comparison.compare import BASELINE, compare
from bertram.errors import BadInput
from bertram.evaluation import evaluate_files
from bertram.text.tokenizer import Tokenizer
from bertram.training.recipe import Recipe
from forked_jobs import fork_jobs
from tiny import Fork, finish, model_directory, table

RECIPE = Recipe(steps=30, batch_size=8, learning_rate=3e-3, evaluations=3, precision="fp32")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    found = tmp_path_factory.mktemp("compare")
    table(found / "<b>good.csv", 120)
    table(found / "test.csv", 60, seed=1)
    model_directory(found / "bare")
    model_directory(found / "shared" / "bare", embedding_size=16, num_hidden_groups=1)
    return found


def arguments(place):
    models = [str(place / "bare"), str(place / "shared" / "bare")]
    return {"data": place / "<b>good.csv", "models": models, "test": place / "test.csv", "recipe": RECIPE}


@pytest.fixture(scope="module", autouse=True)
def briefly():
    """Measure for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_SECONDS", 0.1)
        yield


@pytest.fixture(scope="module")
def results(place):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        found = compare(**arguments(place), out=place / "out", seeds=2)
    steps = ["fitting the baseline", "measuring tf-idf"]
    steps += [f"{step} {name}" for name in ("bare", "bare-2") for step in ("exporting", "measuring")]
    assert said.getvalue().splitlines() == steps
    return found


def test_every_candidate_is_measured(place, results):
    assert json.loads((place / "out" / "results.json").read_text()) == json.loads(json.dumps(results))
    assert [row["model"] for row in results["candidates"]] == [BASELINE, "bare", "bare-2"]
    for row in results["candidates"]:
        latency = row["latency_ms"]
        assert 0 < latency["p50"] <= latency["p95"]
        assert latency["low"] <= latency["p95"] <= latency["high"]
        assert row["inference_memory_mb"] < row["inference_peak_mb"]
        assert row["score"]["low"] <= row["score"]["mean"] <= row["score"]["high"]
        assert row["bytes_on_disk"] > 100
        assert row["training_memory_mb"] > 50
    assert len(results["comparisons"]) == 3
    bare, shared = results["candidates"][1:]
    for row in (bare, shared):
        engine = bertram.load(place / "out" / "engines" / f"{row['model']}.engine")
        assert row["engine"]["score"] == evaluate_files(engine, [place / "test.csv"], None, None)[0].value
    assert bare["unique_parameters"] == bare["parameters"]
    assert shared["unique_parameters"] < shared["parameters"]
    assert results["choice"]["model"] in {row["model"] for row in results["candidates"]}


def test_scores_are_the_mean_over_seeds(results):
    for row in results["candidates"][1:]:
        assert [run["seed"] for run in row["runs"]] == [0, 1]
        assert row["score"]["mean"] == pytest.approx(np.mean([run["score"] for run in row["runs"]]))


def test_the_report_shows_markup_as_text(place, results):
    page = (place / "out" / "report.html").read_text()
    assert "&lt;b&gt;good.csv" in page
    assert "<b>good" not in page
    assert "<script" not in page


def test_what_is_shipped_loads(place, results):
    for row in results["candidates"][1:]:
        for model in (row["directory"], f"engines/{row['model']}.engine"):
            assert bertram.load(place / "out" / model).predict(["a lovely film"])[0]["label"] in ("good", "bad")
    chosen, best = results["choice"]["model"], place / "out" / "best.engine"
    assert best.exists() == (chosen != module.BASELINE)
    if best.exists():
        assert best.read_bytes() == (place / "out" / "engines" / f"{chosen}.engine").read_bytes()


def test_the_baseline_answers_too(place, results):
    found = bertram.load(place / "out" / "runs" / BASELINE)
    assert [answer["label"] for answer in found.predict(["a fine film", "an awful film"])] == ["good", "bad"]
    (row,) = [row for row in results["candidates"] if row["model"] == BASELINE]
    assert evaluate_files(found, [place / "test.csv"], None, None)[0].value == row["score"]["mean"]


def test_the_test_part_does_not_choose_the_run():
    def manifest(seed, validation, test):
        scores = {"validation": [{"value": validation}], "test": [{"value": test}]}
        facts = {
            "reason": "",
            **{"config": {}, "max_length": 8, "truncated_texts": 0},
            "peak_memory_mb": 1.0,
            "steps": 1,
            "seconds": 1.0,
            "tokens_per_second": 1.0,
        }
        return {"status": "finished", "recipe": {"seed": seed}, "scores": scores, **facts}

    lost = manifest(2, 0.99, 0.99) | {"status": "diverged"}
    manifests = {"a": manifest(0, 0.8, 0.7), "b": manifest(1, 0.7, 0.9), "c": lost}
    assert candidates._of_runs("m", manifests, "test")["directory"] == "a"


def test_a_diverged_run_is_no_score_and_stops_nothing(place, tmp_path):
    files = [place / "<b>good.csv", "--test", place / "test.csv", "--models", place / "bare", "--out", tmp_path / "out"]
    recipe = ["--steps", 30, "--batch-size", 8, "--evaluations", 3, "--learning-rate", 1e30]
    finish(Fork("compare", *files, *recipe, "--seeds", 1, prepare=fork_jobs))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    baseline, row = results["candidates"]
    assert results["choice"]["model"] == BASELINE == baseline["model"]
    assert row["score"] is None
    assert [run["status"] for run in row["runs"]] == ["diverged"]
    assert row["runs"][0]["score"] is None
    assert row["runs"][0]["reason"]
    assert results["choice"]["missed"][row["model"]] == ["every run diverged"]


def test_other_settings_are_not_mixed_in(place, results, monkeypatch):
    with pytest.raises(BadInput, match="began with another --steps"):
        compare(**arguments(place) | {"recipe": replace(RECIPE, steps=31)}, out=place / "out")
    with pytest.raises(BadInput, match="began with another data"):
        compare(**arguments(place) | {"test": table(place / "other.csv", 60, seed=2)}, out=place / "out")
    weights = place / "bare" / "model.safetensors"
    before = weights.read_bytes()
    try:
        save_file({name: tensor + 0.1 for name, tensor in load_file(weights).items()}, weights)
        job = next_job(monkeypatch, **arguments(place), out=place / "out")
        assert (job["kind"], job["label"]) == ("train", "bare-3-seed-0")
    finally:
        weights.write_bytes(before)


def test_the_same_command_only_measures_anew(place, results, monkeypatch):
    """However the models' directories are spelled."""
    asked, rows = [], iter(results["candidates"])
    given = {"export": results["data"]["rows"]["validation"], "measure": results["data"]["rows"]["test"]}

    def work(job, what, job_file):
        asked.append(job["kind"])
        assert len(job["sample"]["texts"]) == given[job["kind"]]
        if job["kind"] == "export":
            return {"precision": "int8", "agreement": 1.0, "score": 1.0}
        return next(rows) | {"latency_ms": {"p50": 1.0, "p95": 2.0, "low": 2.0, "high": 2.0}}

    monkeypatch.setattr(candidates, "done", work)
    monkeypatch.chdir(place / "shared")
    models = ["../bare/", "./bare"]
    again = compare(**arguments(place) | {"models": models}, out=place / "out", seeds=2, max_memory="1kB")
    assert asked == ["measure"] + ["export", "measure"] * 2
    assert [row["latency_ms"]["p95"] for row in again["candidates"]] == [2.0] * 3
    assert again["choice"]["model"] is None


def test_a_failing_run_is_one_line(place, results, tmp_path):
    shutil.copytree(place / "out", tmp_path / "out")
    broken = model_directory(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"training broken-seed-0: .*not a readable file of tensors") as caught:
        compare(**arguments(place) | {"models": [str(broken)]}, out=tmp_path / "out")
    assert "\n" not in str(caught.value)


class Asked(Exception):
    """The job that a comparison would do next."""


def next_job(monkeypatch, **given):
    def work(job, what, job_file):
        raise Asked(job)

    with monkeypatch.context() as patch:
        patch.setattr(candidates, "done", work)
        with pytest.raises(Asked) as caught:
            compare(**given)
    return caught.value.args[0]


def test_a_pickle_is_refused_at_once_and_read_when_allowed(place, results, tmp_path, monkeypatch):
    """And a length that leaves no room is told before anything is trained."""
    model = model_directory(tmp_path / "pickled")
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    given = arguments(place) | {"models": [str(model)], "out": tmp_path / "out"}
    with pytest.raises(BadInput, match="a pickle, which may hold code"):
        compare(**given)
    assert not given["out"].exists()
    shutil.copytree(place / "out", given["out"])
    with pytest.raises(BadInput, match="pickled: --max-length must be a whole number from 3 to 32, not 2"):
        compare(**given, allow_pickle=True, max_length=2)
    job = next_job(monkeypatch, **given, allow_pickle=True, max_length=16)
    assert (job["kind"], job["max_length"]) == ("train", 16)


@pytest.mark.slow
def test_every_model_gets_the_same_hours(place, tmp_path):
    recipe = replace(RECIPE, steps=None, hours=5 / 3600, evaluations=1)
    found = compare(**(arguments(place) | {"recipe": recipe}), out=tmp_path / "out")
    runs = [run for row in found["candidates"] for run in row["runs"] if row["model"] != BASELINE]
    assert [run["status"] for run in runs] == ["finished"] * 2
    for run in runs:
        assert 3 < run["seconds"] < 15  # of a machine on which something else may begin after speed was measured


def named(models, out):
    """What the worker is told to train, by the names of the candidates."""
    return {name: source.argument for name, source in module._sources(models, out, False).items()}


def test_models_keep_the_names_of_their_runs(place, results):
    """Also where another of the same name is not asked for, comes first or is new."""
    bare, shared, new = (str(place / name / "bare") for name in ("", "shared", "new"))
    model_directory(Path(new), num_hidden_layers=1)
    assert named([shared], place / "out") == {"bare-2": shared}
    assert named([f"{shared}/"], place / "out") == {"bare-2": shared}
    assert named([new, shared, bare], place / "out") == {"bare-3": new, "bare-2": shared, "bare": bare}
    assert named([new, f"{new}/"], place / "out") == {"bare-3": new}


def test_a_comparison_may_be_moved(place, results, tmp_path, monkeypatch):
    shutil.copytree(place, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    Path("linked").symlink_to("shared/bare")
    shared, bare, linked = (str(Path(name).absolute()) for name in ("shared/bare", "bare", "linked"))
    assert named(["shared/bare", "bare"], Path("out")) == {"bare-2": shared, "bare": bare}
    assert named(["linked", "shared/bare"], Path("out")) == {"bare-2": linked}


def test_models_that_differ_in_their_tokenizers_alone(place, results, tmp_path):
    other = shutil.copytree(place / "bare", tmp_path / "bare")
    Tokenizer.train(["other texts"], "bert", 30).save(other)
    names = named([str(place / "bare"), str(other)], tmp_path / "out")
    assert names == {"bare": str(place / "bare"), "bare-2": str(other)}
    assert named([str(other)], place / "out") == {"bare-3": str(other)}


def test_one_model_in_two_places_takes_part_once(place, tmp_path):
    copy = shutil.copytree(place / "bare", tmp_path / "copy")
    assert named([str(place / "bare"), str(copy)], tmp_path / "out") == {"bare": str(place / "bare")}


def test_a_model_is_called_as_its_link_is(place, results, tmp_path, monkeypatch):
    (tmp_path / "linked").symlink_to(model_directory(tmp_path / "target", num_hidden_layers=1))
    given = arguments(place) | {"models": [str(tmp_path / "linked")], "out": tmp_path / "out"}
    shutil.copytree(place / "out", given["out"])
    job = next_job(monkeypatch, **given)
    assert (job["kind"], job["label"], job["model"]) == ("train", "linked-seed-0", str(tmp_path / "linked"))


def test_a_path_is_a_directory_whatever_it_is_called(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "bare", "bert-mini")
    assert named([Path("bert-mini"), "bert-mini", "./bert-mini"], tmp_path / "out") == {
        "bert-mini": str(tmp_path / "bert-mini"),
        "bert-mini-2": "bert-mini",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": "pairs.csv", "models": ["bare", "one-segment"]}, "one-segment: the model has no second segment"),
        ({"vocab_size": 100}, "--vocab-size and --cased are for presets, and none is among the models"),
        ({"cased": True}, "--vocab-size and --cased are for presets, and none is among the models"),
    ],
)
def test_what_a_model_cannot_do_is_told_before_anything_is_trained(tmp_path, options, said):
    model_directory(tmp_path / "bare")
    model_directory(tmp_path / "one-segment", type_vocab_size=1)
    table(tmp_path / "single.csv", 20)
    (tmp_path / "pairs.csv").write_text("text,text_b,label\n" + "a,b,good\nc,d,bad\n" * 10)
    given = {"data": "single.csv", "models": ["bare"]} | options
    given |= {"data": tmp_path / given["data"], "models": [str(tmp_path / model) for model in given["models"]]}
    with pytest.raises(BadInput, match=said):
        compare(**given, recipe=RECIPE, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_too_small_is_told_before_anything_is_fitted(tmp_path):
    data = table(tmp_path / "single.csv", 20)
    with pytest.raises(BadInput, match="a vocabulary of 3 tokens is too small"):
        compare(data, "bert-tiny", tmp_path / "out", recipe=RECIPE, vocab_size=3)
    assert not (tmp_path / "out").exists()


def test_what_a_tokenizer_learns_by_is_for_the_presets(place, tmp_path, monkeypatch):
    seen = {}

    def training(*, source, vocab_size, cased, **rest):
        seen[str(source)] = vocab_size, cased

    def begin(out, settings):
        raise Asked

    monkeypatch.setattr(module, "EncoderTraining", training)
    monkeypatch.setattr(module, "_begin", begin)
    bare = str(place / "bare")
    with pytest.raises(Asked):
        compare(**arguments(place) | {"models": [bare, "bert-tiny"]}, out=tmp_path / "out", vocab_size=100, cased=True)
    assert seen == {bare: (None, False), "bert-tiny": (100, True)}
    with pytest.raises(Asked):
        compare(**arguments(place) | {"models": "bert-mini"}, out=tmp_path / "out")
    assert seen["bert-mini"] == (None, False)


def test_data_that_changed_meanwhile_is_refused(place, tmp_path, monkeypatch):
    test = tmp_path / "test.csv"
    shutil.copy(place / "test.csv", test)
    work = candidates.done

    def change(job, what, job_file):
        table(test, 60, seed=2)
        return work(job, what, job_file)

    monkeypatch.setattr(candidates, "done", change)
    with pytest.raises(BadInput, match="fitting the baseline: the data changed since"):
        compare(**arguments(place) | {"test": test}, out=tmp_path / "out")


def test_what_never_began_to_train_is_begun_with_other_data(place, tmp_path, monkeypatch):
    given = arguments(place) | {"out": tmp_path / "out", "models": [str(place / "bare")]}
    (blank := tmp_path / "blank.csv").write_text("text,label\n" + " ,good\n ,bad\n" * 20)
    with pytest.raises(BadInput, match="the training texts are blank"):
        compare(**given | {"data": blank, "test": None})
    assert next_job(monkeypatch, **given)["kind"] == "baseline"
    (given["out"] / "results.json").touch()  # as where somebody deleted the runs
    with pytest.raises(BadInput, match="began with another --steps"):
        compare(**given | {"recipe": replace(RECIPE, steps=31)})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seeds": 2}, "--seed"),
        ({"seeds": 2.0}, "--seeds 2.0: must be a whole number, at least 1"),
        ({"models": "none"}, "none"),
        ({"models": []}, "--models: none are given"),
    ],
)
def test_what_cannot_be_begun_is_told_at_once(place, tmp_path, options, said):
    given = arguments(place) | {"recipe": replace(RECIPE, seed=2**31 - 1)} | options
    with pytest.raises(BadInput, match=said):
        compare(**given, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_copy_of_a_model_is_told_of(place, tmp_path, monkeypatch, caplog):
    copy = shutil.copytree(place / "bare", tmp_path / "copy")
    given = arguments(place) | {"out": tmp_path / "out", "models": [place / "bare", str(place / "bare"), copy]}
    next_job(monkeypatch, **given)
    assert caplog.messages == [f"bertram: {copy}: the same model as bare; compared once"]


def test_lengths_are_not_mixed(place, results):
    with pytest.raises(BadInput, match="bare-seed-0: began with another max_length"):
        compare(**arguments(place), out=place / "out", max_length=16)
