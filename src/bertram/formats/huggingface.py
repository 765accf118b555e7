"""Hugging Face directories of the Bert* and Albert* classes: config.json and model.safetensors, in and out.

Beside them stand sentence-transformers' files where a model makes vectors of texts.

One table of names serves both directions: `_tensors` says which memory of a model every foreign name stands for.
Writing copies from there, reading copies to there.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bertram.config import EncoderConfig
from bertram.errors import BadInput
from bertram.formats.huggingface_config import (
    CLASSIFIERS,
    Description,
    can_express_groups,
    read_description,
    write_description,
)
from bertram.formats.loading import Sources, Undrawn, allocate, check, fill, same, some
from bertram.formats.residuals import read_residuals, untied, write_residuals
from bertram.formats.sentence_transformers import has_pooling, read_pooling, write_pooling
from bertram.formats.weights import read_tensors, write_tensors
from bertram.formats.weights_file import find_weights
from bertram.models.heads import Model
from bertram.models.layers import initialize_weights

logger = logging.getLogger(__name__)

# Our modules and their names in BERT's and ALBERT's classes; inside a layer, the part after the layer's own name.
_NAMES = {
    "encoder.embeddings.tokens": ("embeddings.word_embeddings", "embeddings.word_embeddings"),
    "encoder.embeddings.positions": ("embeddings.position_embeddings", "embeddings.position_embeddings"),
    "encoder.embeddings.segments": ("embeddings.token_type_embeddings", "embeddings.token_type_embeddings"),
    "encoder.embeddings.norm": ("embeddings.LayerNorm", "embeddings.LayerNorm"),
    "encoder.embeddings.projection": ("", "encoder.embedding_hidden_mapping_in"),
    "attention.query": ("attention.self.query", "attention.query"),
    "attention.key_value": ("attention.self.{}", "attention.{}"),
    "attention.output": ("attention.output.dense", "attention.dense"),
    "attention.norm": ("attention.output.LayerNorm", "attention.LayerNorm"),
    "feed_forward.intermediate": ("intermediate.dense", "ffn"),
    "feed_forward.output": ("output.dense", "ffn_output"),
    "feed_forward.norm": ("output.LayerNorm", "full_layer_layer_norm"),
    "pooler.dense": ("pooler.dense", "pooler"),
    "heads.masked_language_model.dense": ("cls.predictions.transform.dense", "predictions.dense"),
    "heads.masked_language_model.norm": ("cls.predictions.transform.LayerNorm", "predictions.LayerNorm"),
    "heads.masked_language_model.decoder": ("cls.predictions", "predictions"),
    "heads.sentence_pair.classifier": ("cls.seq_relationship", "sop_classifier.classifier"),
    **{f"heads.{head}.classifier": ("classifier", "classifier") for head in CLASSIFIERS},
}
# How the names begin of what every file holds, and of what it may hold or lack.
_BODY = ("embeddings.", "encoder.")
_PARTS = {
    "pooler": ("pooler.",),
    "masked_language_model": ("cls.predictions.", "predictions."),
    "sentence_pair": ("cls.seq_relationship.", "sop_classifier."),
    **dict.fromkeys(CLASSIFIERS, ("classifier.",)),
    "embedding": (),
}
_TIED = ("cls.predictions.decoder.weight", "predictions.decoder.weight")
"""The token embeddings once more, in the masked language model's head."""
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


def read(
    directory: Path,
    *,
    heads: Mapping[str, int] | None = None,
    labels: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    allow_pickle: bool = False,
) -> Model:
    """The model in a directory, in float32 on the CPU.

    Args:
        heads: the heads to have, with their numbers of labels. One that the file holds with as many labels is read; any
            other starts from random weights, and then so may a pooler. None: the heads that the directory holds. That
            of "embedding" has no weights: what it does stands in sentence-transformers' files or `overrides`.
        labels: names of the classifier's labels in the order that its scores are to have. A head whose labels
            are called otherwise is another, and not read; LABEL_0 and so on are no names.
        overrides: fields of the configuration that config.json cannot represent, from `config_overrides`. What they
            share must be equal in the file, and is shared again.
        allow_pickle: read pytorch_model.bin where there is no model.safetensors.

    Raises:
        BadInput: a file is missing, damaged or not of these classes, or config.json and the weights disagree.
    """
    pooled = has_pooling(directory)
    if pooled if heads is None else "embedding" in heads:
        overrides = read_pooling(directory) | dict(overrides or {})
    description = read_description(directory, overrides)
    path = find_weights(directory, allow_pickle=allow_pickle)
    sources = _sources(read_tensors(path))

    names = _label_names(description, labels)
    held = _held(description, sources, names, labels) | ({"embedding": 0} if pooled else {})
    if heads is None and not pooled:  # of a model of vectors the class is that of its origin
        _check_promised(path, description, held)
    wanted = held if heads is None else heads
    kept = _kept(path, description, sources, held, wanted)
    model, fresh = _skeleton(path, description.config.untied, wanted, kept)
    _load(path, sources, model, fresh)
    if labels and names and description.classifier in kept:
        _reorder(model, description.classifier, [names.index(label) for label in labels])
    return read_residuals(directory, model, description.config) if description.config.residual_rank else model


def _label_names(description: Description, labels: Sequence[str] | None) -> list[str] | None:
    """What the file's classifier calls its labels, if it names them, or LABEL_0 and so on if these are asked for."""
    unnamed = [f"LABEL_{number}" for number in range(description.num_labels)]
    if description.names is None and sorted(labels or ()) == sorted(unnamed):  # as words LABEL_10 precedes LABEL_2
        return unnamed
    return description.names


def _held(
    description: Description, sources: Sources, names: list[str] | None, labels: Sequence[str] | None
) -> dict[str, int]:
    """The heads that the file holds, with their numbers of labels; a classifier if its `names` are the `labels`."""
    counts = {"masked_language_model": 0, "sentence_pair": 2}
    if description.classifier and (labels is None or names is None or sorted(labels) == sorted(names)):
        counts[description.classifier] = description.num_labels
    return {head: number for head, number in counts.items() if _holds(sources, head)}


def _check_promised(path: Path, description: Description, held: Mapping[str, int]) -> None:
    """Raise BadInput where config.json names a class that is not known, or whose heads the file lacks."""
    if description.unknown:
        raise BadInput(f"{path.with_name('config.json')}: {description.unknown}")
    if lacking := description.heads - held.keys():
        raise BadInput(f"{path}: holds no {' or '.join(sorted(lacking))} head, which config.json promises")


def _kept(
    path: Path, description: Description, sources: Sources, held: Mapping[str, int], wanted: Mapping[str, int]
) -> set[str]:
    """The wanted heads that the file holds with as many labels, and its pooler; of another classifier a warning."""
    kept = {head for head, number in wanted.items() if held.get(head) == number}
    if any(_holds(sources, head) for head in wanted.keys() - kept):
        called = f", of the labels {description.labels!r:.120}" if description.labels else ""
        logger.warning("%s: its classifier is another%s; the new one starts from random weights", path, called)
    pooled = _holds(sources, "pooler") and wanted.keys() != {"token_classification"}  # whose class has none
    return kept | {"pooler"} if pooled else kept


def _skeleton(
    path: Path, config: EncoderConfig, wanted: Mapping[str, int], kept: set[str]
) -> tuple[Model, dict[str, nn.Module]]:
    """A model without memory, and its parts that start from random weights; of a pooler among them a warning.

    Where a head that reads a pooler is kept, one that the file lacks is not fresh but missing, which `_load` says.
    """
    with torch.device("meta"), Undrawn():
        model = Model(config, wanted, pooler="pooler" in kept)
    fresh: dict[str, nn.Module] = {name: head for name, head in model.heads.items() if name not in kept}
    if model.pooler is not None and kept <= {"masked_language_model"}:
        logger.warning("%s: holds no pooler; it starts from random weights", path)
        fresh["pooler"] = model.pooler
    return model, fresh


def _load(path: Path, sources: Sources, model: Model, fresh: Mapping[str, nn.Module]) -> None:
    """Give a model memory, once the file proves to fill it: all parts have their weights from there but the fresh ones.

    Raises:
        BadInput: the file lacks some of it, has more or something else.
    """
    parts = {*model.heads} | ({"pooler"} if model.pooler is not None else set())
    unread = tuple(_beginnings(_PARTS) - _beginnings(parts - fresh.keys()))
    sources = _known(path, {name: found for name, found in sources.items() if not name.startswith(unread)})
    with torch.device("meta"):
        targets = _tensors(model) | _identity_projection(model.config)
    check(path, sources, {name: target for name, target in targets.items() if not name.startswith(unread)})
    allocate(model)
    for part in fresh.values():  # first, as a head may hold the embeddings too
        initialize_weights(part, model.config.initializer_range)
    fill(path, sources, _tensors(model), _identity_projection(model.config))


def _reorder(model: Model, head: str, order: list[int]) -> None:
    """Put the classifier's labels into another order, given by their numbers until now."""
    for kind in ("weight", "bias"):
        rows = model.get_parameter(f"heads.{head}.classifier.{kind}").detach()
        rows.copy_(rows[order])


def _known(path: Path, sources: Sources) -> Sources:
    """Those that go somewhere; the token embeddings and the vocabulary's bias may stand there twice.

    Raises:
        BadInput: what stands for the token embeddings in the head of a masked language model is something else.
    """
    others = {name for name in sources if not name.startswith((*_BODY, *_beginnings(_PARTS)))}
    if others:
        logger.warning("%s: ignored: %s", path, some(others))
    known = {name: found for name, found in sources.items() if name not in others | set(_TIED)}
    for name in sources.keys() & set(_TIED):
        embeddings = known.setdefault("embeddings.word_embeddings.weight", sources[name])
        if not all(same(one, other) for one in sources[name].values() for other in embeddings.values()):
            raise BadInput(
                f"{path}: {name!r} is an output matrix of its own, as tie_word_embeddings false makes it; such a "
                "masked language model is not supported, but its encoder can be trained on"
            )
    for name in known.keys() & {"cls.predictions.bias", "predictions.bias"}:
        decoders = {place: bias for place, bias in known[name].items() if ".decoder." in place}
        if any(not torch.equal(bias, other) for bias in decoders.values() for other in known[name].values()):
            logger.warning("%s: holds two biases of the vocabulary; as in transformers, the decoder's counts", path)
            known[name] = decoders
    return known


def write(model: Model, directory: Path, *, labels: Sequence[str] | None = None) -> None:
    """Write config.json and model.safetensors, in float32, for transformers' AutoModel… classes.

    Layers that share only a part of themselves are written one by one, and ALBERT without a projection gets the
    identity, as the format knows neither; `config_overrides` has what is then to be told to `read`. So it is with
    layers that add residuals to what they share, and these stand in a file beside.

    Args:
        labels: names of the classification head's labels, in the order of its scores.

    Raises:
        OSError: a file cannot be written.
    """
    if model.config.residual_rank:
        write_residuals(directory, model)
        model = untied(model)
    family, body = model.config.model_type, (*_BODY, *_PARTS["pooler"])
    tensors = _tensors(model) | _identity_projection(model.config)
    tensors = {
        f"{family}.{name}" if name.startswith(body) else name: tensor.to("cpu", torch.float32)
        for name, tensor in tensors.items()
    }
    if not can_express_groups(model.config):  # several names may stand for the same memory
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    write_tensors(directory / "model.safetensors", tensors)
    write_description(directory, model.config, model.labels(), labels)
    if "embedding" in model.heads:
        write_pooling(directory, model.config)


def _tensors(model: Model) -> dict[str, Tensor]:
    """Plain foreign names and the memory that each stands for: parameters, or rows of them for K and V."""
    column = 0 if model.config.model_type == "bert" else 1
    tensors = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name == "heads.masked_language_model.decoder.weight":
            continue  # tied to the token embeddings
        module, kind = name.rsplit(".", 1)
        prefix = ""
        if layer := re.match(r"encoder\.layers\.(\d+)\.", module):
            prefix, module = _layer_prefix(model.config, int(layer[1])), module[layer.end() :]
        foreign = prefix + _NAMES[module][column]
        parts = [foreign.format(part) for part in ("key", "value")] if "{}" in foreign else [foreign]
        for part, rows in zip(parts, parameter.detach().chunk(len(parts)), strict=True):
            tensors[f"{part}.{kind}"] = rows
    return tensors


def _layer_prefix(config: EncoderConfig, layer: int) -> str:
    if config.model_type == "bert":
        return f"encoder.layer.{layer}."
    step, inner = divmod(layer, config.inner_group_num)
    group = config.group_of(step) if can_express_groups(config) else step
    return f"encoder.albert_layer_groups.{group}.albert_layers.{inner}."


def _identity_projection(config: EncoderConfig) -> dict[str, Tensor]:
    """The projection that the format wants of an ALBERT that has none, by its plain foreign names."""
    if config.model_type == "bert" or config.embedding_size is not None:
        return {}
    name = _NAMES["encoder.embeddings.projection"][1]
    return {f"{name}.weight": torch.eye(config.hidden_size), f"{name}.bias": torch.zeros(config.hidden_size)}


def _sources(tensors: dict[str, Tensor]) -> Sources:
    sources: Sources = defaultdict(dict)
    for name, tensor in tensors.items():
        if not name.endswith(_BUFFERS):
            sources[_plain(name)][name] = tensor
    return sources


def _plain(name: str) -> str:
    """The name as `_tensors` has it: without the model's prefix, in today's spelling."""
    name = re.sub(r"^(bert|albert)\.", "", name)
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    return re.sub(r"^((cls\.)?predictions)\.decoder\.bias$", r"\1.bias", name)


def _beginnings(parts: Iterable[str]) -> set[str]:
    return {beginning for part in parts for beginning in _PARTS[part]}


def _holds(sources: Sources, part: str) -> bool:
    return any(name.startswith(_PARTS[part]) for name in sources)
