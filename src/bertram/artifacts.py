"""A trained model of any kind, loaded to answer: the one place that picks what computes."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertram.baseline import Baseline, is_baseline
from bertram.errors import BadInput
from bertram.formats.ctranslate2_file import is_ctranslate2, vocabulary
from bertram.formats.engine_file import is_engine, read_engine
from bertram.inference.engine_runner import EngineRunner
from bertram.inference.generator import Generator
from bertram.inference.mask_filler import MaskFiller
from bertram.inference.predictor import Predictor, Runner
from bertram.model_directory import ModelDirectory, check_head, checked_length
from bertram.model_names import engine_of, exists, may_be, resolve, trained
from bertram.run_directory import MANIFEST, trained_on_pairs
from bertram.tasks.fill_mask import FillMask
from bertram.tasks.registry import COLUMNS, any_task_from_dict
from bertram.tasks.sequence_to_sequence import Generation
from bertram.tasks.task import Task
from bertram.text.inputs import Input, read_documents, read_inputs, read_lines, read_texts
from bertram.text.records import ROLES, Columns, is_table, kind_of, parse_columns
from bertram.text.tokenizer import Tokenizer

Reader = Callable[[str, Columns], Iterator[Any]]
_READERS: Mapping[str, tuple[Reader, Sequence[str]]] = {
    "predict": (read_inputs, ROLES),
    "embed": (read_texts, ROLES),
    "fill-mask": (read_texts, ROLES),
    "translate": (read_lines, COLUMNS["translation"]),
    "summarize": (read_documents, COLUMNS["summarization"]),
}
"""How the commands that answer read a source, and the columns that may be named: those that training reads too."""
_FILE_ENDING = re.compile(r"\.[A-Za-z]\w{0,5}")
_VERBS = {"translation": "translate", "summarization": "summarize", FillMask.name: "fill-mask"}


def load(model: str | Path, *, allow_pickle: bool = False) -> Predictor | Generator | MaskFiller | Baseline:
    """Load a trained model, an engine file, a comparison's baseline or one of Bertram's own, ready to `predict`.

    Raises:
        BadInput: there is none, it is damaged, or it is a bare preset, which has learned nothing.
    """
    if (engine := engine_of(model)) is not None:
        return _load_engine(engine)
    source = trained(model, resolve(model, allow_pickle=allow_pickle, answers=True))
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
) -> Predictor | MaskFiller:
    if isinstance(task, FillMask):
        return MaskFiller(tokenizer, runner, max_length)
    return Predictor(task, tokenizer, runner, max_length, pairs=pairs)


def load_predictor(model: str | Path, *, allow_pickle: bool = False) -> Predictor:
    """`load` where an encoder is wanted, for its logits or its vectors.

    Raises:
        BadInput: as `load`, or the model is none.
    """
    found = load(model, allow_pickle=allow_pickle)
    if isinstance(found, Baseline):
        raise BadInput(f"{model}: is a tf-idf baseline, which predicts and makes no vectors")
    if isinstance(found, Generator | MaskFiller):
        raise BadInput(f"{model}: is for {found.task.name}, which gives texts; use bertram {_VERBS[found.task.name]}")
    return found


def load_generator(model: str | Path, task: str | None = None, *, allow_pickle: bool = False) -> Generator:
    """`load` where texts are wanted, by a model of any kind of generation or of `task`.

    Raises:
        BadInput: as `load`, or the model does something else.
    """
    found = load(model, allow_pickle=allow_pickle)
    if not isinstance(found, Generator) or task not in (None, found.task.name):
        raise BadInput(f"{model}: is for {found.task.name}, not for {task or 'writing texts'}")
    return found


def _load_engine(path: Path) -> Predictor | MaskFiller:
    engine = read_engine(path)
    manifest = engine.manifest
    if "task" not in manifest:
        raise BadInput(f"{path}: its model was trained for no task")
    try:
        task = any_task_from_dict(manifest["task"])
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    if isinstance(task, Generation):
        raise BadInput(f"{path}: an engine does no {task.name}")
    check_head(path, task, engine.heads)
    return _on_encoder(task, engine.tokenizer, EngineRunner(engine), engine.max_length, trained_on_pairs(manifest))


def load_mask_filler(model: str | Path, *, allow_pickle: bool = False) -> MaskFiller:
    """`load` where the tokens at a [MASK] are wanted.

    Raises:
        BadInput: as `load`, or the model is no masked language model.
    """
    found = load(model, allow_pickle=allow_pickle)
    if not isinstance(found, MaskFiller):
        raise BadInput(f"{model}: is for {found.task.name}, not for {FillMask.name}")
    return found


def _load_generator(source: ModelDirectory, task: Generation) -> Generator:
    if is_ctranslate2(source.path):
        from bertram.inference.ctranslate2_runner import CTranslate2Runner

        runner = CTranslate2Runner(source.path)
        max_length = checked_length(source.manifest.get("max_length"), source.path / MANIFEST)
        known = [runner.description.source_tokens, runner.description.target_tokens]
        tokenizers = source.read_tokenizers((len(known[0]), len(known[1])))
        for side, tokenizer, tokens in zip(("source", "target"), tokenizers, known, strict=True):
            if vocabulary(side, tokenizer.tokens, len(tokens)) != tokens:
                raise BadInput(f"{source}: the {side} tokenizer's vocabulary is not that of the exported model")
        return Generator(task, *tokenizers, runner, max_length, source.search)
    network = source.read_transformer()
    from bertram.training.torch_runner import TorchGenerator

    return Generator(task, *source.read_tokenizers(), TorchGenerator(network), source.max_length, source.search)


def asked(
    verb: str, model: str | None, source: str | None, text: str | None, columns: str | None, own: str
) -> tuple[str, Iterable[Sequence[Input]]]:
    """Which model is to answer, and what it is asked: MODEL and SOURCE, each of which may be missing.

    Without a model `own` answers. One argument alone is a source if it is "-" or a file that is no engine, or ends as
    files of texts do; else it is a model, or a text as `chunks_of` knows them.

    Raises:
        BadInput: as `chunks_of`.
    """
    if model is not None and source is None and text is None:
        path = Path(model)
        if path.suffix == ".engine" and exists(path) and path.is_file() and engine_of(path) is None:
            raise BadInput(f"{model}: is no engine file, or is damaged")
        is_file = path.is_file() and not is_engine(path) if exists(path) else _ends_as_texts(path)
        if model == "-" or is_file or _is_text(model):
            model, source = None, model
        elif not may_be(model):
            raise BadInput(f"{model}: no such model or file; for one text write --text {model!r:.80}")
    return own if model is None else model, chunks_of(verb, source, text, columns)


def chunks_of(verb: str, source: str | None, text: str | None, columns: str | None) -> Iterable[Sequence[Input]]:
    """What is asked of a model: one text, or what stands in a source; without either, in standard input.

    A source that has white space in it, names nothing and does not end as file names do is a text. `verb` is the
    command's name; `columns` are as the command line has them.

    Raises:
        BadInput: both a source and a text are given, there is no such source, or `columns` cannot be read.
    """
    read, roles = _READERS[verb]
    names = parse_columns(columns, roles)
    if source is not None and text is not None:
        raise BadInput(f"{source}: give a source or --text, not both")
    if source is not None and _is_text(source):
        text = source
    elif source not in (None, "-") and not exists(Path(source)):
        raise BadInput(f"{source}: no such file; for one text write --text {source!r:.80}")
    if text is None:
        return read("-" if source is None else source, names or {})
    if names is not None:
        raise BadInput("--columns: is for a table, and this is a text")
    return [[text]]


def _is_text(argument: str) -> bool:
    path = Path(argument)
    return len(argument.split()) > 1 and not exists(path) and not _FILE_ENDING.fullmatch(path.suffix)


def _ends_as_texts(path: Path) -> bool:
    return is_table(path) or kind_of(path) == ".txt"
