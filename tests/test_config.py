"""Configurations: what the presets are and what is refused."""

from dataclasses import replace
from typing import Any

import pytest

from bertram.config import PRESETS, EncoderConfig, Objectives, assignments, parse_fields
from bertram.errors import BadInput

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
    with pytest.raises(BadInput, match=r"^config: [^\n]+$"):
        replace(TINY, **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sentence_objective", "next", "--sentence-objective 'next': must be one of nsp, sop, none"),
        ("masking", "words", "--masking 'words': must be one of token, word, ngram"),
        ("max_length", 5, "--max-length 5: must be from 8 to 1,048,576"),
        ("max_length", 2**21, "--max-length 2097152: must be from 8 to 1,048,576"),
    ],
)
def test_objectives_that_are_refused_name_their_option(field: str, value: Any, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        Objectives(**{field: value})
    assert str(caught.value) == message


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
