"""What a training leaves: a model directory that Bertram, transformers, the hub and TensorBoard can read."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

import bertram
from bertram import run_directory
from bertram.checking.check import check
from bertram.config import bert
from bertram.errors import BadInput
from bertram.interruption import Interrupted
from bertram.model_card import model_card
from bertram.model_directory import ModelDirectory
from bertram.models.heads import ClassificationHead
from bertram.run_directory import SETTINGS, alone_in
from bertram.supervised.finetuning import EncoderTraining, LabelledSplits
from bertram.supervised.train import summary, train
from bertram.tasks.regression import Regression
from bertram.text.table import Table, read_table
from bertram.training.distributed import alone
from bertram.training.metrics_file import read_metrics
from bertram.training.recipe import Recipe
from bertram.training.state import State
from tiny import model_directory, rows, table

DATA = Path(__file__).parents[1].parent / "shared" / "data"
RECIPE = Recipe(steps=60, batch_size=16, learning_rate=3e-3, log_every=1, evaluations=3, precision="fp32")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    found = tmp_path_factory.mktemp("finetuning")
    table(found / "good.csv", 200)
    table(found / "test.csv", 50, seed=1)
    model_directory(found / "bare")
    arguments = {"model": found / "bare", "out": found / "out", "test": found / "test.csv", "recipe": RECIPE}
    train("classification", found / "good.csv", **arguments)
    return found


@pytest.fixture(scope="module")
def manifest(place):
    return json.loads((place / "out" / "bertram.json").read_text())


def test_a_finished_training_leaves_no_checkpoints(place, tmp_path):
    """Nor does one that was killed while it deleted them; a diverged one keeps them."""
    leftover = place / "out" / "checkpoints"
    assert not leftover.exists()
    (leftover / "step-1").mkdir(parents=True)
    given = {"model": place / "bare", "out": place / "out", "test": place / "test.csv", "recipe": RECIPE}
    train("classification", place / "good.csv", **given, resume=True)
    assert not leftover.exists()
    wild = given | {"out": tmp_path / "out", "recipe": replace(RECIPE, learning_rate=1e30)}
    assert train("classification", place / "good.csv", **wild)["status"] == "diverged"
    train("classification", place / "good.csv", **wild, resume=True)
    assert (tmp_path / "out" / "checkpoints").exists()


def test_labels_are_smoothed_where_the_recipe_says_so(place, tmp_path):
    splits = LabelledSplits.read({"train": [place / "good.csv"]})
    for smoothing in (0.1, None):
        recipe = replace(RECIPE, label_smoothing=smoothing)
        training = EncoderTraining(
            task=splits.task("classification"), splits=splits, source=ModelDirectory(place / "bare"), recipe=recipe
        )
        setup = training.begin(tmp_path, alone())
        assert setup.network.heads["classification"].label_smoothing == (smoothing or 0.0)


def test_it_learned(manifest):
    assert manifest["status"] == "finished"
    assert manifest["scores"]["test"][0]["value"] > 0.9


def test_scores_are_those_of_the_model_that_was_saved(place, manifest):
    held = read_table(place / "test.csv")
    predictor = bertram.load(place / "out")
    right = [a["label"] == label for a, label in zip(predictor.predict(held.texts), held.labels, strict=True)]
    assert manifest["scores"]["test"][0]["value"] == pytest.approx(np.mean(right))
    np.testing.assert_array_equal(predictor.logits(held.texts), np.load(place / "out" / "logits-test.npy"))


def test_the_summary_says_what_was_held_out_where_no_file_was_given(manifest):
    words = "held out for validation: 20 of 200 rows, a tenth of the training data, drawn with seed 0"
    assert words in summary(manifest).splitlines()
    data = manifest["data"] | {"sha256": manifest["data"]["sha256"] | {"validation": ["a file's"]}}
    assert "held out" not in summary(manifest | {"data": data})


def test_settings_and_their_signatures_are_kept(place, manifest):
    settings = json.loads((place / "out" / "training.json").read_text())
    assert settings["recipe"] == manifest["recipe"]
    assert settings["recipe"]["weight_decay"] == 0.01
    assert settings["data"]["rows"] == {"train": 180, "validation": 20, "test": 50}
    assert settings["data"]["validation"] == "a tenth of the training data, drawn with seed 0"
    assert manifest["scores"]["test"][0]["signature"].endswith("|n:50|split:test|seed:0")
    lines = read_metrics(place / "out" / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 61))
    assert [line["step"] for line in lines if "validation" in line] == [20, 40, 60]


def test_transformers_gives_the_same_logits(place):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = [text for text, _ in rows(20, seed=2)]
    model = AutoModelForSequenceClassification.from_pretrained(place / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(place / "out")
    with torch.inference_mode():
        theirs = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(bertram.load(place / "out").logits(texts), theirs, atol=1e-5)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert tokenizer.model_max_length == bertram.load(place / "out").max_length


def test_a_pipeline_of_transformers_reads_pairs_as_they_were_learned(tmp_path):
    """Cut where training cut them, too: it knows 12 of the model's 32 positions, and more when it is trained on."""
    from transformers import AutoTokenizer, pipeline

    pairs = list(zip(rows(20), rows(20, seed=1), strict=True))
    lines = [f"{a},{b},{label}\n" for (a, label), (b, _) in pairs]
    (tmp_path / "pairs.csv").write_text("text,text_b,label\n" + "".join(lines))
    model = model_directory(tmp_path / "bare", {"classification": 2}, unsettled=True)
    given, how = tmp_path / "pairs.csv", {"recipe": Recipe(steps=1)}
    train("classification", given, model=model, out=tmp_path / "out", max_length=12, **how)
    answers = bertram.load(tmp_path / "out").predict([{"text": a, "text_b": b} for (a, _), (b, _) in pairs])
    found = pipeline("text-classification", str(tmp_path / "out"), top_k=None)(
        [{"text": a, "text_pair": b} for (a, _), (b, _) in pairs], truncation=True
    )
    for theirs, ours in zip(found, answers, strict=True):
        assert {score["label"]: score["score"] for score in theirs} == pytest.approx(ours["scores"], abs=1e-5)
    train("classification", given, model=tmp_path / "out", out=tmp_path / "more", max_length=32, **how)
    assert AutoTokenizer.from_pretrained(tmp_path / "more").model_max_length == 32
    with pytest.raises(BadInput, match="--max-length must be a whole number from 3 to 32, not 33"):
        train("classification", given, model=tmp_path / "out", out=tmp_path / "no", max_length=33, **how)


def test_the_hub_reads_the_card(place, manifest):
    card = ModelCard.load(place / "out" / "README.md")
    results = card.data.eval_results
    assert [result.metric_type for result in results] == ["accuracy", "macro-f1", "matthews"]
    assert results[0].metric_value == pytest.approx(manifest["scores"]["test"][0]["value"], abs=1e-4)
    assert {(r.task_type, r.dataset_name, r.dataset_split) for r in results} == {
        ("text-classification", "good.csv", "test")
    }
    assert card.data.to_dict()["library_name"] == "bertram"


def test_tensorboard_reads_the_events(place):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place / "out" / "tensorboard"))
    events.Reload()
    losses = {e.step: e.value for e in events.Scalars("loss")}
    expected = {line["step"]: line["loss"] for line in read_metrics(place / "out" / "metrics.jsonl") if "loss" in line}
    assert losses == pytest.approx(expected)
    assert [event.step for event in events.Scalars("validation")] == [20, 40, 60]


def test_dry_run_takes_every_part_and_leaves_nothing(place, tmp_path):
    arguments = {"model": "bert-tiny", "out": tmp_path / "out", "test": place / "test.csv", "dry_run": True}
    found = train("classification", place / "good.csv", **arguments)
    assert found["steps"] == 1
    assert found["scores"].keys() == {"validation", "test"}
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_is_on_the_longest_rows_and_nothing_to_go_on_from(place, tmp_path):
    """Whether a batch fits into memory is what it is for."""
    rows = [f"{'a ' * number}end" for number in (3, 9, 1, 7, 5)]
    splits = LabelledSplits(*(Table(rows, None, ["x"] * 5) for _ in range(2)), None, {})
    assert [len(text) for text in splits.longest(2, 1).train.texts] == [21, 17]
    with pytest.raises(BadInput, match="--dry-run: leaves nothing to --resume"):
        train("classification", place / "good.csv", model="bert-tiny", out=tmp_path / "out", dry_run=True, resume=True)


def test_a_directory_that_is_removed_while_one_waits_for_it_is_made_again(tmp_path, monkeypatch):
    held = run_directory._held

    def removed(handle):
        monkeypatch.setattr(run_directory, "_held", held)
        (tmp_path / "out").rmdir()
        return held(handle)

    monkeypatch.setattr(run_directory, "_held", removed)
    with alone_in(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()


def test_a_model_that_is_trained_within_its_own_directory_is_still_the_same(place, tmp_path):
    model = shutil.copytree(place / "bare", tmp_path / "model")
    before = ModelDirectory(model).identity
    given = {"model": model, "out": model / "runs", "recipe": Recipe(steps=1, evaluations=1)}
    manifest = train("classification", place / "good.csv", **given)
    (model / "results.json").write_text("{}")
    assert ModelDirectory(model).identity == before
    assert train("classification", place / "good.csv", **given, resume=True) == manifest
    (model / "tokenizer_config.json").write_text("{}")
    assert ModelDirectory(model).identity != before


def test_a_resume_with_another_option_names_it(place, tmp_path):
    given = {"model": "bert-tiny", "out": tmp_path / "out", "recipe": Recipe(steps=1, evaluations=1)}
    train("classification", place / "good.csv", **given)
    with pytest.raises(BadInput, match="began with another cased"):
        train("classification", place / "good.csv", **given, cased=True, resume=True)


def test_an_interrupted_dry_run_promises_no_checkpoint(place, tmp_path, monkeypatch):
    def interrupted(*_):
        raise Interrupted(signal.SIGINT, "; a checkpoint was written")

    monkeypatch.setattr("bertram.training.loop.Loop.run", interrupted)
    with pytest.raises(Interrupted, match=r"^stopped by SIGINT$"):
        train("classification", place / "good.csv", model="bert-tiny", out=tmp_path / "out", dry_run=True)


def test_a_training_goes_on_where_out_is_called_as_its_preset(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"model": "bert-tiny", "out": "bert-tiny", "recipe": Recipe(steps=1, evaluations=1)}
    begun = train("classification", place / "good.csv", **settings)
    assert train("classification", place / "good.csv", **settings, resume=True) == begun


def test_a_refused_resume_leaves_what_began_there(place, tmp_path):
    def go_on(seed):
        settings = {"model": "bert-tiny", "recipe": Recipe(steps=1, evaluations=1, seed=seed)}
        return train("classification", place / "good.csv", **settings, out=tmp_path / "out", resume=True)

    finished = go_on(0)
    with pytest.raises(BadInput, match="began with another data and --seed"):
        go_on(1)
    assert go_on(0) == finished
    for file in (tmp_path / "out").iterdir():  # as a kill right after the beginning leaves it
        if file.name != SETTINGS:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    for _ in range(2):
        with pytest.raises(BadInput, match="began with another data and --seed"):
            go_on(1)


def test_one_process_at_a_time(place, tmp_path, monkeypatch):
    monkeypatch.setattr("bertram.run_directory._PATIENCE", 0.0)
    given = {"model": place / "bare", "out": tmp_path / "out", "recipe": Recipe(steps=1, evaluations=1)}
    with alone_in(tmp_path / "out"), pytest.raises(BadInput, match="another process is at work there"):
        train("classification", place / "good.csv", **given)
    assert train("classification", place / "good.csv", **given)["steps"] == 1


def test_several_processes_are_refused(place, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match=r"^train: takes one process; start it without torchrun"):
        train("classification", place / "good.csv", model=place / "bare", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_diverged_training_is_called_so(place, tmp_path):
    wild = replace(RECIPE, learning_rate=1e30)
    found = train("classification", place / "good.csv", model=place / "bare", out=tmp_path / "out", recipe=wild)
    assert found["status"] == "diverged"
    assert found["reason"].startswith("the loss was")
    assert found["scores"] == {}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Status: diverged." in card
    assert "model-index" not in card


def test_a_model_that_tells_no_texts_apart_is_warned_of(place, tmp_path, caplog):
    """After the one step that was asked for too, but not where it is only tried out, nor where it learned."""
    given = {"model": place / "bare", "out": tmp_path / "out"}
    train("classification", place / "good.csv", **given, dry_run=True)
    assert "tells none apart" not in caplog.text
    train("classification", place / "good.csv", **given, recipe=Recipe(steps=1, evaluations=1, learning_rate=0.0))
    said = f"{tmp_path / 'out'}: all 20 validation texts got the label "
    assert said in caplog.text
    assert "tells none apart; try a higher --learning-rate, more --epochs or more texts" in caplog.text
    caplog.clear()
    train("classification", place / "good.csv", model=place / "bare", out=tmp_path / "learned", recipe=RECIPE)
    assert not caplog.text


@pytest.mark.parametrize("scores", [{}, {"validation": []}])
def test_the_hub_reads_a_card_without_scores(place, manifest, scores):
    text = model_card(manifest | {"scores": scores})
    card = ModelCard(text)
    assert card.data.eval_results is None
    assert card.data.pipeline_tag == "text-classification"
    assert "## Scores\n\nNone.\n" in text
    assert 'predict(["a text"])' in text
    assert 'predict([{"text": "a text", "text_b": "another"}])' in model_card(manifest | {"pairs": True})


def test_the_card_says_exactly_what_a_logit_of_a_regression_stands_for(manifest):
    """A mean may be large beside the deviation, as that of years is."""
    task = Regression(1987.6543210987654, 0.012345678901234567)
    assert f"a value is {task.std!r} × logit + {task.mean!r}" in model_card(manifest | {"task": task.to_dict()})


def test_the_hub_reads_a_card_with_any_name(manifest):
    strange = "a\x7fb\x85\x9f: #\u2028"
    card = ModelCard(model_card(manifest | {"data": manifest["data"] | {"train": strange}}))
    assert card.data.eval_results[0].dataset_name == strange


def test_a_rare_label_that_is_held_out_is_known(tmp_path):
    """One row of three labels falls into the held-out tenth, and its label is the task's all the same."""
    pairs = [(f"text {i}", "x" if i % 2 else "y") for i in range(20)]
    for i in range(20):
        lines = [f"{t},{'rare' if j == i else y}" for j, (t, y) in enumerate(pairs)]
        (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]))
        splits = LabelledSplits.read({"train": [tmp_path / "t.csv"]})
        assert set(splits.labels) == {"x", "y", "rare"}


def test_pairs_and_numbers(tmp_path):
    lines = [
        f'{{"text": "{a}", "text_b": "{b}", "label": {len(a)}}}'
        for (a, _), (b, _) in zip(rows(40), rows(40, 1), strict=True)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    model = model_directory(tmp_path / "bare")
    found = train(None, tmp_path / "pairs.jsonl", model=model, out=tmp_path / "out", recipe=Recipe(steps=3))
    assert found["task"]["name"] == "regression"
    bertram.export(tmp_path / "out", format="engine", out=tmp_path / "a.engine", min_agreement=0)
    for place in ("out", "a.engine"):
        loaded = bertram.load(tmp_path / place)
        assert loaded.predict([{"text": "a film", "text_b": "a book"}])[0].keys() == {"score"}
        with pytest.raises(BadInput, match="trained on pairs of texts: each needs a text_b"):
            loaded.predict(["a film"])


def test_a_classifier_of_the_same_labels_goes_on_from_what_it_learned(tmp_path):
    data, recipe = table(tmp_path / "t.csv", 80), Recipe(steps=60, learning_rate=3e-3, log_every=1)
    one = Recipe(steps=1, log_every=1)
    model = model_directory(tmp_path / "bare")
    train("classification", data, model=model, out=tmp_path / "first", recipe=recipe)
    train("classification", data, model=tmp_path / "first", out=tmp_path / "again", recipe=one)
    swapped = tmp_path / "swapped.csv"
    swapped.write_text(data.read_text().replace(",good", ",zzz"))
    train("classification", swapped, model=tmp_path / "first", out=tmp_path / "other", recipe=one)
    first, again, other = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("first", "again", "other"))
    assert again[0]["loss"] < 0.5 * first[0]["loss"]
    assert other[0]["loss"] > again[0]["loss"] + 0.2


def test_a_regression_of_other_labels_goes_on_from_what_it_answered(tmp_path):
    """They lie elsewhere and are spread otherwise; a published model, of which no mean and deviation is known, as well.

    Labels in another unit are taken to lie as the first ones did, from where the model soon finds them.
    """
    texts = [text for text, _ in rows(60)]
    lengths = np.array([len(text) for text in texts], float)
    few = lengths >= np.median(lengths)
    kept, thousands = tmp_path / "kept.csv", tmp_path / "thousands.csv"
    chosen = [(text, n) for text, n, more in zip(texts, lengths, few, strict=True) if more]
    for file, lines in (
        (tmp_path / "all.csv", zip(texts, lengths, strict=True)),
        (kept, chosen),
        (thousands, [(text, 1000 * n) for text, n in chosen]),
    ):
        file.write_text("\n".join(["text,label", *(f"{text},{n}" for text, n in lines)]))
    model, learned = model_directory(tmp_path / "bare"), Recipe(steps=150, learning_rate=3e-3)
    first = train("regression", tmp_path / "all.csv", model=model, out=tmp_path / "first", recipe=learned)
    bertram.export(tmp_path / "first", format="huggingface", out=tmp_path / "published")
    still = Recipe(steps=1, learning_rate=0.0)

    def further(data, source):
        found = train("regression", data, model=tmp_path / source, out=tmp_path / f"{source}-{data.stem}", recipe=still)
        return found["task"], [a["score"] for a in bertram.load(tmp_path / f"{source}-{data.stem}").predict(texts)]

    expected = [answer["score"] for answer in bertram.load(tmp_path / "first").predict(texts)]
    for source in ("first", "published"):
        task, found = further(kept, source)
        assert task["mean"] > first["task"]["mean"] + 0.3 * task["std"]
        assert found == pytest.approx(expected, rel=1e-5)
    task, found = further(thousands, "first")
    deviations = (np.array(expected) - first["task"]["mean"]) / first["task"]["std"]
    assert (np.array(found) - task["mean"]) / task["std"] == pytest.approx(deviations, abs=1e-5)


def test_a_model_of_one_segment_refuses_pairs(tmp_path):
    model = model_directory(tmp_path / "bare", type_vocab_size=1)
    recipe = Recipe(steps=1)
    train("classification", table(tmp_path / "t.csv"), model=model, out=tmp_path / "out", recipe=recipe)
    predictor = bertram.load(tmp_path / "out")
    assert len(predictor.predict(["a film"])) == 1
    with pytest.raises(BadInput, match="trained on single texts: leave text_b out"):
        predictor.predict([{"text": "a film", "text_b": "a book"}])
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("text,text_b,label\n" + "a,b,x\nc,d,y\n" * 4)
    with pytest.raises(BadInput, match="no second segment"):
        train("classification", pairs, model=model, out=tmp_path / "other", recipe=recipe)


def test_a_mistyped_role_trains_on_no_other_column(place, tmp_path):
    with pytest.raises(BadInput, match="--columns: no role 'lable'; roles are text, text_b, label"):
        train("classification", place / "good.csv", model="bert-tiny", out=tmp_path / "out", columns={"lable": "text"})
    by_number = cast(dict[str, str], {"text": 1})
    with pytest.raises(BadInput, match="--columns: 1 is no text; columns counted from 1 are named '1', '2'"):
        train("classification", place / "good.csv", model="bert-tiny", out=tmp_path / "out", columns=by_number)
    as_typed = cast(dict[str, str], "text=text")
    with pytest.raises(BadInput, match="--columns: 'text=text' is no mapping of roles to names"):
        train("classification", place / "good.csv", model="bert-tiny", out=tmp_path / "out", columns=as_typed)
    with pytest.raises(BadInput, match="is no mapping"):
        check([place / "good.csv"], columns=as_typed)
    assert not (tmp_path / "out").exists()


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "columns", "task"),
    [
        ("sst2/dev.tsv.gz", {"text": "sentence"}, "classification"),
        ("chnsenticorp/dev.tsv.gz", {"text": "text_a"}, "classification"),
        ("glue/STS-B/train.tsv.gz", {"text": "8", "text_b": "9", "label": "10"}, "regression"),
    ],
)
def test_real_data(tmp_path, file, columns, task):
    if not (DATA / file).exists():
        pytest.skip(f"no {DATA / file}")
    arguments = {"model": "albert-tiny", "out": tmp_path / "out", "vocab_size": 2000, "dry_run": True}
    assert train(task, DATA / file, columns=columns, **arguments)["status"] == "finished"


def test_the_constant_loss_is_the_least_of_a_constant_answer() -> None:
    """Of rare labels the smoothed targets are far more even than the labels."""
    targets = torch.tensor([0] * 96 + [1] * 4)
    head = ClassificationHead(bert(1, 64), 2, 0.0).train()
    head.label_smoothing = 0.1
    shares = torch.linspace(0.01, 0.99, 981)
    losses = [head.loss(torch.stack([s.log(), (1 - s).log()]).expand(100, 2), targets) for s in shares]
    smoothed = head.constant_loss(targets)(targets)
    assert smoothed == pytest.approx(float(min(losses)), abs=1e-5)
    head.label_smoothing = 0.0
    assert head.constant_loss(targets)(targets) < 0.168 < smoothed


def test_a_loss_is_held_to_a_constant_answer_on_the_same_texts() -> None:
    """Late batches may have more of a rare label than the rest: a loss above that of all the data is no failure."""
    state = State(total=200, evaluations=1, position=(0, 0), step=200, loss_counts=[10] * 20)
    state.loss_sums, state.constant_sums = [1.0] * 16 + [3.0] * 4, [1.2] * 16 + [3.2] * 4
    assert state.learned_nothing() == ""
    state.loss_sums[-4:] = [3.3] * 4
    assert (
        "whose loss is 0.3200: the training's was 0.1000 in the first fifth and 0.3300 in the last"
        in state.learned_nothing()
    )
