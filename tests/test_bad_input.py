"""Every bad input is one clear line on standard error and exit code 2, and nothing is lost by it."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import bertram
from bertram.checking.check import check
from bertram.errors import BadInput
from bertram.evaluation import evaluate_files
from bertram.supervised.finetuning import EncoderTraining
from tiny import also_slowly, model_directory, rows, run, table


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A table, a model that never trained and one that did: everything in it is only read."""
    found = tmp_path_factory.mktemp("bad")
    table(found / "good.csv")
    model_directory(found / "bare")
    arguments = ["train", "classification", found / "good.csv", "--model", found / "bare", "--out", found / "trained"]
    assert run(*arguments, "--steps", 2) == 0
    return found


@pytest.fixture
def refused(capsys):
    """Run the command line, expect one line and exit code 2, and return the line."""

    def run_refused(*arguments, code=2):
        assert run(*arguments) == code
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("bertram: ")
        assert said.err.count("\n") == 1
        assert len(said.err) < 600
        return said.err

    return run_refused


@pytest.fixture
def train(refused, place, tmp_path):
    """A training that is refused before it leaves anything."""

    def train_refused(data, *options, task="classification", model=None):
        line = refused("train", task, data, "--model", model or place / "bare", "--out", tmp_path / "out", *options)
        assert not (tmp_path / "out" / "bertram.json").exists()
        return line

    return train_refused


def csv(path, pairs):
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in pairs))
    return path


class TestTables:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"text,mark\na,b\n", "no column 'label'"),
            (b"text,label\na,x\nb,x\nc,x\n", "every label is 'x'; classification needs two or more"),
            (b"text,label\na,x\n", "one row is too few"),
            (b"text,label\n\xff\xfe,x\n", "line 2: not UTF-8"),
            (b"text,label\na\0b,x\n", "line 2: a NUL byte"),
        ],
    )
    def test_contents(self, train, tmp_path, content, message):
        (tmp_path / "t.csv").write_bytes(content)
        assert message in train(tmp_path / "t.csv")

    def test_missing_file(self, train, tmp_path):
        assert "no such file" in train(tmp_path / "none.csv")
        assert "no such file" in train(table(tmp_path / "t.csv"), "--test", tmp_path / "none.csv")

    def test_no_file(self, place, tmp_path):
        """As only Python can say it."""
        trained, out = bertram.load(place / "trained"), tmp_path / "out"
        for asked in (
            lambda: check([]),
            lambda: check([], task="translation"),
            lambda: evaluate_files(trained, [], None, None),
            lambda: bertram.train("classification", [], model="bert-tiny", out=out),
        ):
            with pytest.raises(BadInput, match=r"^no file is given$"):
                asked()
        assert not out.exists()

    @pytest.mark.parametrize("part", ["--validation", "--test"])
    def test_one_file_for_two_splits(self, train, place, part):
        said = f"good.csv: the train and the {part.strip('-')} data are the same"
        assert said in train(place / "good.csv", part, place / "good.csv")

    def test_a_name_that_is_not_utf8(self, train, tmp_path):
        named = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.csv"))
        assert "is not in UTF-8, as names of files" in train(table(named))

    @pytest.mark.parametrize("part", ["--validation", "--test"])
    def test_labels_that_training_lacks(self, train, place, tmp_path, part):
        other = csv(tmp_path / "other.csv", [*rows(8), ("a film", "<b>odd</b>")])
        assert "other.csv: 1 row with '<b>odd</b>', not seen in training" in train(place / "good.csv", part, other)

    def test_numbers_for_regression(self, train, place):
        assert "is not a number; regression needs numbers" in train(place / "good.csv", task="regression")

    def test_pairs_beside_single_texts(self, train, place, tmp_path):
        (tmp_path / "pairs.csv").write_text("text,text_b,label\na,b,good\n")
        assert "one holds pairs of texts" in train(place / "good.csv", "--test", tmp_path / "pairs.csv")

    def test_blank_training_texts(self, train, tmp_path):
        blank = csv(tmp_path / "t.csv", [(" ", "x"), (" ", "y")] * 4)
        assert "no text to learn a vocabulary from" in train(blank, model="bert-tiny")


class TestSettings:
    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("--steps", "0", "--steps 0: must be a whole number, at least 1"),
            ("--steps", "-1", "--steps -1: must be a whole number, at least 1"),
            ("--steps", "many", "many"),
            ("--steps", "2.5", "Invalid value for --steps: 2.5 is no whole number"),
            ("--epochs", "nan", "--epochs nan: must be a number, above 0 and at most 1,000,000"),
            ("--learning-rate", "-1", "--learning-rate -1.0: must be a number, at least 0 and finite"),
            ("--learning-rate", "inf", "--learning-rate inf: must be a number, at least 0 and finite"),
            ("--batch-size", "0", "--batch-size 0: must be a whole number, at least 1"),
            ("--warmup", "1.5", "--warmup 1.5: must be a number, at least 0 and at most 1"),
            ("--seed", "-1", "--seed -1: must be a whole number, at least 0"),
            ("--save-every", "0", "--save-every 0: must be a whole number, at least 1"),
            ("--precision", "fp64", "fp64"),
            ("--max-length", "2", "bare: --max-length must be a whole number from 3 to 32, not 2"),
            ("--max-length", "0", "from 3 to 32, not 0"),
            ("--max-length", "1000", "from 3 to 32, not 1000"),
            ("--columns", "text", "Invalid value for --columns: 'text': write it like text=sentence,label=2"),
            ("--columns", "text=a,words=b", "--columns: no role 'words'; roles are text, text_b, label"),
            ("--colour", "red", "--colour"),
        ],
    )
    def test_values(self, train, place, option, value, message):
        assert message in train(place / "good.csv", option, value)

    def test_small_vocabulary(self, train, place):
        assert "16" in train(place / "good.csv", "--vocab-size", "3", model="bert-tiny")

    def test_a_wrong_task(self, train, place):
        line = train(place / "good.csv", task="clasification")
        assert 'Choose from: "classification", "regression"' in line
        assert "Literal" not in line
        assert f"The task comes first: bertram train classification {place}" in train("x", task=place / "good.csv")

    def test_columns_after_a_space(self, refused, place):
        line = refused("check", place / "good.csv", "--columns", "text=sentence", "label=sentiment")
        assert "Join columns with a comma: --columns text=sentence,label=2" in line

    def test_cased(self, train, place):
        assert "--cased are for presets" in train(place / "good.csv", "--cased")
        assert "an encoder–decoder preset keeps case" in train(place / "good.csv", "--cased", task="translation")

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("--max-memory", "3", "write a number above 0 with its unit, such as 64MB"),
            ("--max-latency", "fast", "such as 20ms"),
            ("--min-score", "85", "from 0 to 1"),
            ("--seeds", "0", "must be a whole number, at least 1"),
            ("--max-length", "1000", "bert-tiny: --max-length must be a whole number from 3 to 512, not 1000"),
        ],
    )
    def test_limits(self, refused, place, tmp_path, option, value, message):
        line = refused("compare", place / "good.csv", "--models", "bert-tiny", "--out", tmp_path / "out", option, value)
        assert message in line
        assert not (tmp_path / "out").exists()

    def test_unknown_command(self, refused):
        assert "conquer" in refused("conquer")


class TestModels:
    @pytest.mark.parametrize("command", ["train", "compare"])
    def test_unknown(self, refused, place, tmp_path, command):
        arguments = {
            "train": ["train", "classification", place / "good.csv", "--model", "bert-tinny"],
            "compare": ["compare", place / "good.csv", "--models", "bert-tiny", "bert-tinny"],
        }[command]
        assert "did you mean bert-tiny" in refused(*arguments, "--out", tmp_path / "out")
        assert not (tmp_path / "out" / "runs").exists()

    def test_a_preset_knows_nothing(self, refused, place):
        assert "train it first" in refused("evaluate", "bert-tiny", place / "good.csv")

    @pytest.mark.parametrize(
        ("architectures", "reason"),
        [
            (["BertModel"], "config.json names BertModel, which has no head for one"),
            ([], "config.json has no known architecture"),
        ],
    )
    def test_untrained(self, refused, place, tmp_path, architectures, reason):
        model = shutil.copytree(place / "bare", tmp_path / "model")
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"architectures": architectures}))
        line = refused("evaluate", model, place / "good.csv")
        assert f"unknown task: bertram.json names none and {reason}; train it first" in line

    @pytest.mark.parametrize(
        "command",
        [
            "predict MODEL --text x",
            "embed MODEL --text x",
            "fill-mask MODEL --text x",
            "evaluate MODEL good.csv",
            "inspect MODEL",
            "bench MODEL",
            "export MODEL --format engine --out new",
            "train classification good.csv --model MODEL --out new",
            "train translation good.csv --columns source=text,target=label --model MODEL --out new",
            "check good.csv --model MODEL",
            "compare good.csv --models MODEL --out new",
            "shrink MODEL --texts good.csv --out new --steps 1",
        ],
    )
    def test_a_directory_without_a_model(self, refused, tmp_path, monkeypatch, command):
        """Empty, or of a training that was stopped; and no name at all, which is not the directory at hand."""
        monkeypatch.chdir(tmp_path)
        table(tmp_path / "good.csv")
        for place in ("empty", "begun", "stopped"):
            (tmp_path / place).mkdir()
        (tmp_path / "begun" / "training.json").write_text("{}")
        (tmp_path / "stopped" / "checkpoints").mkdir()
        unfinished = "its training has not finished; repeat the command with --resume"
        for model, said in (
            ("empty", "empty: holds no model (no config.json)"),
            ("begun", f"begun: {unfinished}"),
            ("stopped", f"stopped: {unfinished}"),
            ("", "'' names nothing"),
        ):
            line = refused(*(model if word == "MODEL" else word for word in command.split()))
            assert line.endswith(f"{said}\n")
        assert not (tmp_path / "new").exists()

    @pytest.fixture
    def damaged(self, place, tmp_path):
        return shutil.copytree(place / "trained", tmp_path / "model")

    def predict(self, refused, damaged, tmp_path):
        (tmp_path / "inputs.txt").write_text("a film\n")
        return refused("predict", damaged, tmp_path / "inputs.txt")

    def test_truncated_weights(self, refused, damaged, tmp_path):
        content = (damaged / "model.safetensors").read_bytes()
        for length in (0, 4, 100, len(content) - 1):
            (damaged / "model.safetensors").write_bytes(content[:length])
            assert "not a readable file of tensors" in self.predict(refused, damaged, tmp_path)

    def test_header_that_claims_more(self, refused, damaged, tmp_path):
        (damaged / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
        assert "not a readable file of tensors" in self.predict(refused, damaged, tmp_path)

    def test_shapes_that_disagree(self, refused, damaged, tmp_path):
        tensors = load_file(damaged / "model.safetensors")
        save_file(tensors | {"classifier.weight": torch.zeros(2, 31)}, damaged / "model.safetensors")
        assert "'classifier.weight' is [2, 31] but config.json makes it [2, 32]" in self.predict(
            refused, damaged, tmp_path
        )

    @pytest.mark.parametrize(
        ("file", "change", "message"),
        [
            ("config.json", {"hidden_size": 64}, "config.json makes it"),
            ("config.json", {"num_hidden_layers": 3}, "but config.json asks for it"),
            ("config.json", {"num_hidden_layers": 1}, "which config.json does not have"),
            ("config.json", {"num_hidden_layers": "two"}, "must be a whole number"),
            ("config.json", {"vocab_size": 2**40}, "vocab_size must be a whole number"),
            ("bertram.json", {"task": {"name": "classification", "labels": ["a", "b", "c"]}}, "the weights are not"),
            ("bertram.json", {"task": {"name": "regression", "mean": 0.0, "std": 1.0}}, "the weights are not"),
            ("bertram.json", {"task": {"name": "os.system"}}, "unknown name 'os.system'"),
            ("bertram.json", {"max_length": 10**9}, "max_length must be a whole number"),
            ("bertram.json", {"format": 2}, "it needs a newer version of Bertram"),
            ("bertram.json", {"config_overrides": {"embedding_size": 16}}, "config.json makes it"),
            ("bertram.json", {"config_overrides": {"colour": "red"}}, "has no field 'colour'"),
            ("bertram.json", {"config_overrides": ["shared"]}, "config_overrides must be an object"),
        ],
    )
    def test_files_that_disagree(self, refused, damaged, tmp_path, file, change, message):
        content = json.loads((damaged / file).read_text()) | change
        (damaged / file).write_text(json.dumps(content))
        assert message in self.predict(refused, damaged, tmp_path)

    def test_a_tokenizer_with_more_entries_than_the_model(self, refused, damaged, tmp_path):
        tokenizer = json.loads((damaged / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"]["surplus"] = len(tokenizer["model"]["vocab"])
        (damaged / "tokenizer.json").write_text(json.dumps(tokenizer))
        assert "the model only" in self.predict(refused, damaged, tmp_path)

    @pytest.mark.parametrize("options", [[], ["--allow-pickle"]])
    def test_a_pickle_does_not_run(self, refused, damaged, tmp_path, options):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "ran"), "w"))

        (damaged / "model.safetensors").unlink()
        with (damaged / "pytorch_model.bin").open("wb") as file:
            pickle.dump({"bert.pooler.dense.weight": Evil()}, file)
        (tmp_path / "inputs.txt").write_text("a film\n")
        refused("predict", damaged, tmp_path / "inputs.txt", *options)
        torch.save({"bert.pooler.dense.weight": Evil()}, damaged / "pytorch_model.bin")
        refused("predict", damaged, tmp_path / "inputs.txt", *options)
        assert not (tmp_path / "ran").exists()


class TestOutput:
    def test_a_file_in_the_way(self, refused, place, tmp_path):
        (tmp_path / "file").write_text("mine")
        for out in (tmp_path / "file", tmp_path / "file" / "below", "/proc/bertram"):
            for command in (
                ["train", "classification", place / "good.csv", "--model", "bert-tiny"],
                ["compare", place / "good.csv", "--models", "bert-tiny"],
            ):
                assert "cannot be written" in refused(*command, "--out", out)
        export = ["export", place / "bare", "--format", "huggingface", "--out"]
        assert "already exists" in refused(*export, tmp_path / "file")
        for out in (tmp_path / "file" / "below", "/proc/bertram"):
            assert "cannot be written" in refused(*export, out)
        assert (tmp_path / "file").read_text() == "mine"

    def test_what_is_there_stays(self, refused, place, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        (out / "notes.txt").write_text("mine")
        line = refused("train", "classification", place / "good.csv", "--model", "bert-tiny", "--out", out)
        assert "is not empty; resume the training" in line
        line = refused("compare", place / "good.csv", "--models", "bert-tiny", "--out", out)
        assert "is not empty and holds no comparison" in line
        assert [path.name for path in out.iterdir()] == ["notes.txt"]

    def test_a_training_that_was_refused_leaves_nothing_in_the_way(self, refused, place, tmp_path):
        """What is wrong with a model is found behind the first files, which are no reason to ask for another --out."""
        out, broken = tmp_path / "out", shutil.copytree(place / "bare", tmp_path / "broken")
        (broken / "model.safetensors").write_bytes(b"")
        arguments = ["train", "classification", place / "good.csv", "--out", out, "--steps", 1, "--model"]
        assert "model.safetensors" in refused(*arguments, broken)
        assert not list(out.iterdir())
        assert run(*arguments, place / "bare") == 0

    def test_the_model_itself_is_not_trained_over(self, refused, place):
        arguments = ["train", "classification", place / "good.csv", "--model", place / "bare"]
        line = refused(*arguments, "--out", place / "bare", "--resume")
        assert "is the model to begin with" in line

    def test_another_training_is_not_gone_on_with(self, refused, place, tmp_path):
        out = shutil.copytree(place / "trained", tmp_path / "out")
        (out / "bertram.json").unlink()
        arguments = ["train", "classification", place / "good.csv", "--model", place / "bare", "--out", out, "--resume"]
        assert "began with another --steps" in refused(*arguments, "--steps", 3)
        other = table(tmp_path / "good.csv", seed=1)
        arguments[2] = other
        assert "began with another data" in refused(*arguments, "--steps", 2)
        for damaged in ("{", "[" * 100_000, "[]"):
            (out / "training.json").write_text(damaged)
            line = refused(*arguments, "--steps", 2)
            assert "training.json: not " in line or "training.json: must hold one JSON object" in line

    def test_a_file_of_the_users_that_is_called_as_ours_stays(self, refused, place, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "training.json").write_text('{"mine": true}')
        arguments = ["train", "classification", place / "good.csv", "--model", place / "bare", "--steps", 1]
        assert "was not started by this command" in refused(*arguments, "--out", tmp_path / "out")
        assert (tmp_path / "out" / "training.json").read_text() == '{"mine": true}'


def test_markup_is_text(place, tmp_path, capsys):
    """Labels, texts and file names that would be markup elsewhere."""
    name = "<img src=x onerror=alert(1)>.csv"
    nasty = csv(tmp_path / name, [(f"<script>alert(1)</script> {text}", f"<b>{y}</b>") for text, y in rows(64)])
    out = tmp_path / "out"
    assert run("train", "classification", nasty, "--model", place / "bare", "--out", out, "--steps", 2) == 0
    (tmp_path / "inputs.txt").write_text("[red]a film[/red]\n")
    capsys.readouterr()
    assert run("predict", out, tmp_path / "inputs.txt") == 0
    assert json.loads(capsys.readouterr().out)["label"] in ("<b>good</b>", "<b>bad</b>")


def test_a_megabyte_in_a_line(place, tmp_path, capsys):
    long = csv(tmp_path / "t.csv", [("film " * 210_000, "good"), *rows(20)])
    arguments = ["--model", place / "bare", "--out", tmp_path / "out", "--steps", 2]
    assert run("train", "classification", long, *arguments) == 0
    assert run("evaluate", tmp_path / "out", long) == 0


@pytest.mark.parametrize(
    "missing", also_slowly(["torch", "tensorboard", "polars"], [("safetensors",), ("scipy",), ("sklearn",)])
)
def test_a_missing_library_is_named_with_its_extra(place, tmp_path, missing):
    """Before any of them is used: the others that a training needs are empty here, which begins sooner."""
    import polars

    data = tmp_path / "t.parquet"
    polars.DataFrame(rows(32), schema=["text", "label"], orient="row").write_parquet(data)
    arguments = ["train", "classification", str(data), "--model", "bert-tiny", "--out", str(tmp_path / "out")]
    blocked = (
        "import sys, importlib.abc, types\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {missing!r}:\n"
        f"            raise ModuleNotFoundError('No module named ' + repr(name), name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        f"empty = {{*{EncoderTraining.libraries!r}}} - {{{missing!r}}}\n"
        "sys.modules.update((name, types.ModuleType(name)) for name in empty)\n"
        f"from bertram.cli import main\nmain({[*arguments, '--steps', '1']!r})\n"
    )
    answer = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert answer.returncode == 2
    assert answer.stderr == f"bertram: {missing} is not installed; it comes with: pip install 'bertram[train]'\n"
