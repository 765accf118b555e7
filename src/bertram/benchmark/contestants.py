"""Who is measured: Bertram's engine and other libraries, each at its best honest setting, with the same weights and as
many threads.

All take a batch of token ids and compute the hidden states of every token. What each needs is written by `prepare`,
once, and read in a process of its own. Libraries are imported when they are asked for.

Letters: B texts, S tokens of the longest.
"""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bertram.batch import Batch
from bertram.config import Precision
from bertram.environment import default_threads
from bertram.errors import BadInput
from bertram.files import write_json

Ids = list[list[int]]
_CALIBRATED_ON = 64  # batches, which openvino's post-training quantization sees


class Contestant(Protocol):
    """A model that is loaded."""

    def run(self, texts: Ids) -> object:
        """Hidden states of one batch, in whatever form the library has them."""


class Setting(NamedTuple):
    """One row of the table."""

    prepare: Callable[[Path, Path], Path]
    """From a Hugging Face directory to what is read, in a folder for it. Raises BadInput where it cannot be."""
    load: Callable[[Path], Contestant]
    by_length: bool
    """Whether batches are of texts of similar length, or of such as come one after the other."""


class _Bertram:
    def __init__(self, path: Path) -> None:
        from bertram.formats.engine_file import read_engine
        from bertram.inference.engine_runner import EngineRunner

        self.encoder = EngineRunner(read_engine(path)).encoder

    def run(self, texts: Ids) -> object:
        return self.encoder.hidden(Batch.pack(texts))


class _Transformers:
    def __init__(self, path: Path, precision: str) -> None:
        self.torch = _library("torch")
        self.torch.set_num_threads(default_threads())
        transformers = _library("transformers")
        transformers.utils.logging.disable_progress_bar()
        self.model = transformers.AutoModel.from_pretrained(path, dtype=getattr(self.torch, precision)).eval()

    def run(self, texts: Ids) -> object:
        inputs = {name: self.torch.from_numpy(array) for name, array in padded(texts).items()}
        with self.torch.inference_mode():
            return self.model(**inputs).last_hidden_state


class _OnnxRuntime:
    def __init__(self, path: Path) -> None:
        library = _library("onnxruntime")
        options = library.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, default_threads()
        self.session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.output = self.session.get_outputs()[0].name

    def run(self, texts: Ids) -> object:
        return self.session.run([self.output], padded(texts))[0]


class _OpenVino:
    def __init__(self, path: Path, **hints: str) -> None:
        library = _library("openvino")
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": default_threads()} | hints
        self.model = library.Core().compile_model(path, "CPU", settings)

    def run(self, texts: Ids) -> object:
        return self.model(padded(texts))[0]


class _CTranslate2:
    def __init__(self, path: Path) -> None:
        library = _library("ctranslate2")
        self.model = library.Encoder(str(path), device="cpu", intra_threads=default_threads(), compute_type="int8")

    def run(self, texts: Ids) -> object:
        return np.asarray(self.model.forward_batch(texts).last_hidden_state)


def _engine(precision: Precision) -> Callable[[Path, Path], Path]:
    def prepare(model: Path, folder: Path) -> Path:
        from bertram.exporting import export

        least = 0.0 if precision == "int8" else None
        export(model, format="engine", out=folder / "model.engine", precision=precision, min_agreement=least)
        return folder / "model.engine"

    return prepare


def _as_it_is(model: Path, _: Path) -> Path:
    return model


def _onnx(model: Path, folder: Path) -> Path:
    from bertram.formats.engine import tensors_of
    from bertram.formats.onnx import write_onnx
    from bertram.formats.residuals import untied
    from bertram.model_directory import ModelDirectory

    network = untied(ModelDirectory(model).read_model({}))
    write_onnx(folder / "model.onnx", network.config, [], *tensors_of(network))
    return folder / "model.onnx"


def _onnx_int8(model: Path, folder: Path) -> Path:
    tools = _library("onnxruntime.quantization")
    tools.quantize_dynamic(plain := _onnx(model, folder), folder / "int8.onnx", weight_type=tools.QuantType.QInt8)
    plain.unlink()
    return folder / "int8.onnx"


def _openvino_int8(model: Path, folder: Path) -> Path:
    found = _quantized(_library("openvino").Core().read_model(plain := _onnx(model, folder)), folder)
    plain.unlink()
    return found


def _openvino_converted_int8(model: Path, folder: Path) -> Path:
    torch = _library("torch")
    network = _library("transformers").AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    example = {name: torch.from_numpy(array) for name, array in padded([[5] * 8, [5] * 6]).items()}
    return _quantized(_library("openvino").convert_model(network, example_input=example), folder)


def _quantized(graph: Any, folder: Path) -> Path:
    """A graph of openvino's after nncf's post-training quantization."""
    openvino, nncf = _library("openvino"), _library("nncf")
    random, limit = np.random.default_rng(0), 100
    seen = [padded(random.integers(0, limit, (8, int(s))).tolist()) for s in random.integers(8, 64, _CALIBRATED_ON)]
    quantized = nncf.quantize(
        graph, nncf.Dataset(seen), model_type=nncf.ModelType.TRANSFORMER, subset_size=_CALIBRATED_ON
    )
    openvino.save_model(quantized, folder / "int8.xml")
    return folder / "int8.xml"


def _ctranslate2(model: Path, folder: Path) -> Path:
    library = _library("ctranslate2")
    copy = shutil.copytree(model, folder / "model")
    settings = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    # Its converter asks for what transformers 5 no longer has.
    write_json(copy / "config.json", settings | {"position_embedding_type": "absolute"})
    try:
        library.converters.TransformersConverter(str(copy)).convert(str(folder / "ct2"), quantization="int8")
    except ValueError as error:
        raise BadInput(str(error).splitlines()[0]) from None
    return folder / "ct2"


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BadInput(not_installed(name)) from None


def not_installed(library: str) -> str:
    """What is said where one is missing."""
    package = library.partition(".")[0]
    return f"{package} is not installed; it comes with: pip install {package}"


def padded(texts: Ids) -> dict[str, NDArray[np.int64]]:
    """input_ids, attention_mask and token_type_ids, [B, S] each."""
    ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


INT8 = "bertram int8"

SETTINGS: dict[str, Setting] = {
    INT8: Setting(_engine("int8"), _Bertram, by_length=True),
    "bertram fp32": Setting(_engine("fp32"), _Bertram, by_length=True),
    "transformers default": Setting(_as_it_is, lambda path: _Transformers(path, "float32"), by_length=False),
    "transformers fp32": Setting(_as_it_is, lambda path: _Transformers(path, "float32"), by_length=True),
    "transformers bf16": Setting(_as_it_is, lambda path: _Transformers(path, "bfloat16"), by_length=True),
    "onnxruntime fp32": Setting(_onnx, _OnnxRuntime, by_length=True),
    "onnxruntime int8": Setting(_onnx_int8, _OnnxRuntime, by_length=True),
    "openvino default": Setting(_onnx, _OpenVino, by_length=True),
    "openvino fp32": Setting(_onnx, lambda path: _OpenVino(path, INFERENCE_PRECISION_HINT="f32"), by_length=True),
    "openvino int8": Setting(_openvino_int8, _OpenVino, by_length=True),
    "openvino int8, own conversion": Setting(_openvino_converted_int8, _OpenVino, by_length=True),
    "ctranslate2 int8": Setting(_ctranslate2, _CTranslate2, by_length=True),
}
"""By library and precision: each in float32 too, as bfloat16 loses on some machines that have it. By default
transformers takes texts as they come, and openvino computes an fp32 model in bfloat16 where the processor has it.
Graphs are Bertram's ONNX files, except the one that openvino itself converts from transformers' model: in int8 now one
of the two is faster, now the other."""
