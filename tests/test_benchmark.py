"""`bertram bench`, on models so small that it takes seconds: who is measured, on what, and what is said."""

import io
import json
import re
import shutil
import sys
from dataclasses import replace
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from bertram.batch import Batch
from bertram.benchmark import bench as room
from bertram.benchmark import subject
from bertram.benchmark.bench import bench, versus
from bertram.benchmark.contestants import SETTINGS, padded
from bertram.benchmark.process import loading_and_peak, turn_of
from bertram.benchmark.subject import encoded, prepare
from bertram.benchmark.table import render_table
from bertram.errors import BadInput, BertramError
from bertram.exporting import export
from bertram.formats.engine_file import read_engine, write_engine
from bertram.inference.predictor import Reading
from bertram.model_directory import ModelDirectory
from bertram.model_names import ENGLISH, OWN, SENTIMENT
from bertram.models.tensors import to_tensors
from bertram.text.tokenizer import Tokenizer
from tiny import model_directory, rows, run


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(subject, "_TEXTS", 8)
    monkeypatch.setattr(room, "_SINGLES", 2)
    monkeypatch.setattr(room, "_STREAM", 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return model_directory(tmp_path_factory.mktemp("bench") / "model", {"classification": 2})


@pytest.mark.slow
def test_a_directory_beside_another_library(place, tmp_path, capsys, monkeypatch):
    few = {name: SETTINGS[name] for name in ("bertram int8", "onnxruntime fp32")}
    few["onnxruntime none"] = SETTINGS["onnxruntime fp32"]  # which no worker knows by that name
    monkeypatch.setattr(subject, "SETTINGS", few)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text, _ in rows(20)))
    arguments = ["bench", place, "--texts", tmp_path / "texts.txt", "--rounds", 1, "--json"]
    assert run(*arguments, "--against", "onnxruntime") == 0
    found = json.loads(capsys.readouterr().out)
    settings = {row["setting"]: row for row in found["rows"]}
    assert list(settings) == ["bertram int8", "onnxruntime fp32"]
    assert found["left_out"] == {"onnxruntime none": "'onnxruntime none'"}
    assert found["texts"] == 20
    for row in settings.values():
        assert row["tokens_per_second"] > 0
        assert list(row["latency_ms"]) == ["8", "16", "32"]  # as long as the model reads
        assert 20 < row["peak_mb"]["8 × 30"] < 1000
        assert row["stream"]["ratio"] >= 1
    assert 0 < settings["bertram int8"]["ceiling_share"] < 2
    assert 0 < found["agreement"] <= 1
    console = Console(width=80, file=io.StringIO())
    console.print(render_table(found))
    assert "onnxruntime none is left out: 'onnxruntime none'\n" in console.file.getvalue()
    assert "onnxruntime fp32" in console.file.getvalue()


def test_a_model_that_cannot_be_prepared_is_said(tmp_path):
    broken = model_directory(tmp_path / "model")
    (broken / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match=r"bertram int8: .*model\.safetensors"):
        bench(broken, rounds=1)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_what_cannot_be_read_is_said_before_anybody_starts(name, place, tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "Worker", None)
    broken = shutil.copytree(place, tmp_path / "model")
    (broken / name).write_text("{}")
    with pytest.raises(BadInput, match=rf"^{re.escape(str(broken / name))}: "):
        bench(broken, rounds=1)


def test_one_that_fails_leaves_the_field():
    workers, left_out = {"a": object(), "b": object()}, {}
    with turn_of("a", workers, left_out):
        raise BertramError("no memory")
    assert (list(workers), left_out) == (["b"], {"a": "no memory"})


def test_a_reason_does_not_name_the_setting_again(place, tmp_path, monkeypatch):
    known = SETTINGS["bertram fp32"]
    unknown = known._replace(prepare=None)
    monkeypatch.setattr(subject, "SETTINGS", {"bertram fp32": known, "openvino none": unknown})
    assert prepare(place, tmp_path, ["openvino"])[1] == {"openvino none": "'openvino none'"}


def test_a_library_that_is_not_installed_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(room, "find_spec", lambda name: None if name == "openvino" else name)
    with pytest.raises(BadInput, match=r"^--against: openvino is not installed; it comes with: pip install openvino$"):
        bench("bert-tiny", against=["onnxruntime", "openvino"])


def test_settings_that_read_one_file_share_it(place, tmp_path, monkeypatch):
    export(place, format="engine", out=tmp_path / "a.engine", min_agreement=0.0)
    asked = []

    class Worker:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def ask(self, kind, **job):
            asked.append((kind, self.name))
            return str(tmp_path / "a.engine")

    monkeypatch.setattr(subject, "Worker", Worker)
    (tmp_path / "scratch").mkdir()
    found, left_out = prepare(place, tmp_path / "scratch", ["openvino"])
    settings = ["bertram int8", "bertram fp32", "openvino default", "openvino int8", "openvino int8, own conversion"]
    assert [name for kind, name in asked if kind == "prepare"] == settings
    assert found.prepared.keys() == {*settings, "openvino fp32"}
    assert left_out == {}
    assert found.agreement == read_engine(tmp_path / "a.engine").manifest["agreement"]


def test_an_engine_alone(tmp_path, monkeypatch):
    """Of a model that reads fewer tokens than most are measured with."""
    place = model_directory(tmp_path / "model", {"classification": 2}, max_position_embeddings=12)
    export(place, format="engine", out=tmp_path / "a.engine", precision="fp32")
    loads = iter([5.0, 7.0])
    monkeypatch.setattr(room, "loading_and_peak", lambda *arguments: (next(loads), loading_and_peak(*arguments)[1]))
    found = bench(tmp_path / "a.engine", rounds=1, with_ceiling=False)
    [row] = found["rows"]
    assert (row["setting"], row["load_seconds"]) == ("bertram fp32", 5.0)
    assert (list(row["peak_mb"]), list(row["latency_ms"])) == (["8 × 12", "32 × 12"], [8])
    assert (found["threads"], found["agreement"]) == (1, None)
    for agreement, told in ((0.5, True), (0.98, False)):
        console = Console(width=80, file=io.StringIO())
        console.print(render_table(found | {"agreement": agreement}))
        assert ("agrees with the model to 50.0%" in console.file.getvalue()) == told
    with pytest.raises(BadInput, match="is an engine file; other libraries need"):
        bench(tmp_path / "a.engine", against=["transformers"])


def figures(setting, speed, milliseconds, megabytes):
    return {
        **{"setting": setting, "tokens_per_second": speed, "latency_ms": {8: milliseconds, 16: 2 * milliseconds}},
        **{"peak_mb": {"8 × 30": megabytes, "32 × 128": 2 * megabytes}, "load_seconds": 0.5, "stream": {"ratio": 1.2}},
    }


def test_each_figure_is_compared_with_the_best_of_others():
    others = [figures("openvino int8, own conversion", 3000.0, 4.0, 400), figures("ctranslate2 int8", 2000.0, 9.0, 200)]
    rows = [figures("bertram int8", 4500.0, 2.0, 100), *others]
    assert versus(rows[0], others)["vs_best_other"] == {
        **{"tokens_per_second": 1.5, "latency_ms": {8: 0.5, 16: 0.5}},
        "peak_mb": {"8 × 30": 0.5, "32 × 128": 0.5},
    }
    assert versus(rows[0], []) == {}
    result = {"texts": 8, "mean_tokens": 9.0, "threads": 1, "rounds": 1, "agreement": None, "ceiling": {}}
    for compared in (others, []):
        console = Console(width=80, file=io.StringIO())
        compared_rows = [row | versus(row, compared) for row in rows]
        console.print(render_table(result | {"rows": compared_rows, "left_out": {}}))
        lines = [line.split() for line in console.file.getvalue().splitlines()]
        assert (["ctranslate2", "int8", "0.67", "2.25", "2.25", "1.00", "1.00"] in lines) == bool(compared)
        assert any(line[:2] == ["vs", "best"] for line in lines) == bool(compared)


@pytest.mark.parametrize("name", [ENGLISH, SENTIMENT])
def test_an_own_engine_by_its_name(tmp_path, name):
    assert prepare(name, tmp_path)[0].prepared == {"bertram int8": OWN / f"{name}.engine"}


def test_an_engine_says_its_precision_by_its_weights(place, tmp_path):
    export(place, format="engine", out=tmp_path / "a.engine", min_agreement=0)
    engine = read_engine(tmp_path / "a.engine")
    write_engine(tmp_path / "b.engine", replace(engine, manifest={}))
    assert prepare(tmp_path / "b.engine", tmp_path)[0].prepared.keys() == {"bertram int8"}


def test_pairs_are_measured_as_pairs(place, tmp_path):
    pairs = [{"text": "a film", "text_b": "a long book"}, {"text": "a", "text_b": "b"}]
    tokenizer = Tokenizer.load(place)
    reading = Reading(tokenizer, 32, apart=False, pairs=None)
    expected, _ = tokenizer.encode(["a film", "a"], ["a long book", "b"], max_length=32)
    assert [len(ids) for ids in encoded(pairs, reading)] == expected.lengths.tolist()
    apart, _ = tokenizer.encode(["a film", "a", "a long book", "b"], max_length=32)
    found = encoded(pairs, reading._replace(apart=True))
    assert [len(ids) for ids in found] == apart.lengths.tolist()


def test_pickled_weights_are_read_where_that_is_allowed(place, tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "SETTINGS", {"bertram fp32": SETTINGS["bertram fp32"]})
    pickled = shutil.copytree(place, tmp_path / "model")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(BadInput, match="--allow-pickle"):
        prepare(pickled, tmp_path / "a")
    assert prepare(pickled, tmp_path / "b", allow_pickle=True)[0].prepared["bertram fp32"].is_file()


@pytest.mark.parametrize("name", ["bertram fp32", "onnxruntime fp32", "transformers default", "ctranslate2 int8"])
def test_all_compute_the_same(place, tmp_path, name):
    """Batches of ids in, the same hidden states of real tokens out."""
    texts = [[5, 6, 7, 8], [9, 10], [11]]
    setting = SETTINGS[name]
    found = np.asarray(setting.load(setting.prepare(place, tmp_path)).run(texts))
    if found.ndim == 3:
        found = found[padded(texts)["attention_mask"].astype(bool)]
    expected = ModelDirectory(place).read_model({}).eval().encoder(to_tensors(Batch.pack(texts))).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=0.1 if "int8" in name else 1e-4)


@pytest.mark.parametrize(
    ("name", "hints"), [("openvino default", {}), ("openvino fp32", {"INFERENCE_PRECISION_HINT": "f32"})]
)
def test_openvino_is_told_its_precision(tmp_path, monkeypatch, name, hints):
    core = Mock()
    monkeypatch.setattr("bertram.benchmark.contestants._library", lambda _: Mock(Core=lambda: core))
    SETTINGS[name].load(tmp_path / "model.onnx")
    always = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    core.compile_model.assert_called_once_with(tmp_path / "model.onnx", "CPU", always | hints)


def test_all_have_as_many_threads(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("bertram.benchmark.contestants._library", lambda _: library)
    library = MagicMock()
    for name in ("transformers default", "onnxruntime fp32", "openvino default", "ctranslate2 int8"):
        SETTINGS[name].load(tmp_path)
    library.set_num_threads.assert_called_once_with(3)
    assert library.SessionOptions().intra_op_num_threads == 3
    assert library.Core().compile_model.call_args.args[2]["INFERENCE_NUM_THREADS"] == 3
    assert library.Encoder.call_args.kwargs["intra_threads"] == 3


def test_a_preset_wants_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BadInput, match=r"^torch is not installed; it comes with: pip install 'bertram\[train\]'$"):
        bench("bert-tiny")


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("--against keras", {"against": ["keras"]}),
        ("--lengths long", {"lengths": "long"}),
        ("--lengths: is for random texts", {"lengths": "imdb", "texts": "texts.txt"}),
        ("--columns: says what columns of --texts", {"columns": {"text": "1"}}),
        ("--rounds 0", {"rounds": 0}),
        ("has no tokenizer", {"model": "bert-tiny", "texts": "x"}),
    ],
)
def test_refusals(place, said, options):
    with pytest.raises(BadInput, match=said):
        bench(**{"model": place} | options)
