"""A trained model of any kind, loaded to answer: the one place that picks what computes."""

from pathlib import Path
from typing import TypeVar

from bertram.baseline.linear import Baseline, is_baseline
from bertram.batch import checked_length
from bertram.errors import BadInput, failing_in
from bertram.formats.ctranslate2_file import is_ctranslate2, vocabulary
from bertram.formats.engine_file import read_engine
from bertram.inference.engine_runner import EngineRunner
from bertram.inference.generator import Generator
from bertram.inference.mask_filler import MaskFiller
from bertram.inference.predictor import Predictor, Runner
from bertram.inference.tagger import Tagger, predictor_of
from bertram.model_directory import ModelDirectory, check_head
from bertram.model_names import engine_of, require_trained, resolve
from bertram.run_directory import MANIFEST
from bertram.tasks.fill_mask import FillMask
from bertram.tasks.registry import any_task_from_dict
from bertram.tasks.sequence_to_sequence import Generation, Summarization, Translation
from bertram.tasks.similarity import Similarity
from bertram.tasks.tagging import Tagging
from bertram.tasks.task import Task
from bertram.text.tokenizer import Tokenizer

K = TypeVar("K", bound=Predictor | Tagger | Generator | MaskFiller)

Loaded = Predictor | Tagger | Generator | MaskFiller | Baseline
"""Whatever answers."""

_VERBS = {
    Translation.name: "translate",
    Summarization.name: "summarize",
    FillMask.name: "fill-mask",
    Similarity.name: "embed",
    Tagging.name: "tag",
}
_WANTED: dict[type, str] = {
    Predictor: "vectors of texts",
    Tagger: Tagging.name,
    Generator: "writing texts",
    MaskFiller: FillMask.name,
}


def load(model: str | Path, *, allow_pickle: bool = False) -> Loaded:
    """Load a trained model, an engine file, a comparison's baseline or one of Bertram's own, ready to `predict`.

    Raises:
        BadInput: there is none, it is damaged or trained for nothing, or a bare preset, which has learned nothing.
    """
    if (engine := engine_of(model)) is not None:
        return _load_engine(engine)
    source = require_trained(resolve(model, allow_pickle=allow_pickle, answers=True))
    if is_baseline(source.path):
        return Baseline.load(source.path)
    task = source.task
    if isinstance(task, Generation):
        return _load_generator(source, task)
    network = source.read_to_answer()
    from bertram.training.torch_runner import TorchRunner

    return _on_encoder(task, source.read_tokenizer(), TorchRunner(network), source.max_length, source.pairs)


def _on_encoder(
    task: Task | FillMask, tokenizer: Tokenizer, runner: Runner, max_length: int, pairs: bool | None
) -> Predictor | Tagger | MaskFiller:
    if isinstance(task, FillMask):
        return MaskFiller(tokenizer, runner, max_length)
    return predictor_of(task, tokenizer, runner, max_length, pairs=pairs)


def load_as(kind: type[K], model: str | Path, task: str | None = None, *, allow_pickle: bool = False) -> K:
    """`load` where a model of this kind is wanted, and one for `task` if that is named.

    Raises:
        BadInput: as `load`, or the model is another.
    """
    found = load(model, allow_pickle=allow_pickle)
    if isinstance(found, kind) and task in (None, found.task.name):
        return found
    raise _other(model, found, task or _WANTED[kind])


def load_predictor(model: str | Path, *, allow_pickle: bool = False) -> Predictor | Tagger:
    """`load` where an encoder is wanted that was trained on labels.

    Raises:
        BadInput: as `load`, or the model is none.
    """
    found = load(model, allow_pickle=allow_pickle)
    if isinstance(found, Predictor | Tagger):
        return found
    raise _other(model, found, "labels")


def _other(model: str | Path, found: Loaded, wanted: str) -> BadInput:
    """The error of a model that was found where another was wanted."""
    if isinstance(found, Baseline):
        return BadInput(f"{model}: is a comparison's baseline; use bertram predict")
    verb = _VERBS.get(found.task.name, "predict")
    return BadInput(f"{model}: is for {found.task.name}, not for {wanted}; use bertram {verb}")


def _load_engine(path: Path) -> Predictor | Tagger | MaskFiller:
    engine = read_engine(path)
    manifest = engine.manifest
    if "task" not in manifest:
        raise BadInput(f"{path}: its model was trained for no task")
    with failing_in(path):
        task = any_task_from_dict(manifest["task"])
    if isinstance(task, Generation):
        raise BadInput(f"{path}: an engine does no {task.name}")
    check_head(path, task, engine.heads)
    return _on_encoder(task, engine.tokenizer, EngineRunner(engine), engine.max_length, engine.pairs)


def _load_generator(source: ModelDirectory, task: Generation) -> Generator:
    if is_ctranslate2(source.path):
        from bertram.inference.ctranslate2_runner import CTranslate2Runner

        runner = CTranslate2Runner(source.path)
        max_length = checked_length(source.manifest.get("max_length"), f"{source.path / MANIFEST}: max_length")
        known = [runner.description.source_tokens, runner.description.target_tokens]
        tokenizers = source.read_tokenizers((len(known[0]), len(known[1])))
        for side, tokenizer, tokens in zip(("source", "target"), tokenizers, known, strict=True):
            if vocabulary(side, tokenizer.tokens, len(tokens)) != tokens:
                raise BadInput(f"{source}: the {side} tokenizer's vocabulary is not that of the exported model")
        return Generator(task, *tokenizers, runner, max_length, source.search)
    network = source.read_transformer()
    from bertram.training.torch_runner import TorchGenerator

    return Generator(task, *source.read_tokenizers(), TorchGenerator(network), source.max_length, source.search)
