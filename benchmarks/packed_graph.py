"""What libraries make of a packed graph: the engine beside onnxruntime and openvino on texts end to end, not padded.

    python benchmarks/packed_graph.py --models bert-base albert-base --rounds 5

Linear layers and norms run over the T tokens of a batch; around attention alone they are gathered to [B, S] and back.
The graph is made of the same weights as the engine, random ones of a preset, and each library takes it in its best
precision: onnxruntime in dynamic int8 and float32, openvino as it comes (bfloat16 where the processor has it) and after
nncf's post-training quantization. oneDNN, as it comes with torch, computes the layers' four products alone, from random
activations in int8, one of them with GELU: what an engine that called them like this would need at least. 192 texts
with lengths as in `bertram bench` go in batches of 32 sorted by length. Each library is a process of its own, they take
turns, and medians over the rounds are printed. Nothing else may run meanwhile.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bertram.batch import Batch
from bertram.benchmark.subject import LENGTHS, drawn
from bertram.config import PRESETS, EncoderConfig
from bertram.environment import default_threads
from bertram.formats.onnx import Graph
from bertram.memory import peak_memory_mb
from turns import Worker

PRODUCTS = "oneDNN int8, products alone"
KINDS = ("engine int8", PRODUCTS, "onnxruntime int8", "onnxruntime fp32", "openvino", "openvino int8")
BATCH = 32
VECTORS, TABLES = ["tokens"], ["batch", "sequence"]
INPUTS = {
    **dict.fromkeys(("input_ids", "position_ids", "token_type_ids", "back"), VECTORS),
    **dict.fromkeys(("there", "attention_mask"), TABLES),
}
"""`there` [B, S] says which token stands at each place of each text, `back` [T] at which of them a token stands."""

Ids = list[list[int]]


class Packed(Graph):
    """The encoder over tokens end to end."""

    def encoder(self) -> str:
        return self.layers(self.embedded("input_ids", "position_ids", "token_type_ids"), "attention_mask")

    def attention(self, asked: str, hidden: str) -> str:
        width = self.constant(np.array([-1, self.config.hidden_size]))
        mixed = super().attention(self("Gather", asked, "there"), hidden)
        return self("Gather", self("Reshape", mixed, width), "back")


def write(preset: str, folder: Path) -> None:
    """model.engine, packed.onnx and int8.onnx of a preset with random weights."""
    import onnx
    from onnxruntime import quantization

    from bertram.exporting import export
    from bertram.formats.engine import tensors_of
    from bertram.formats.huggingface import write as write_model
    from bertram.models.heads import Model
    from bertram.text.tokenizer import Tokenizer

    network = Model(PRESETS[preset], {}, pooler=False).eval()
    (folder / "model").mkdir()
    write_model(network, folder / "model")
    Tokenizer.train(["a tokenizer of few words"], "bert", 64).save(folder / "model")
    export(folder / "model", format="engine", out=folder / "model.engine", min_agreement=0.0)
    graph = Packed(network.config, *tensors_of(network))
    output = {"last_hidden_state": (graph.encoder(), ["tokens", network.config.hidden_size])}
    onnx.save(graph.model(output, INPUTS), folder / "packed.onnx")
    quantization.quantize_dynamic(
        folder / "packed.onnx", folder / "int8.onnx", weight_type=quantization.QuantType.QInt8
    )


def inputs_of(texts: Ids) -> dict[str, Any]:
    batch, longest = Batch.pack(texts), max(map(len, texts))
    mask = np.arange(longest) < batch.lengths[:, None]
    there = np.zeros(mask.shape, np.int64)
    there[mask] = np.arange(len(batch.token_ids))
    return {
        "input_ids": batch.token_ids.astype(np.int64),
        "position_ids": batch.positions.astype(np.int64),
        "token_type_ids": batch.segment_ids.astype(np.int64),
        "back": np.flatnonzero(mask),
        "there": there,
        "attention_mask": mask.astype(np.int64),
    }


def only_products(folder: Path) -> Callable[[Ids], Any]:
    """The four products of every layer, with random weights as oneDNN packs them."""
    import torch

    from bertram.formats.engine_file import read_engine
    from bertram.formats.engine_layout import layer_names

    engine, ops = read_engine(folder / "model.engine"), torch.ops.onednn
    in_float32, in_int8 = (1.0, 0, torch.float32, "none", [], ""), (0.1, 128, torch.uint8, "gelu", [], "none")
    products = [
        (f"{part}.{name}", out)
        for attention, feed_forward in layer_names(engine.config)
        for part, name, out in (
            (attention, "query_key_value", in_float32),
            (attention, "output", in_float32),
            (feed_forward, "up", in_int8),
            (feed_forward, "down", in_float32),
        )
    ]
    packed, widths, activations = {}, {}, {}
    for name in {name for name, _ in products}:
        n, k = engine.matrices[name].outputs, engine.matrices[name].inputs
        widths[name] = k
        weight = ops.qlinear_prepack(torch.randint(-127, 128, (n, k), dtype=torch.int8), None)
        packed[name] = weight, torch.full((n,), 1e-3), torch.zeros(n, dtype=torch.int64), torch.zeros(n)
        activations[k] = torch.randint(0, 256, (BATCH * LENGTHS["mixed"][2], k), dtype=torch.uint8)

    def run(texts: Ids) -> Any:
        tokens = sum(map(len, texts))
        for name, out in products:
            product = ops.qlinear_pointwise(activations[widths[name]][:tokens], 0.01, 128, *packed[name], *out)
        return product.numpy()

    return run


def load(kind: str, folder: Path) -> Callable[[Ids], Any]:
    if kind == "engine int8":
        from bertram.formats.engine_file import read_engine
        from bertram.inference.engine_runner import EngineRunner

        encoder = EngineRunner(read_engine(folder / "model.engine")).encoder
        return lambda texts: encoder.hidden(Batch.pack(texts))
    if kind == PRODUCTS:
        return only_products(folder)
    if kind.startswith("onnxruntime"):
        library = importlib.import_module("onnxruntime")
        file = folder / ("int8.onnx" if kind.endswith("int8") else "packed.onnx")
        options = library.SessionOptions()
        options.intra_op_num_threads = default_threads()
        session = library.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return lambda texts: session.run(None, inputs_of(texts))[0]
    library = importlib.import_module("openvino")
    file = folder / ("int8.xml" if kind.endswith("int8") else "packed.onnx")
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": default_threads()}
    compiled = library.Core().compile_model(file, "CPU", settings)
    return lambda texts: compiled(inputs_of(texts))[0]


def quantize(folder: Path) -> None:
    """int8.xml of packed.onnx, by nncf's post-training quantization."""
    from bertram.formats.engine_file import read_engine

    library, nncf = (importlib.import_module(name) for name in ("openvino", "nncf"))
    batches = batches_of(read_engine(folder / "model.engine").config)
    seen = nncf.Dataset([inputs_of(texts[:8]) for texts in batches])
    graph = library.Core().read_model(folder / "packed.onnx")
    library.save_model(nncf.quantize(graph, seen, model_type=nncf.ModelType.TRANSFORMER), folder / "int8.xml")


def serve(kind: str, folder: Path) -> None:
    """Answer batches that come as JSON lines: the seconds they took, the peak memory, and a sum of what came out."""
    out, sys.stdout = sys.stdout, sys.stderr  # libraries print as they like
    answer = load(kind, folder)
    for line in sys.stdin:
        batches = json.loads(line)
        began = time.perf_counter()
        sums = [float(np.abs(answer(batch)).mean()) for batch in batches]
        row = [time.perf_counter() - began, peak_memory_mb(), statistics.mean(sums)]
        print(json.dumps(row), file=out, flush=True)


def batches_of(config: EncoderConfig) -> list[Ids]:
    texts = sorted(drawn(config, "mixed"), key=len)
    return [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]


def measure(preset: str, kinds: list[str], rounds: int) -> None:
    batches = batches_of(PRESETS[preset])
    lengths = [len(text) for batch in batches for text in batch]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(preset, folder)
        if "openvino int8" in kinds:  # in a process of its own, so that what this takes is nobody's memory
            subprocess.run([sys.executable, __file__, "--quantize", str(folder)], check=True, stdout=subprocess.DEVNULL)
        workers = {kind: Worker(__file__, kind, folder) for kind in kinds}
        found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in kinds}
        for worker in workers.values():
            worker.ask(batches)  # shapes that are new are compiled
        for _ in range(rounds):
            for kind, worker in workers.items():
                found[kind].append(worker.ask(batches))
        for worker in workers.values():
            worker.end()
    print(f"{preset}: {len(lengths)} texts, {statistics.mean(lengths):.1f} tokens on average")
    for kind, rows in found.items():
        seconds, memory = (statistics.median(row[place] for row in rows) for place in (0, 1))
        print(f"  {kind:28} {sum(lengths) / seconds:8,.0f} tokens/s   {memory:6,.0f} MB   mean |h| {rows[0][2]:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["bert-base", "albert-base"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=2)
    parser.add_argument("--quantize", type=Path)
    options = parser.parse_args()
    if options.quantize:
        quantize(options.quantize)
        return
    if options.serve:
        serve(options.serve[0], Path(options.serve[1]))
        return
    for preset in options.models:
        measure(preset, options.kinds, options.rounds)


if __name__ == "__main__":
    main()
