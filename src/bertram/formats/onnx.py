"""ONNX files with the signature that other runtimes expect: padded texts in, hidden states or logits out.

Letters: B texts of S tokens with padding, H hidden width, h heads of d = H / h.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bertram.config import EncoderConfig
from bertram.errors import BadInput
from bertram.files import replacing
from bertram.formats.engine_layout import EMBEDDING, MASKED, TOKENS, layer_names
from bertram.formats.quantization import Floats

_OPSET, _IR_VERSION = 20, 10
_MOST_BYTES = 2**31 - 2**24  # of protobuf, less some for all but the weights
INPUTS = {name: ["batch", "sequence"] for name in ("input_ids", "attention_mask", "token_type_ids")}


def write_onnx(
    path: Path,
    config: EncoderConfig,
    heads: Sequence[str],
    weights: Mapping[str, Floats],
    vectors: Mapping[str, Floats],
) -> None:
    """Write an encoder and its heads, with the tensors of `formats.engine.tensors_of`; shared ones stand there once.

    The file takes input_ids, attention_mask and token_type_ids, int64 [B, S] each, of any B and S, and gives what
    transformers' classes do: "logits" of its one head, those of each by its name if there are several, and without a
    head "last_hidden_state" [B, S, H], with "pooler_output" [B, H] where there is a pooler. Vectors of texts are
    "sentence_embedding" [B, H], as sentence-transformers names them.

    Raises:
        BadInput: the weights are more than such a file holds.
        OSError: the file cannot be written.
    """
    graph, text, token = Graph(config, weights, vectors), ["batch"], ["batch", "sequence"]
    hidden, width = graph.encoder(), config.hidden_size
    outputs: dict[str, tuple[str, list[str | int]]] = {}
    if not heads:
        outputs["last_hidden_state"] = hidden, [*token, width]
    if "pooler" in weights:
        first = graph("Gather", hidden, graph.constant(np.int64(0)), axis=1)
        pooled = graph("Tanh", graph.linear("pooler", first))
        if not heads:
            outputs["pooler_output"] = pooled, [*text, width]
    for name in heads:
        output = "logits" if len(heads) == 1 else name
        if name == MASKED:
            outputs[output] = graph.masked(hidden), [*token, config.vocab_size]
        elif name == EMBEDDING:
            outputs["sentence_embedding"] = graph.pooled(hidden), [*text, width]
        else:
            read, shape = (hidden, token) if name == TOKENS else (pooled, text)
            outputs[output] = graph.linear(f"heads.{name}", read), [*shape, len(weights[f"heads.{name}"])]
    if (size := sum(len(tensor.raw_data) for tensor in graph.tensors.values())) > _MOST_BYTES:
        raise BadInput(f"{path}: {size / 1e9:.1f} GB of weights are more than an ONNX file holds")
    with replacing(path) as temporary:
        onnx.save(graph.model(outputs), str(temporary))


class Graph:
    """Operators in the order in which they run. A call adds one and gives the name of its result."""

    def __init__(self, config: EncoderConfig, weights: Mapping[str, Floats], vectors: Mapping[str, Floats]) -> None:
        self.config, self.weights, self.vectors = config, weights, vectors
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}
        self.numbers = count()

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self.several(operator, 1, *inputs, **attributes)[0]

    def several(self, operator: str, results: int, *inputs: str, **attributes: Any) -> list[str]:
        names = [f"{operator.lower()}_{next(self.numbers)}" for _ in range(results)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def constant(self, value: Any) -> str:
        name = f"constant_{next(self.numbers)}"
        self.tensors[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def tensor(self, name: str, value: Floats) -> str:
        if name not in self.tensors:
            self.tensors[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def linear(self, name: str, x: str) -> str:
        bias, product = f"{name}.bias", self("MatMul", x, self.tensor(f"{name}.weight", self.weights[name].T))
        return self("Add", product, self.tensor(bias, self.vectors[bias]))

    def normalize(self, name: str, x: str) -> str:
        parts = [f"{name}.norm.{part}" for part in ("weight", "bias")]
        tensors = [self.tensor(part, self.vectors[part]) for part in parts]
        return self("LayerNormalization", x, *tensors, axis=-1, epsilon=self.config.layer_norm_eps)

    def activate(self, x: str) -> str:
        match self.config.hidden_act:
            case "relu":
                return self("Relu", x)
            case "silu":
                return self("Mul", x, self("Sigmoid", x))
            case "gelu":
                return self("Gelu", x, approximate="none")
        return self("Gelu", x, approximate="tanh")

    def encoder(self) -> str:
        """Hidden states, [B, S, H]."""
        ids, mask, segments = INPUTS
        length = self("Gather", self("Shape", ids), self.constant(np.int64(1)))
        places = self("Range", self.constant(np.int64(0)), length, self.constant(np.int64(1)))
        return self.layers(self.embedded(ids, places, segments), mask)

    def embedded(self, ids: str, places: str, segments: str) -> str:
        """What the first layer takes."""
        config = self.config
        x = self("Gather", self.tensor("tokens", self.weights["tokens"]), ids)
        if config.scale_embedding:
            x = self("Mul", x, self.constant(np.float32(math.sqrt(config.embedding_width))))
        x = self("Add", x, self("Gather", self.tensor("positions", self.weights["positions"]), places))
        if config.type_vocab_size:
            x = self("Add", x, self("Gather", self.tensor("segments", self.weights["segments"]), segments))
        if config.normalize_embedding:
            x = self.normalize("embedding", x)
        return x if config.embedding_size is None else self.linear("projection", x)

    def layers(self, x: str, mask: str) -> str:
        """What the last layer gives, of texts that stand where `mask` [B, S] is 1."""
        real = self("Cast", mask, to=TensorProto.FLOAT)
        mask_bias = self("Mul", self("Sub", self.constant(np.float32(1)), real), self.constant(np.float32(-1e9)))
        mask_bias = self("Unsqueeze", mask_bias, self.constant(np.array([1, 2])))  # [B, 1, 1, S]
        for attention, feed_forward in layer_names(self.config):
            x = self.residual(attention, x, partial(self.multi_head_attention, mask_bias))
            x = self.residual(feed_forward, x, self.feed_forward)
        return self.normalize("final", x) if self.config.normalize_before else x

    def residual(self, name: str, x: str, part: Callable[[str, str], str]) -> str:
        """x + part(x), with the layer norm of `name` before the part or behind the sum."""
        if self.config.normalize_before:
            return self("Add", x, part(name, self.normalize(name, x)))
        return self.normalize(name, self("Add", x, part(name, x)))

    def multi_head_attention(self, mask_bias: str, name: str, x: str) -> str:
        mixed = self.attention(self.linear(f"{name}.query_key_value", x), mask_bias)
        return self.linear(f"{name}.output", mixed)

    def feed_forward(self, name: str, x: str) -> str:
        return self.linear(f"{name}.down", self.activate(self.linear(f"{name}.up", x)))

    def attention(self, qkv: str, mask_bias: str) -> str:
        """softmax(QKᵀ / √d) V of Q, K and V side by side, [B, S, 3 H] → [B, S, H]."""
        heads, width = self.config.num_attention_heads, self.config.hidden_size
        shape = self.constant(np.array([0, 0, heads, width // heads]))
        parts = self.several("Split", 3, qkv, axis=-1, num_outputs=3)
        q, k, v = (
            self("Transpose", self("Reshape", part, shape), perm=order)
            for part, order in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
        )
        scores = self("Mul", self("MatMul", q, k), self.constant(np.float32(1 / math.sqrt(width // heads))))
        mixed = self("MatMul", self("Softmax", self("Add", scores, mask_bias), axis=-1), v)
        mixed = self("Transpose", mixed, perm=[0, 2, 1, 3])
        return self("Reshape", mixed, self.constant(np.array([0, 0, width])))

    def masked(self, hidden: str) -> str:
        """Scores of every vocabulary entry, [B, S, V]; the token embeddings, turned, are its weights."""
        name = f"heads.{MASKED}"
        x = self.normalize(name, self.activate(self.linear(name, hidden)))
        scores = self("MatMul", x, self("Transpose", self.tensor("tokens", self.weights["tokens"]), perm=[1, 0]))
        return self("Add", scores, self.tensor("tokens.bias", self.vectors["tokens.bias"]))

    def pooled(self, hidden: str) -> str:
        """Texts' vectors, [B, H], pooled and of the length that the configuration says."""
        if self.config.pooling == "cls":
            pooled = self("Gather", hidden, self.constant(np.int64(0)), axis=1)
        else:
            mask = self("Unsqueeze", self("Cast", "attention_mask", to=TensorProto.FLOAT), self.constant(np.array([2])))
            total, tokens = (
                self("ReduceSum", x, self.constant(np.array([1])), keepdims=0)
                for x in (self("Mul", hidden, mask), mask)
            )
            tokens = self("Max", tokens, self.constant(np.float32(1)))  # a row that only fills a batch has none
            pooled = self("Div", total, tokens)
        if not self.config.normalize_pooling:
            return pooled
        return self("LpNormalization", pooled, axis=-1, p=2)

    def model(
        self, outputs: Mapping[str, tuple[str, list[str | int]]], inputs: Mapping[str, list[str]] = INPUTS
    ) -> onnx.ModelProto:
        """The whole, with `outputs` and their shapes by their names for users, and the `inputs` of whole numbers."""
        nodes = [*self.nodes, *(helper.make_node("Identity", [found], [name]) for name, (found, _) in outputs.items())]
        given = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in inputs.items()]
        results = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (_, shape) in outputs.items()
        ]
        graph = helper.make_graph(nodes, "bertram", given, results, list(self.tensors.values()))
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="bertram",
        )
        onnx.checker.check_model(model)
        return model
