"""Engine files: the model's answers from one file, without torch, in few bytes and no more memory than they take."""

import hashlib
import json
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

import bertram
from bertram.artifacts import load
from bertram.batch import Batch
from bertram.benchmark.contestants import SETTINGS
from bertram.benchmark.subject import encoded, prepare
from bertram.config import PRESETS
from bertram.errors import BadInput, BertramError
from bertram.exporting import export
from bertram.files import write_json
from bertram.formats import engine_file
from bertram.formats.engine import tensors_of
from bertram.formats.engine_file import Engine, read_engine, write_engine
from bertram.formats.engine_layout import layout_of
from bertram.formats.quantization import pack
from bertram.inference import kernels
from bertram.inference.engine_runner import EngineRunner
from bertram.inference.untying import untied
from bertram.model_directory import ModelDirectory
from bertram.model_names import ENGLISH, OWN
from bertram.models.heads import Model
from bertram.run_directory import MANIFEST, read_manifest
from bertram.supervised.train import train
from bertram.tasks.fill_mask import FillMask
from bertram.tasks.similarity import Similarity
from bertram.text.tokenizer import Tokenizer
from bertram.training.recipe import Recipe
from bertram.training.torch_runner import TorchRunner
from damage import bytes_of, peak_below, refusal, survive
from tiny import model_directory, rows, run, table
from torchless import run_without_torch

ALBERT = {"embedding_size": 16, "num_hidden_groups": 1, "sentence_objective": "sop"}
TEXTS = [text for text, _ in rows(100, seed=5)]
INT8 = pytest.mark.parametrize("engine", ["int8"], indirect=True)
"""Where the precision does not matter."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("engine")
    model = model_directory(place / "bare", **ALBERT)
    recipe = Recipe(steps=40, learning_rate=3e-3)
    train("classification", table(place / "data.csv", 200), model=model, out=place / "model", recipe=recipe)
    return place / "model"


@pytest.fixture(scope="module", params=["int8", "fp32"])
def engine(request, trained):
    out = trained.parent / f"{request.param}.engine"
    export(trained, format="engine", out=out, precision=request.param, texts=TEXTS if request.param == "int8" else None)
    return out


def test_answers_are_the_models(trained, engine):
    expected, found = load(trained).logits(TEXTS), load(engine).logits(TEXTS)
    if engine.stem == "fp32":
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.98
    assert load(engine).predict(TEXTS)[0].keys() == load(trained).predict(TEXTS)[0].keys()


@INT8
def test_the_command_line_answers_without_torch(trained, engine, tmp_path):
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS[:20]))
    said = run_without_torch("predict", engine, tmp_path / "texts.txt")
    assert said.returncode == 0, said.stderr
    answers = [json.loads(line) for line in said.stdout.splitlines()]
    expected = bertram.load(trained).predict(TEXTS[:20])
    assert [answer["label"] for answer in answers] == [answer["label"] for answer in expected]


@INT8
def test_evaluate_takes_an_engine(engine, capsys):
    assert run("evaluate", engine, engine.parent / "data.csv") == 0
    assert "accuracy" in capsys.readouterr().out


def test_without_kernels_numpy_answers_and_it_is_said_once(engine, monkeypatch, caplog):
    expected = load(engine).logits(TEXTS)
    assert kernels.machine()["kernels"] in (*kernels.VARIANTS, None)
    monkeypatch.setattr(kernels, "LIBRARY", engine.parent / "none.so")
    monkeypatch.setattr(kernels, "_library", cache(kernels._library.__wrapped__))
    for _ in range(2):
        np.testing.assert_allclose(load(engine).logits(TEXTS), expected, atol=0.1 if engine.stem == "int8" else 1e-5)
    assert kernels.machine()["kernels"] is None
    assert [record.getMessage()[:19] for record in caplog.records] == ["no compiled kernels"]


@pytest.mark.parametrize("head", ["masked_language_model", "token_classification"])
def test_a_head_of_tokens_scores_those_that_are_asked_for(tmp_path, head):
    place = model_directory(tmp_path / "model", {head: 3}, unsettled=True)
    export(place, format="engine", out=tmp_path / "a.engine", precision="fp32")
    runner, batch = EngineRunner(read_engine(tmp_path / "a.engine")), Batch.pack([[5, 6, 7], [8, 9]])
    (some,) = runner.run(batch, np.array([1, 4])).keys() - {"hidden"}
    np.testing.assert_allclose(runner.run(batch, np.array([1, 4]))[some], runner.run(batch)[some][[1, 4]], atol=1e-5)
    assert runner.run(batch, np.array([], int))[some].shape == (0, runner.run(batch)[some].shape[1])
    expected = TorchRunner(ModelDirectory(place).read_model()).run(batch, np.array([1, 4]))[some]
    np.testing.assert_allclose(runner.run(batch, np.array([1, 4]))[some], expected, atol=2e-5)


HEADS = [
    *({}, {"masked_language_model": 0, "sentence_pair": 2}, {"regression": 1}, {"embedding": 0}),
    {"token_classification": 3},
]


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        ALBERT | {"pooling": "cls"},
        ALBERT | {"num_hidden_groups": 2, "shared": "ffn", "normalize_pooling": True},
        ALBERT | {"residual_rank": 3, "num_hidden_layers": 3},
        {"intermediate_size": 1024},  # whose rows get room between them
    ],
)
def test_every_head_says_what_it_says_in_torch(tmp_path, heads, settings):
    place = model_directory(tmp_path / "model", heads, unsettled=True, **settings)
    network = ModelDirectory(place).read_model()
    given, _ = ModelDirectory(place).read_tokenizer().encode(TEXTS[:20], max_length=32)
    export(place, format="engine", out=tmp_path / "a.engine", precision="fp32")
    expected, found = TorchRunner(network).run(given), EngineRunner(read_engine(tmp_path / "a.engine")).run(given)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5)


def test_a_file_holds_residuals_and_not_their_sums(tmp_path):
    sizes = {}
    for rank in (0, 4, 8):
        place = model_directory(tmp_path / f"model-{rank}", **ALBERT, num_hidden_layers=6, residual_rank=rank)
        export(place, format="engine", out=tmp_path / f"{rank}.engine", precision="int8", min_agreement=0)
        sizes[rank] = (tmp_path / f"{rank}.engine").stat().st_size
    own = 5 * 4 * (4 * 32 + 48 + 32 + 4 * 32)  # float32 biases and norms of five layers more
    factors = 6 * 4 * (2 * 32 + 3 * 32 + 2 * 32 + 2 * (32 + 64))  # 48 outputs are kept as 64
    assert sizes[4] - sizes[0] > own + factors
    assert 0 <= sizes[8] - sizes[4] - factors < 64 * 60  # each begins at a multiple of 64 bytes


def test_residuals_are_summed_without_all_shared_weights_in_float32():
    settings = {"num_hidden_groups": 4, "residual_rank": 1, "intermediate_size": 1024}
    config, matrices, vectors, _ = weights_of("bert-medium", "int8", **settings)
    engine = Engine(config, {}, True, {}, None, matrices, vectors)
    wide = sum(4 * m.outputs * m.inputs for name, m in matrices.items() if name.startswith("shared.")) / 1e6
    assert wide > 30
    with peak_below(wide):  # of which half are the sums of eight layers, in int8
        untied(engine)


def weights_of(name, precision, heads=(), **settings):
    config = replace(PRESETS[name], vocab_size=8000, **settings)
    layout = layout_of(config, dict(heads), pooler=True)
    zeros = {key: np.zeros(shape, np.float32) for key, shape in layout.matrices.items()}
    vectors = {key: np.zeros(size, np.float32) for key, size in layout.vectors.items()}
    unique = sum(a * b for a, b in layout.matrices.values()) + sum(layout.vectors.values())
    return config, {key: pack(weight, precision) for key, weight in zeros.items()}, vectors, unique


@pytest.mark.parametrize(
    ("name", "heads", "settings"),
    [
        ("albert-base", {}, {}),
        ("albert-tiny", {"masked_language_model": 0, "sentence_pair": 2}, {}),
        ("albert-mini", {"embedding": 0}, {"residual_rank": 16}),
        ("bert-mini", {"masked_language_model": 0, "classification": 5}, {}),
    ],
)
def test_a_file_holds_each_weight_once(trained, tmp_path, name, heads, settings):
    """At most 1.1 bytes a unique parameter, and the tokenizer."""
    config, matrices, vectors, unique = weights_of(name, "int8", heads, **settings)
    tokenizer = load(trained).tokenizer
    write_engine(tmp_path / "a.engine", Engine(config, heads, True, {}, tokenizer, matrices, vectors))
    assert read_engine(tmp_path / "a.engine").heads == heads
    assert unique < (tmp_path / "a.engine").stat().st_size < 1.1 * unique + 20_000


def test_albert_base_is_small():
    """With its 30,000 entries in int8, beside a tokenizer of as many and all that alignment can add."""
    config = replace(PRESETS["albert-base"], vocab_size=30_000)
    layout = layout_of(config, {"masked_language_model": 0, "sentence_pair": 2}, pooler=True)
    tensors = list(engine_file._tensors(layout.matrices, layout.vectors, dict.fromkeys(layout.matrices, "int8")))
    weights = sum(engine_file._size(*tensor) + 63 for tensor in tensors)
    tokenizer = (OWN / ENGLISH / "tokenizer.json").read_bytes()
    assert Tokenizer.load(OWN / ENGLISH).vocab_size >= 30_000
    assert 11e6 < weights + len(zlib.compress(tokenizer, 9)) <= 13e6


def test_weights_are_mapped_and_not_copied(trained, tmp_path):
    config, matrices, vectors, _ = weights_of("bert-medium", "fp32")
    write_engine(tmp_path / "a.engine", Engine(config, {}, True, {}, load(trained).tokenizer, matrices, vectors))
    megabytes = (tmp_path / "a.engine").stat().st_size / 1e6
    private = private_mb()
    found = EngineRunner(read_engine(tmp_path / "a.engine"))
    found.run(Batch.pack([[1, 2, 3]]))
    assert megabytes > 100
    assert private_mb() - private < 30


def private_mb():
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:  # noqa: PTH123
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty")) / 1e3


def no_room(*arguments, **options):
    raise FileNotFoundError(2, "No usable temporary directory found")


@INT8
def test_an_engine_needs_no_temporary_directory(engine, monkeypatch):
    expected = load(engine).predict(TEXTS)
    for name in ("gettempdir", "mkdtemp", "mkstemp", "TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory"):
        monkeypatch.setattr(tempfile, name, no_room)
    assert load(engine).predict(TEXTS) == expected


def test_a_predictor_can_be_sent_to_another_process(engine):
    predictor = load(engine)
    expected = predictor.logits(TEXTS)
    answer = pickle.loads(pickle.dumps(predictor.logits))
    del predictor
    np.testing.assert_array_equal(answer(TEXTS), expected)


@INT8
def test_another_version_a_flipped_byte_and_half_a_file(engine, tmp_path):
    content, path = bytearray(engine.read_bytes()), tmp_path / "a.engine"
    for damage, said in (
        (content[:8] + struct.pack("<I", 0) + content[12:], "version 0; this Bertram reads up to version 1"),
        (content[:8] + struct.pack("<I", 2) + content[12:], "version 2"),
        (content[:-1] + bytes([content[-1] ^ 1]), "checksum"),
        (content[: len(content) // 2], "checksum"),
        (content[:20], "no engine file"),
    ):
        path.write_bytes(damage)
        with pytest.raises(BadInput, match=said):
            read_engine(path)


def refused_by_bench(path):
    """What `bench` says of an engine file that it cannot measure; None if it does."""
    try:
        subject, _ = prepare(path, path.parent)
        (name,) = subject.prepared
        SETTINGS[name].load(path).run(encoded(TEXTS[:2], subject.reading))
    except BertramError as error:
        return str(error)
    return None


def mended(content, chance):
    """Damage under a checksum that is mostly right: what is left to stop is what a stranger could write."""
    header = struct.unpack_from("<I", content, 12)[0]
    damaged = bytearray(bytes_of(content, chance, range(12, 12 + 36 + header)))
    if chance.random() < 0.9:
        damaged[16:48] = hashlib.sha256(damaged[48:]).digest()
    return bytes(damaged)


def survived(engine, path, attempts):
    """How many damaged copies of an engine answer, and how many `bench` measures."""
    return [
        survive(shutil.copy(engine, path), mended, partial(use, path), attempts, megabytes=64)
        for use in (refusal, refused_by_bench)
    ]


def test_a_small_file_cannot_unpack_a_large_tokenizer(trained, tmp_path, monkeypatch):
    config, matrices, vectors, _ = weights_of("bert-tiny", "int8")
    engine = Engine(config, {}, True, {}, load(trained).tokenizer, matrices, vectors)
    with monkeypatch.context() as patched:
        patched.setattr(engine_file, "_saved", lambda _: [b" " * 2**25, b"{}"])
        with pytest.raises(BadInput, match=r"tokenizer would take 33,554,434 bytes, over 1,548,288 for 8,000 entries"):
            write_engine(tmp_path / "a.engine", engine)
        patched.setattr(engine_file, "_most_tokenizer", lambda _: 2**26)
        write_engine(tmp_path / "a.engine", engine)
    with pytest.raises(BadInput, match="tokenizer would expand"), peak_below(8):
        read_engine(tmp_path / "a.engine")


def test_a_tokenizer_is_unpacked_no_further_than_it_says(trained, tmp_path, monkeypatch):
    config, matrices, vectors, _ = weights_of("bert-tiny", "int8")
    content = zlib.compress(b" " * 2**25, 9)
    monkeypatch.setattr(engine_file.zlib, "compress", lambda *_: content)
    write_engine(tmp_path / "a.engine", Engine(config, {}, True, {}, load(trained).tokenizer, matrices, vectors))
    with pytest.raises(BadInput, match="tokenizer is not as long as"), peak_below(8):
        read_engine(tmp_path / "a.engine")


def test_a_tokenizer_counts_no_further_than_the_model(trained, tmp_path):
    tokenizer, config = load(trained).tokenizer, replace(PRESETS["bert-tiny"], vocab_size=50)
    layout = layout_of(config, {}, pooler=False)
    matrices = {name: pack(np.zeros(shape, np.float32), "int8") for name, shape in layout.matrices.items()}
    vectors = {name: np.zeros(size, np.float32) for name, size in layout.vectors.items()}
    write_engine(tmp_path / "a.engine", Engine(config, {}, False, {}, tokenizer, matrices, vectors))
    with pytest.raises(BadInput, match=f"the tokenizer has {tokenizer.vocab_size} entries, the model only 50"):
        read_engine(tmp_path / "a.engine")


@INT8
@pytest.mark.parametrize("length", [2, 33, 32.0, "32", None])
def test_a_length_that_the_model_cannot_read_is_refused(engine, tmp_path, length):
    found = read_engine(engine)
    write_engine(tmp_path / "a.engine", replace(found, manifest={**found.manifest, "max_length": length}))
    said = refusal(tmp_path / "a.engine"), refused_by_bench(tmp_path / "a.engine")
    told = f"damaged: max_length must be a whole number from 3 to 32, not {length!r}"
    assert said[0] == said[1] == f"{tmp_path / 'a.engine'}: {told}"


@INT8
def test_a_file_may_have_an_activation_by_the_name_of_before(engine, tmp_path):
    found = read_engine(engine)
    config = replace(found.config)
    object.__setattr__(config, "hidden_act", "gelu_pytorch_tanh")
    write_engine(tmp_path / "a.engine", replace(found, config=config))
    assert read_engine(tmp_path / "a.engine").config == replace(found.config, hidden_act="gelu_new")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_small_file_cannot_expand_to_many_layers(trained, tmp_path, monkeypatch, precision):
    deep = {"num_hidden_layers": 24, "num_hidden_groups": 1, "residual_rank": 1}
    config, matrices, vectors, _ = weights_of("albert-mini", precision, **deep)
    write_engine(tmp_path / "a.engine", Engine(config, {}, True, {}, load(trained).tokenizer, matrices, vectors))
    summed = layout_of(config.untied, {}, pooler=True).matrices
    size = sum(a * b for a, b in summed.values()) * (4 if precision == "fp32" else 1)
    times = size / (tmp_path / "a.engine").stat().st_size
    assert times > 2
    monkeypatch.setattr(engine_file, "_MOST_SUMMED", times * 1.1)
    read_engine(tmp_path / "a.engine")
    monkeypatch.setattr(engine_file, "_MOST_SUMMED", times * 0.9)
    with pytest.raises(BadInput, match="its layers would expand to more than"):
        read_engine(tmp_path / "a.engine")


@INT8
def test_damaged_files_are_refused_in_one_line(engine, tmp_path):
    assert all(0 < number < 40 for number in survived(engine, tmp_path / "a.engine", range(300)))


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (FillMask(), ALBERT),
        (Similarity(), {"normalize_pooling": True}),
        (Similarity(), ALBERT | {"pooling": "cls", "residual_rank": 2}),
    ],
)
def test_damaged_files_with_other_heads(tmp_path, task, settings):
    place = model_directory(tmp_path / "model", {task.head: 0}, **settings)
    write_json(place / MANIFEST, read_manifest(place) | {"task": task.to_dict()})
    export(place, format="engine", out=tmp_path / "whole.engine", min_agreement=0)
    found = survived(tmp_path / "whole.engine", tmp_path / "a.engine", range(150))
    assert all(0 < number < 20 for number in found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_more_damaged_files(engine, tmp_path, seed):
    survived(engine, tmp_path / "a.engine", range(seed * 1000, (seed + 1) * 1000))


@INT8
def test_a_text_of_many_words_and_many_texts(engine):
    predictor = load(engine)
    predictor.logits(["a film"] * 10_000)
    with peak_below(100):
        assert len(predictor.predict(["film " * 100_000, "", " "])) == 3
    with peak_below(20):
        assert len(predictor.logits(["a film"] * 100_000)) == 100_000


@INT8
def test_processes_that_map_one_file_answer_alike(engine):
    """Both hold it before either answers."""
    code = (
        "import json, sys; from bertram.artifacts import load; predictor = load(sys.argv[1]); print(flush=True); "
        "print(json.dumps(predictor.logits(json.loads(input())).tolist()))"
    )
    command, pipes = [sys.executable, "-c", code, str(engine)], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as one, subprocess.Popen(command, text=True, **pipes) as other:
        assert one.stdout.readline() == other.stdout.readline() == "\n"
        for process in (one, other):
            process.stdin.write(f"{json.dumps(TEXTS)}\n")
            process.stdin.flush()
        found = [json.loads(process.stdout.readline()) for process in (one, other)]
    assert found[0] == found[1]
    np.testing.assert_allclose(found[0], load(engine).logits(TEXTS), atol=1e-5)


def test_tensors_have_the_layouts_names():
    for config in (PRESETS["bert-tiny"], PRESETS["albert-tiny"]):
        small = replace(config, vocab_size=50)
        heads = {"classification": 3, "masked_language_model": 0}
        weights, vectors = tensors_of(Model(small, heads))
        layout = layout_of(small, heads, pooler=True)
        assert {name: weight.shape for name, weight in weights.items()} == layout.matrices
        assert {name: len(vector) for name, vector in vectors.items()} == layout.vectors
