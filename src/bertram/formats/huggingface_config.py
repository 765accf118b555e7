"""config.json of Hugging Face's Bert* and Albert* classes, in and out; without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bertram.config import EncoderConfig
from bertram.errors import BadInput, failing_in
from bertram.files import write_json
from bertram.formats.config_json import encoder_config, read_config_json

_FAMILIES = {"bert": "Bert", "albert": "Albert"}
# The classes, without their family, and the heads that each promises.
_CLASSES: dict[str, set[str]] = {
    "Model": set(),
    "ForPreTraining": {"masked_language_model", "sentence_pair"},
    "ForMaskedLM": {"masked_language_model"},
    "ForNextSentencePrediction": {"sentence_pair"},
    "ForSequenceClassification": {"classification"},
    "ForTokenClassification": {"token_classification"},
}
_PROBLEMS = {"single_label_classification": "classification", "regression": "regression"}
CLASSIFIERS = (*_PROBLEMS.values(), "token_classification")
"""Heads whose weights are called classifier in any class."""
_KNOWN = {family + name: heads for family in _FAMILIES.values() for name, heads in _CLASSES.items()}

_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
RESIDUALS = "residuals.safetensors"
"""What layers that share add to what they share, beside model.safetensors, where they stand one by one."""
_SETTINGS = (
    *_SIZES,
    *("max_position_embeddings", "type_vocab_size", "hidden_act", "hidden_dropout_prob"),
    *("attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"),
)
# What transformers' AlbertConfig has where EncoderConfig's defaults are BERT's.
_ALBERT_DEFAULTS = {
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "embedding_size": 128,
    "num_hidden_groups": 1,
    "inner_group_num": 1,
}


@dataclass(frozen=True)
class Description:
    """What a config.json says."""

    config: EncoderConfig
    architecture: str | None
    """The class that is named; "" where none is, as in older files, and None where it is not known here."""
    heads: frozenset[str]
    """The heads that are promised, by our names: those of the named class or, where none is, of labels with names."""
    unknown: str
    """Why none is promised, where the class or what it is for is not known here; the encoder can be read."""
    classifier: str | None
    """What a classifier among the weights is, one of `CLASSIFIERS`, or None where that is not known."""
    num_labels: int
    labels: list[str] | None
    """The labels' names in the order of the scores, where each has one of its own."""
    activation: str
    """What sentence-transformers' CrossEncoder puts a score through, where that changes it."""

    @property
    def names(self) -> list[str] | None:
        """`labels`, unless they only number the scores, as transformers' LABEL_0 does."""
        return self.labels if _are_names(self.labels) else None


def read_description(directory: Path, overrides: Mapping[str, Any] | None = None) -> Description:
    """Read and check config.json.

    Args:
        overrides: fields of the configuration that config.json cannot represent, from `config_overrides`.

    Raises:
        BadInput: there is no such file, or it describes no encoder of these families.
    """
    content = read_config_json(directory)
    with failing_in(directory / "config.json"):
        return _parse(content, overrides or {})


def _parse(content: dict[str, Any], overrides: Mapping[str, Any]) -> Description:
    config = _config(content)
    if strange := overrides.keys() - {field.name for field in fields(EncoderConfig)}:
        raise BadInput(f"has no field {min(strange)!r:.80}")
    labels = _labels(content)
    given = content.get("num_labels")
    num_labels = (len(content.get("id2label") or ()) or 2) if given is None else given
    if type(num_labels) is not int or not 1 <= num_labels <= 2**20:
        raise BadInput(f"num_labels must be a whole number from 1, not {num_labels!r:.80}")
    architecture = _architecture(content)
    promised = _KNOWN.get(architecture or "", set())
    classifier, unknown = _classifier(promised, content.get("problem_type"), num_labels)
    if architecture is None:
        known = f"one of {', '.join(_KNOWN)}"
        classifier, unknown = None, f"architectures must name {known}, not {content['architectures']!r:.80}"
    if architecture == "" and _are_names(labels):  # only a classifier's labels are given any
        promised = {"classification"}
    heads = {classifier if head == "classification" else head for head in promised} if classifier else set()
    if classifier in heads and classifier != "regression" and labels is None:
        heads, unknown = set(), "id2label must name the labels 0, 1, 2, …"
    return Description(
        config=replace(config, **overrides),
        architecture=architecture,
        heads=frozenset(heads),
        unknown=unknown,
        classifier=classifier,
        num_labels=num_labels,
        labels=labels if len(set(labels or ())) == num_labels else None,
        activation=_activation(content),
    )


def _classifier(promised: set[str], problem: Any, num_labels: int) -> tuple[str | None, str]:
    """What a classifier of so many labels is, one of `CLASSIFIERS`; or None, and why that is not known."""
    if promised == {"token_classification"}:
        return ("token_classification", "") if num_labels > 1 else (None, "a token classifier needs two labels or more")
    if problem is not None and problem not in list(_PROBLEMS):
        return None, f"problem_type must be {' or '.join(_PROBLEMS)}, not {problem!r:.80}"
    if problem == "single_label_classification" and num_labels == 1:
        return None, f"problem_type {problem} needs two labels or more"
    if problem == "regression" and num_labels > 1:
        return (
            None,
            f"problem_type regression with {num_labels} labels: regression of several numbers is not known here",
        )
    return _PROBLEMS[problem or _usual_problem(num_labels)], ""


def _activation(content: Mapping[str, Any]) -> str:
    named = content.get("sentence_transformers")
    newer = named.get("activation_fn") if isinstance(named, dict) else None
    name = str(newer or content.get("sbert_ce_default_activation_function") or "").rpartition(".")[2]
    return "" if name == "Identity" else name


def _config(content: dict[str, Any]) -> EncoderConfig:
    family = content.get("model_type", "albert" if "embedding_size" in content else "bert")
    if family not in list(_FAMILIES):
        raise BadInput(f"model_type must be {' or '.join(_FAMILIES)}, not {family!r:.80}")
    if content.get("position_embedding_type") not in (None, "absolute"):
        raise BadInput("position_embedding_type must be absolute")
    if content.get("is_decoder") or content.get("add_cross_attention"):
        raise BadInput("describes a decoder, not an encoder")
    if lacking := [name for name in _SIZES if name not in content]:
        raise BadInput(f"lacks {', '.join(lacking)}")
    values = {name: content[name] for name in _SETTINGS if name in content}
    if family == "bert":
        dropout = content.get("classifier_dropout")
        values["classifier_dropout"] = values.get("hidden_dropout_prob", 0.1) if dropout is None else dropout
        return encoder_config(values)
    values = {**_ALBERT_DEFAULTS, **values, **{name: content[name] for name in _ALBERT_DEFAULTS if name in content}}
    dropout = content.get("classifier_dropout_prob")
    values["classifier_dropout"] = 0.1 if dropout is None else dropout
    config = encoder_config({**values, "sentence_objective": "sop"})
    if not _same_groups(config):
        raise BadInput(f"{config.groups} groups of {config.num_hidden_layers} layers differ from those of transformers")
    return config


def _labels(content: dict[str, Any]) -> list[str] | None:
    """The labels' names, which may be numbers too, in the order of the scores; None where a score has none."""
    names = content.get("id2label") or {}
    if not isinstance(names, dict):
        raise BadInput("id2label must be an object that names the labels 0, 1, 2, …")
    found = [names.get(str(number)) for number in range(len(names))]
    return [str(name) for name in found] if all(isinstance(name, str | int | float) for name in found) else None


def _are_names(labels: list[str] | None) -> bool:
    return labels is not None and labels != [f"LABEL_{number}" for number in range(len(labels))]


def _architecture(content: dict[str, Any]) -> str | None:
    """The class that `architectures` names, as in `Description`."""
    match content.get("architectures"):
        case None | []:
            return ""
        case [str(name)] if name in _KNOWN:
            return name
        case _:
            return None


def _usual_problem(num_labels: int) -> str:
    return "regression" if num_labels == 1 else "single_label_classification"


def write_description(
    directory: Path, config: EncoderConfig, heads: Mapping[str, int], labels: Sequence[str] | None
) -> None:
    """Write config.json for a model with these heads and numbers of labels, in the family that fits.

    Raises:
        OSError: the file cannot be written.
    """
    promised = {"classification" if head == "regression" else head for head in heads}
    # No class of transformers holds every choice of heads; the others are named after their encoder.
    name = next((name for name, those in _CLASSES.items() if those == promised), "Model")
    if config.model_type == "albert" and name == "ForNextSentencePrediction":
        name = "Model"
    content = _content_of(config) | {"architectures": [_FAMILIES[config.model_type] + name]}
    problems = {head: problem for problem, head in _PROBLEMS.items()}
    for head in CLASSIFIERS:
        if head in heads:
            names = labels or [f"LABEL_{number}" for number in range(heads[head])]
            if len(names) != heads[head]:
                raise ValueError(f"{len(names)} names for {heads[head]} labels")
            if head in problems:
                content["problem_type"] = problems[head]
            content["id2label"] = {str(number): label for number, label in enumerate(names)}
            content["label2id"] = {label: number for number, label in enumerate(names)}
    write_json(directory / "config.json", content)


def config_overrides(config: EncoderConfig) -> dict[str, Any]:
    """The fields of a configuration that its config.json cannot represent; none for BERT and ALBERT as published."""
    restored = _config(_content_of(config))
    names = [field.name for field in fields(config)]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(restored, name)}


def _content_of(config: EncoderConfig) -> dict[str, Any]:
    content = {"model_type": config.model_type, **{name: getattr(config, name) for name in _SETTINGS}}
    if config.model_type == "bert":
        return {**content, "classifier_dropout": config.classifier_dropout}
    return {
        **content,
        "classifier_dropout_prob": config.classifier_dropout,
        "embedding_size": config.embedding_width,
        "num_hidden_groups": config.groups if can_express_groups(config) else config.num_hidden_layers,
        "inner_group_num": config.inner_group_num,
    }


def can_express_groups(config: EncoderConfig) -> bool:
    """Whether config.json can express which layers are shared; if not, each is written as a group of its own."""
    return config.shared == "all" and not config.residual_rank and _same_groups(config)


def _same_groups(config: EncoderConfig) -> bool:
    """Whether transformers puts every layer into our group; its floating point differs for, say, 14 groups of 18."""
    layers, groups = config.num_hidden_layers, config.groups
    return all(int(layer / (layers / groups)) == config.group_of(layer) for layer in range(layers))
