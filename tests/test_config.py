"""Configurations: what the presets are and what is refused."""

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from bertram.config import PRESETS, EncoderConfig, Objectives, assignments, parse_fields
from bertram.errors import BadInput
from bertram.search import Search
from bertram.training.recipe import Recipe

TINY = EncoderConfig(
    vocab_size=9, hidden_size=6, num_hidden_layers=4, num_attention_heads=3, intermediate_size=5, embedding_size=2
)


SIZES = {  # layers, width, heads, width of the embeddings
    "bert-tiny": (2, 128, 2, 128),  # the miniatures: Turc et al. 2019, table 1
    "bert-mini": (4, 256, 4, 256),
    "bert-small": (4, 512, 8, 512),
    "bert-medium": (8, 512, 8, 512),
    "bert-base": (12, 768, 12, 768),  # Devlin et al. 2018, section 3
    "bert-large": (24, 1024, 16, 1024),
    "albert-tiny": (2, 128, 2, 128),
    "albert-mini": (4, 256, 4, 128),
    "albert-small": (4, 512, 8, 128),
    "albert-medium": (8, 512, 8, 128),
    "albert-base": (12, 768, 12, 128),  # Lan et al. 2019, table 1; heads from the published configurations
    "albert-large": (24, 1024, 16, 128),
    "albert-xlarge": (24, 2048, 16, 128),
    "albert-xxlarge": (12, 4096, 64, 128),
}


def test_presets_have_the_published_sizes() -> None:
    assert SIZES.keys() == PRESETS.keys()
    for name, (layers, width, heads, embeddings) in SIZES.items():
        config = PRESETS[name]
        assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (layers, width, heads)
        assert config.embedding_width == embeddings
        assert config.intermediate_size == 4 * width
        assert config.model_type == name.split("-")[0]
        assert config.groups == (1 if config.model_type == "albert" else layers)
        assert config.sentence_objective == ("sop" if config.model_type == "albert" else "nsp")


def test_layers_fall_into_groups_in_order() -> None:
    grouped = replace(TINY, num_hidden_layers=12, num_hidden_groups=4)
    assert [grouped.group_of(layer) for layer in range(12)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    uneven = replace(TINY, num_hidden_layers=5, num_hidden_groups=2)
    assert [uneven.group_of(layer) for layer in range(5)] == [0, 0, 0, 1, 1]


def test_the_family_is_what_the_fields_say() -> None:
    plain = replace(TINY, embedding_size=None)
    assert plain.model_type == "bert"
    assert replace(plain, num_hidden_groups=4).model_type == "bert"
    assert replace(plain, num_hidden_groups=2).model_type == "albert"
    assert replace(plain, inner_group_num=2).model_type == "albert"
    assert replace(plain, embedding_size=6).model_type == "albert"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("scale_embedding", 1),
        ("normalize_embedding", "false"),
        ("residual_rank", 2.0),
        ("hidden_size", 6.0),
        ("hidden_size", "6"),
        ("num_hidden_layers", True),
        ("num_attention_heads", 4),
        ("intermediate_size", -1),
        ("max_position_embeddings", 2**24 + 1),
        ("type_vocab_size", None),
        ("embedding_size", 0),
        ("num_hidden_groups", 5),
        ("num_hidden_groups", "1"),
        ("inner_group_num", 257),
        ("hidden_dropout_prob", 1),
        ("attention_probs_dropout_prob", float("nan")),
        ("classifier_dropout", None),
        ("initializer_range", 0),
        ("layer_norm_eps", float("inf")),
        ("hidden_act", "mish"),
        ("hidden_act", ["gelu"]),
        ("shared", "both"),
        ("sentence_objective", None),
    ],
)
def test_values_that_do_not_fit_are_refused_in_one_line(field: str, value: Any) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]+$"):
        replace(TINY, **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sentence_objective", "next", "--sentence-objective 'next': must be one of nsp, sop, none"),
        ("masking", "words", "--masking 'words': must be one of token, word, ngram"),
        ("max_length", 5, "--max-length 5: must be a whole number, at least 8 and at most 1,048,576"),
        ("max_length", 2**21, "--max-length 2097152: must be a whole number, at least 8 and at most 1,048,576"),
        ("max_length", 64.5, "--max-length 64.5: must be a whole number, at least 8 and at most 1,048,576"),
        ("max_length", "128", "--max-length '128': must be a whole number, at least 8 and at most 1,048,576"),
    ],
)
def test_objectives_that_are_refused_name_their_option(field: str, value: Any, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        Objectives(**{field: value})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 2.5}, "--steps 2.5: must be a whole number, at least 1 and at most 1,000,000,000,000"),
        ({"steps": True}, "--steps True: must be a whole number"),
        ({"batch_size": "32"}, "--batch-size '32': must be a whole number"),
        ({"seed": 1.5}, "--seed 1.5: must be a whole number, at least 0 and at most 2,147,483,647"),
        ({"average": 1.5}, "--average 1.5: must be a whole number, at least 1 and at most 100"),
        ({"seed": None}, "--seed None: must be a whole number"),
        ({"gradient_checkpointing": "no"}, "--gradient-checkpointing 'no': must be true or false"),
        ({"compile": 1}, "--compile 1: must be true or false"),
        ({"optimizer": ["adamw"]}, r"--optimizer \['adamw'\]: must be one of adamw, lamb"),
        ({"hours": 0}, "--hours 0: must be a number, above 0 and at most 1,000,000"),
        ({"hours": 1e308}, "must be a number, above 0 and at most 1,000,000"),
        ({"max_grad_norm": 10**400}, "must be a number, above 0 and finite"),
        ({"label_smoothing": 1}, "--label-smoothing 1: must be a number, at least 0 and at most 0.99"),
    ],
)
def test_recipes_that_are_refused_name_their_option(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^[^\n]*{message}[^\n]*$"):
        Recipe(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam_size": 0}, "--beam-size 0: must be a whole number, at least 1 and at most 1,024"),
        ({"beam_size": 2.0}, "--beam-size 2.0: must be a whole number"),
        ({"length_penalty": "1"}, "--length-penalty '1': must be a number, at least -10 and at most 10"),
        ({"length_penalty": float("nan")}, "--length-penalty nan: must be a number"),
        ({"max_length": 0}, "--max-length 0: must be a whole number, at least 1"),
        ({"min_length": 5, "max_length": 4}, "--max-length 4: is less than --min-length 5"),
        ({"n_best": 6}, "--n-best 6: a beam of 5"),
    ],
)
def test_searches_that_are_refused_name_their_option(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        Search(**settings)


def test_numbers_of_numpy_become_pythons() -> None:
    assert Search(beam_size=np.int64(4), max_length=None) == Search(beam_size=4)
    assert Recipe(steps=np.int32(4), epochs=1) == Recipe(steps=4, epochs=1.0)
    assert json.dumps(asdict(Recipe(steps=np.int32(4), learning_rate=np.float32(0.5))))  # as training.json has it


def test_fields_on_the_command_line_have_their_types() -> None:
    said = "hidden_size=64, hidden_dropout_prob=0.1,shared=attention,normalize_before=true,scale_embedding=False"
    found = parse_fields(assignments(said, "hidden_size=320"))
    assert list(found.values()) == [64, 0.1, "attention", True, False]
    assert replace(TINY, normalize_before=found["normalize_before"]).normalize_before


def test_what_is_assigned_stands_as_it_is_written() -> None:
    assert assignments("text=a=b ,label= 2", "") == {"text": "a=b ", "label": " 2"}


@pytest.mark.parametrize("text", ["", "text", "text=", "=a", "text=a,", "text=a,text=b"])
def test_what_is_no_assignment_is_shown_how_to_write_one(text: str) -> None:
    with pytest.raises(BadInput, match=r"^'.*': write it like text=sentence,label=2$"):
        assignments(text, "text=sentence,label=2")


def test_a_long_value_makes_no_long_message() -> None:
    with pytest.raises(BadInput) as caught:
        replace(TINY, hidden_act="x" * 10**6)
    assert len(str(caught.value)) < 200
