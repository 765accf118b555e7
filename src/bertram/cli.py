"""The command line: one function a command, and no logic.

Heavy rooms are imported inside the commands, so that `bertram --help` answers at once.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import App, CycloptsError, Parameter, Token, convert

from bertram import __version__
from bertram.config import (
    Documents,
    ExportFormat,
    LengthDistribution,
    Lesson,
    Objectives,
    Precision,
    assignments,
    parse_fields,
)
from bertram.errors import BadInput, BertramError, NoCandidateFits, check_utf8, line_of
from bertram.interruption import Interrupted, stoppable
from bertram.search import SearchOptions
from bertram.shrinking.dial import Dial
from bertram.training.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bertram.text.inputs import Input


def _unrounded(kind: Any, tokens: Sequence[Token]) -> Any:
    """A value as cyclopts converts it, but for a fraction in place of a whole number, which it would round."""
    if int in (kind, *get_args(kind)) and "." in tokens[0].value:
        raise ValueError(f"{tokens[0].value} is no whole number.")
    return convert(kind, tokens)


app = App(
    name="bertram",
    version=__version__,
    help="Train, compare and ship BERT, ALBERT and encoder–decoder models on your own hardware.",
    default_parameter=Parameter(converter=_unrounded),
    suppress_keyboard_interrupt=False,
)


def _no_option(_: object, value: str | None) -> None:
    """Refuse a source that begins with "-", unless it is "-", standard input: it is a mistyped option."""
    if value is not None and value != "-" and value.startswith("-"):
        raise ValueError(f"Unknown option: {value}. For a text write --text {value!r:.80}.")


def _no_columns(_: object, value: Path | None) -> None:
    """Refuse a second file that is the rest of --columns, after a space."""
    from bertram.model_names import exists

    if value is not None and "=" in value.name and not exists(value):
        raise ValueError(f"{value}: no such file. Join columns with a comma: --columns text=sentence,label=2.")


def _task(kind: Any, tokens: Sequence[Token]) -> Any:
    """The name of a task; where it was forgotten, a file stands in its place."""
    from bertram.model_names import exists

    word = tokens[0].value
    if word not in get_args(kind) and exists(Path(word)):
        raise ValueError(f"The task comes first: bertram train classification {word} …")
    return convert(kind, tokens)


def _separated(kind: Any, tokens: Sequence[Token]) -> Any:
    """Names that commas separate too; one with a comma that is a path stays whole."""
    from bertram.model_names import exists

    names = [(token, [token.value] if exists(Path(token.value)) else token.value.split(",")) for token in tokens]
    found = [token.evolve(value=name) for token, parts in names for name in parts if name]
    if not found:
        raise BadInput(f"{tokens[0].value!r:.40} names nothing")
    return convert(kind, found)


def _column_names(_: object, tokens: Sequence[Token]) -> Mapping[str, str]:
    return assignments(tokens[0].value, "text=sentence,label=2")


def _fields(_: object, tokens: Sequence[Token]) -> Mapping[str, Any]:
    return parse_fields(assignments(tokens[0].value, "hidden_size=320,num_attention_heads=5"))


Data = Annotated[
    Path,
    Parameter(
        help="A CSV, TSV, JSONL or Parquet table with the columns text [, text_b] and label; for translation, source "
        "and target; for summarization, document and summary; for tagging, a CoNLL file, or a table with a label for "
        "every word."
    ),
]
Data2 = Annotated[
    Path | None,
    Parameter(
        validator=_no_columns,
        help="For translation from two text files: the target side, whose lines translate those of DATA.",
    ),
]
Names = Parameter(converter=_separated, consume_multiple=True, negative="")
Files = Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")]
ColumnNames = Annotated[Mapping[str, str] | None, Parameter(converter=_column_names, n_tokens=1, accepts_keys=False)]
TableColumns = Annotated[
    ColumnNames,
    Parameter(
        help="Which columns of a table to read, by name or counted from 1: text=sentence,label=2. If every column is "
        "given by number, the file has no header row."
    ),
]
Columns = Annotated[
    ColumnNames,
    Parameter(
        help="Which columns of a table to read, by name or counted from 1: text=sentence,label=2; for translation "
        "source=en,target=de, for summarization document=body,summary=title. If every column is given by number, the "
        "file has no header row."
    ),
]
Config = Annotated[Mapping[str, Any] | None, Parameter(converter=_fields, n_tokens=1, accepts_keys=False)]
Json = Annotated[bool, Parameter(negative="", help="Print JSON.")]
Flag = Annotated[bool, Parameter(negative="")]
Pickle = Annotated[
    bool,
    Parameter(negative="", help="Also accept weights in a pytorch_model.bin; only tensors are unpickled."),
]
VocabSize = Annotated[
    int | None, Parameter(help="Maximum size of the vocabulary learned for a preset. Default: the preset's own size.")
]
Cased = Annotated[
    bool,
    Parameter(
        negative="",
        help="Learn a vocabulary that keeps upper case and accents for a BERT or ALBERT preset. Hindi, Thai and "
        "Japanese need it: their vowel and voicing marks count as accents.",
    ),
]
MaxLength = Annotated[
    int | None, Parameter(help="Truncate texts to this many tokens. Default: the maximum length of the model.")
]
Resume = Annotated[
    bool, Parameter(negative="", help="Resume the training in OUT. A finished training is left unchanged.")
]
Training = Annotated[Recipe, Parameter(name="*")]
TaskName = Literal["classification", "regression", "similarity", "tagging"]
WritingTask = Literal["translation", "summarization"]
AnyTaskName = Literal[TaskName, WritingTask]
SingleText = Annotated[
    str | None,
    Parameter(
        allow_leading_hyphen=True,
        help="A single text, instead of a file. A text of two or more words can also be given directly as SOURCE.",
    ),
]
Source = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_no_option)]
Searching = Annotated[SearchOptions | None, Parameter(name="*")]


@app.command
def check(
    data: Data,
    data2: Data2 = None,
    *,
    task: AnyTaskName | None = None,
    validation: Files = None,
    test: Files = None,
    model: str | None = None,
    columns: Columns = None,
    vocab_size: VocabSize = None,
    cased: Cased = False,
    json: Json = False,
) -> None:
    """Check data before training: columns, labels, text lengths, duplicates within and across files.

    For example:

        bertram check reviews.csv --test test.csv --model bertram-english
        bertram check train.en train.de
        bertram check news.conll --task tagging

    Parameters
    ----------
    task
        Default: classification or regression, guessed from the labels; translation for two files, and translation
        or summarization for a table that has their columns and no text and label.
    validation
        The validation data, checked together with DATA.
    test
        The test data, checked together with DATA.
    model
        Measure lengths with this model's tokenizer and against its maximum length.
    """
    from bertram.checking.check import check as look

    files = [data] if data2 is None else [data, data2]
    found, page = look(
        files,
        validation,
        test,
        task=task,
        model=model,
        columns=columns,
        vocab_size=vocab_size,
        cased=cased,
    )
    _print(found, page, as_json=json)


@app.command
def train(
    task: Annotated[AnyTaskName, Parameter(converter=_task)],
    data: Data,
    data2: Data2 = None,
    *,
    model: str,
    out: Path,
    validation: Files = None,
    test: Files = None,
    columns: Columns = None,
    recipe: Training = Recipe(),
    vocab_size: VocabSize = None,
    cased: Cased = False,
    separate_vocabularies: Flag = False,
    config: Config = None,
    max_length: MaxLength = None,
    resume: Resume = False,
    dry_run: Flag = False,
    allow_pickle: Pickle = False,
    json: Json = False,
) -> None:
    """Train a model on labelled texts, or a translation or summarization model on pairs of texts.

    For example:

        bertram train classification reviews.csv --model bertram-english --out out/reviews
        bertram train translation train.en train.de --model transformer-tiny --steps 10000 --out out/en-de

    Parameters
    ----------
    model
        The built-in bertram-english, a directory, owner/name on the Hugging Face hub, or a preset such as bert-mini or
        transformer-tiny, whose weights are random. For summarization and translation, a BERT or ALBERT directory
        becomes the encoder and gets a new decoder.
    out
        The model directory to write.
    validation
        A table, or two aligned text files, used to pick the best checkpoint. Default: a tenth of DATA is held out.
    test
        A table, or two aligned text files, scored once at the end.
    separate_vocabularies
        Learn separate source and target tokenizers instead of a joint one.
    config
        Override settings of an encoder–decoder preset or of a new decoder: num_hidden_groups=1,embedding_size=64. A
        model with an embedding_size of its own cannot be exported.
    dry_run
        Run one batch through training, validation and test, and write nothing.
    """
    from bertram.progress import training_progress
    from bertram.run_directory import check_converged
    from bertram.supervised.train import summary
    from bertram.supervised.train import train as train_model

    with training_progress(out.resolve().name) as report:
        manifest = train_model(
            task,
            [data] if data2 is None else [data, data2],
            model=model,
            out=out,
            validation=validation,
            test=test,
            columns=columns,
            recipe=recipe,
            vocab_size=vocab_size,
            cased=cased,
            separate_vocabularies=separate_vocabularies,
            config=config,
            max_length=max_length,
            resume=resume,
            dry_run=dry_run,
            allow_pickle=allow_pickle,
            report=report,
        )
    _print(manifest, summary(manifest), as_json=json)
    check_converged(out, manifest)


@app.command
def compare(
    data: Path,
    *,
    models: Annotated[list[str], Names],
    out: Path,
    task: TaskName | None = None,
    validation: Path | None = None,
    test: Path | None = None,
    columns: TableColumns = None,
    recipe: Training = Recipe(),
    seeds: int = 1,
    vocab_size: VocabSize = None,
    cased: Cased = False,
    max_length: MaxLength = None,
    max_memory: str | None = None,
    max_latency: str | None = None,
    min_score: float | None = None,
    allow_pickle: Pickle = False,
    json: Json = False,
) -> None:
    """Train several models with several seeds, measure them on this machine, and recommend which one to ship.

    All models are trained with the same settings, so compare pre-trained models with each other: presets, whose weights
    are random, need far more texts and a higher --learning-rate, such as 5e-4.

    For example:

        bertram compare reviews.csv --models bertram-english MiniLM/ --out out/compared --seeds 3 --max-latency 20ms

    Parameters
    ----------
    data
        A CSV, TSV, JSONL or Parquet table with the columns text [, text_b] and label.
    models
        Model directories, hub names, bertram-english or presets, separated by spaces or commas. A tf-idf baseline with
        a linear model is always included.
    out
        Output directory for results.json, report.html, the trained models, and the winner as best.engine (tf-idf is in
        runs/tf-idf). Finished trainings there are not repeated.
    task
        Default: guessed from the labels.
    validation
        A table used to pick the best checkpoints. Default: a tenth of DATA is held out.
    test
        A table on which to compare the models. Default: the validation data.
    seeds
        Training runs per model, with consecutive seeds from --seed on. Each run has the whole budget, also of --hours.
    max_memory
        Upper limit on the memory that answering adds to an idle process that has its libraries loaded, such as 64MB.
        The whole process is inference_peak_mb in results.json.
    max_latency
        Upper limit on the latency of a single text, 95th percentile, such as 20ms.
    min_score
        Lowest acceptable score, from 0 to 1: the accuracy, for regression Pearson's r, for similarity Spearman's rho.
        Default: no candidate that scores significantly worse than the best is chosen.
    """
    from bertram.comparison.compare import compare as run_comparison
    from bertram.comparison.table import render_table

    results = run_comparison(
        data,
        models,
        out,
        task=task,
        validation=validation,
        test=test,
        columns=columns,
        recipe=recipe,
        seeds=seeds,
        vocab_size=vocab_size,
        cased=cased,
        max_length=max_length,
        max_memory=max_memory,
        max_latency=max_latency,
        min_score=min_score,
        allow_pickle=allow_pickle,
    )
    _show(results, render_table, out / "report.html", as_json=json)
    if results["choice"]["model"] is None:
        raise NoCandidateFits(results["choice"]["reason"])


@app.command
def pretrain(
    corpus: Annotated[list[Path], Parameter(name=["CORPUS"])],
    /,
    *,
    model: str,
    out: Path,
    objectives: Annotated[Objectives, Parameter(name="*")] = Objectives(),
    recipe: Training = Recipe(),
    documents: Documents | None = None,
    validation: Files = None,
    tokenizer: Path | None = None,
    vocab_size: VocabSize = None,
    cased: Cased = False,
    config: Config = None,
    resume: Resume = False,
    allow_pickle: Pickle = False,
    json: Json = False,
) -> None:
    """Pre-train a BERT or ALBERT on raw text: masked language modelling and a sentence objective.

    For example:

        bertram pretrain novels/ --model bert-mini --out out/novels --hours 8

    Parameters
    ----------
    corpus
        Files named .txt, or .jsonl with a `text` field (.gz may follow), or directories that hold such files directly.
    model
        A preset such as albert-mini, or a model directory whose pre-training to continue.
    out
        The model directory to write. Under torchrun, all processes must be able to see it.
    documents
        How text files are split into documents: one per file, or at blank lines. Default: one per file if there are
        several, otherwise at blank lines.
    validation
        Files of text to evaluate on, which are left out of the corpus. Default: a tenth of the corpus is held out (of
        a large one, about a million tokens), in parts of some thousand characters from all over it. Evaluations use
        about 65,000 of these tokens.
    tokenizer
        Directory or file of an existing tokenizer. Default: for a preset, one is learned from the corpus.
    config
        Override settings of the preset: hidden_size=320,intermediate_size=1280,num_attention_heads=5
    """
    from bertram.pretraining.pretrain import pretrain as run_pretraining
    from bertram.pretraining.pretrain import summary
    from bertram.processes import speaks
    from bertram.progress import training_progress
    from bertram.run_directory import check_converged

    with training_progress(out.resolve().name) as report:
        manifest = run_pretraining(
            corpus,
            model=model,
            out=out,
            objectives=objectives,
            recipe=recipe,
            documents=documents,
            validation=validation or (),
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            cased=cased,
            config=config,
            resume=resume,
            allow_pickle=allow_pickle,
            report=report,
        )
    if speaks():
        _print(manifest, summary(manifest), as_json=json)
        check_converged(out, manifest)


@app.command
def shrink(
    model: str,
    *,
    texts: Files = None,
    out: Path | None = None,
    dial: Annotated[Dial, Parameter(name="*")] = Dial(),
    recipe: Training = Recipe(),
    lessons: Annotated[list[Lesson] | None, Names] = None,
    max_length: int | None = None,
    evaluate: Path | None = None,
    columns: ColumnNames = None,
    plan: Flag = False,
    resume: Flag = False,
    allow_pickle: Pickle = False,
    json: Json = False,
) -> None:
    """Distil a BERT into a smaller ALBERT on your texts: layers share weights, embeddings are factorised.

    For example:

        bertram shrink MiniLM/ --texts mails.txt --out out/small --hours 1
        bertram shrink MiniLM/ --plan

    Parameters
    ----------
    model
        The BERT to shrink, with its heads: a directory, or owner/name on the Hugging Face hub.
    texts
        Unlabelled training texts: text files with one text a line, or tables with text [, text_b]. A tenth, at most
        1,000, is held out.
    out
        The model directory to write. The student's engine, results.json and report.html are written there too; the
        report's chart also shows students in the directories beside OUT, if they have the same teacher and were scored
        on the same table or, without --evaluate, learned from the same texts with the same seed and maximum length.
    lessons
        What to distil: hidden states at the end of each group, text vectors, similarities between the texts of one pass
        (see --max-tokens), logits of the heads; separated by spaces or commas. Default: all that the model has.
    max_length
        Truncate texts to this many tokens. Default: the maximum length of the model, at most 128.
    evaluate
        A labelled table on which teacher and student are scored at the end, by the model's own task; for a sentence
        encoder, pairs of texts (text, text_b) with a number.
    columns
        Which columns of that table to read: text=1,text_b=2,label=3. If every column is given by number, the file has
        no header row.
    plan
        Print the sizes that different settings would give, without training. Settings given here are held fixed.
    resume
        Resume the training in OUT. A finished training is left unchanged, and scored again if --evaluate is another.
    """
    if plan:
        if texts or out or evaluate or columns or resume or lessons or max_length is not None or recipe != Recipe():
            raise BadInput("--plan trains and writes nothing; leave out the options of a training")
        from bertram.shrinking.plan import plan as planned
        from bertram.shrinking.plan import render_plan

        rows = planned(model, dial, allow_pickle=allow_pickle)
        _show([asdict(row) for row in rows], render_plan, as_json=json)
        return
    if out is None:
        raise BadInput("shrink needs --out, or --plan to see the possible sizes first")
    from bertram.progress import training_progress
    from bertram.shrinking.shrink import shrink as run
    from bertram.shrinking.table import render_table

    with training_progress(out.resolve().name) as report:
        results = run(
            model,
            texts or [],
            out,
            dial=dial,
            recipe=recipe,
            lessons=lessons,
            max_length=max_length,
            evaluate=evaluate,
            columns=columns,
            resume=resume,
            allow_pickle=allow_pickle,
            report=report,
        )
    _show(results, render_table, out / "report.html", as_json=json)


@app.command
def evaluate(
    model: str,
    data: Data,
    data2: Data2 = None,
    *,
    columns: Columns = None,
    search: Searching = None,
    allow_pickle: Pickle = False,
    json: Json = False,
) -> None:
    """Score a trained model on a labelled table, or on aligned source and target texts.

    For example:

        bertram evaluate out/reviews test.csv
        bertram evaluate out/en-de test.en test.de --beam-size 4

    Parameters
    ----------
    model
        A trained model or an engine. Search options are for translation and summarization only.
    """
    from bertram.artifacts import load
    from bertram.evaluation import evaluate_files

    files = [data] if data2 is None else [data, data2]
    scores = evaluate_files(load(model, allow_pickle=allow_pickle), files, columns, search)
    said = "\n".join(f"{s.metric} {s.value:.4f}   {s.signature}" for s in scores)
    _print([asdict(score) for score in scores], said, as_json=json)


@app.command(alias="classify")
def predict(
    model: Source | None = None,
    source: Source | None = None,
    *,
    text: SingleText = None,
    columns: TableColumns = None,
    allow_pickle: Pickle = False,
) -> None:
    """Predict for every line of a file or of standard input. Prints one JSON object a line, in order.

    For example:

        echo 'what a film' | bertram predict out/reviews
        bertram classify 'what a film'

    Parameters
    ----------
    model
        A trained model of any kind, an engine, or the runs/tf-idf of a comparison. Default: the built-in
        bertram-sentiment, which labels English texts negative, neutral or positive.
    source
        A text file with one input a line, or a table with text [, text_b]. Default, or -: standard input.
    """
    from bertram.artifacts import load
    from bertram.asking import asked
    from bertram.inference.mask_filler import MaskFiller
    from bertram.model_names import SENTIMENT

    name, chunks = asked("predict", model, source, text, columns, SENTIMENT)
    predictor = load(name, allow_pickle=allow_pickle)
    answers = predictor.answers(chunks) if isinstance(predictor, MaskFiller) else map(predictor.predict, chunks)
    for found in answers:
        _lines(map(_dumps, found))


@app.command
def embed(
    model: Source | None = None,
    source: Source | None = None,
    *,
    text: SingleText = None,
    columns: TableColumns = None,
    out: Path | None = None,
    allow_pickle: Pickle = False,
) -> None:
    """Embed every line of a file or of standard input as a vector. Prints one JSON object a line, in order.

    For example:

        bertram embed sentences.txt --out vectors.npy
        bertram embed MiniLM/ --text 'A dog runs.'

    Parameters
    ----------
    model
        A sentence-transformers directory, a model trained for similarity, or an engine of either. Default: the
        built-in bertram-english.
    source
        A text file with one text a line, or a table with a column text. Default, or -: standard input.
    out
        Write the vectors to this .npy file, float32 [texts, width], instead of printing them.
    """
    from bertram.artifacts import load_as
    from bertram.asking import asked
    from bertram.inference.embedding import embed as vectors_of
    from bertram.inference.embedding import write_vectors
    from bertram.inference.predictor import Predictor
    from bertram.model_names import ENGLISH

    name, inputs = asked("embed", model, source, text, columns, ENGLISH)
    chunks = vectors_of(load_as(Predictor, name, allow_pickle=allow_pickle), inputs)
    if out is not None:
        write_vectors(out, chunks)
        return
    for vectors in chunks:
        _lines(_dumps({"embedding": vector}) for vector in vectors.tolist())


@app.command
def tag(
    model: str,
    source: Source | None = None,
    *,
    text: SingleText = None,
    columns: TableColumns = None,
    allow_pickle: Pickle = False,
) -> None:
    """Find the entities in every line of a file or of standard input.

    Prints one JSON object a line, in order: entities, each with its place in the text, counted in code points, its
    label, its text and its score.

    For example:

        bertram tag out/names 'Angela Merkel was born in Hamburg.'
        bertram tag out/names news.txt > entities.jsonl

    Parameters
    ----------
    model
        A model trained for tagging, any BERT's or ALBERT's token classifier, or an engine of one.
    source
        A text file with one text a line, or a table with a column text. Default, or -: standard input. A text longer
        than the model reads is read in parts.
    """
    from bertram.artifacts import load_as
    from bertram.asking import chunks_of
    from bertram.inference.tagger import Tagger

    chunks = chunks_of("tag", source, text, columns)
    for answers in map(load_as(Tagger, model, allow_pickle=allow_pickle).predict, chunks):
        _lines(map(_dumps, answers))


@app.command
def fill_mask(
    model: str,
    source: Source | None = None,
    *,
    text: SingleText = None,
    columns: TableColumns = None,
    top_k: int = 5,
    allow_pickle: Pickle = False,
) -> None:
    """Predict the [MASK] in every line of a file or of standard input.

    Prints one JSON object a line, in order: candidates, each with its token, its score and the text with it.

    For example:

        bertram fill-mask out/novels 'It was a [MASK] night.'

    Parameters
    ----------
    model
        A pre-trained model, any BERT's or ALBERT's masked language model, or an engine of one.
    source
        A text file with one text a line, or a table with a column text. Default, or -: standard input. Every text must
        hold the model's mask token once.
    top_k
        Candidates for each text, the most probable first.
    """
    from bertram.artifacts import load_as
    from bertram.asking import chunks_of
    from bertram.inference.mask_filler import MaskFiller

    chunks = chunks_of("fill-mask", source, text, columns)
    filler = load_as(MaskFiller, model, allow_pickle=allow_pickle)
    for answers in filler.answers(chunks, top_k):
        _lines(map(_dumps, answers))


@app.command
def translate(
    model: str,
    source: Source | None = None,
    *,
    text: SingleText = None,
    columns: Columns = None,
    search: Searching = None,
    allow_pickle: Pickle = False,
    json: Json = False,
) -> None:
    """Translate every line of a file or of standard input, line for line; empty lines stay empty.

    For example:

        bertram translate out/en-de news.en > news.de
        bertram translate out/en-de --text 'A dog runs.'

    Parameters
    ----------
    model
        A trained translation model, a MarianMT model's directory or name on the hub, or one exported for CTranslate2.
    source
        A text file, or a table with a column source. Default, or -: standard input. A line that is too long for the
        model is translated sentence by sentence.
    """
    from bertram.asking import chunks_of

    chunks = chunks_of("translate", source, text, columns)
    _write("translation", model, chunks, search, allow_pickle=allow_pickle, as_json=json)


@app.command
def summarize(
    model: str,
    source: Source | None = None,
    *,
    text: SingleText = None,
    columns: Columns = None,
    search: Searching = None,
    allow_pickle: Pickle = False,
    json: Json = False,
) -> None:
    """Summarize every document of a file or of standard input, one summary a line, in order.

    For example:

        bertram summarize out/mails new.txt --beam-size 4 --no-repeat-ngram-size 3

    Parameters
    ----------
    model
        A trained summarization model, or one exported for CTranslate2.
    source
        A text file with one document a line, or a table with a column document. Default, or -: standard input.
        Documents longer than the model's maximum length are truncated.
    """
    from bertram.asking import chunks_of

    chunks = chunks_of("summarize", source, text, columns)
    _write("summarization", model, chunks, search, allow_pickle=allow_pickle, as_json=json)


@app.command
def export(
    model: str,
    *,
    format: ExportFormat,
    out: Path,
    precision: Precision | None = None,
    texts: Path | None = None,
    columns: TableColumns = None,
    min_agreement: float | None = None,
    vocabulary_map: Path | None = None,
    allow_pickle: Pickle = False,
    json: Json = False,
) -> None:
    """Export a trained model as an engine, or for ONNX runtimes, CTranslate2 or transformers.

    For example:

        bertram export out/reviews --format engine --out reviews.engine --texts reviews.txt
        bertram export out/en-de --format ctranslate2 --out out/en-de.ct2

    Parameters
    ----------
    model
        A trained model's directory, or its name on the hub.
    format
        engine: a single file with an encoder and its heads, which answers without torch. onnx: an encoder for other
        runtimes. ctranslate2: an encoder–decoder model, run by CTranslate2 without torch. huggingface: either, for
        transformers.
    out
        The file or directory to write.
    precision
        Precision of the weights: fp32, or int8 with one scale per row. engine and ctranslate2 default to int8.
    texts
        A text file with one input a line, or a table with text [, text_b]. The int8 engine's agreement with the model
        is measured on the first 512 of them. Default: random tokens.
    min_agreement
        Share of answers in which an int8 engine must agree with the model, 0.98 if not given. Up to half of the weights
        are kept in float32 as needed; an engine that still falls short is not written. 0 always writes.
    vocabulary_map
        CTranslate2's vmap.txt, which restricts the target tokens that source tokens can be translated to.
    """
    from bertram.exporting import export as write

    found = write(
        model,
        format=format,
        out=out,
        precision=precision,
        texts=texts,
        columns=columns,
        min_agreement=min_agreement,
        vocabulary_map=vocabulary_map,
        allow_pickle=allow_pickle,
    )
    size = sum(file.stat().st_size for file in ([out] if out.is_file() else out.rglob("*")) if file.is_file())
    said = ["" if found is None else f"{found.render()}\n", f"{out}: {size / 1e6:,.1f} MB"]
    agreement = {} if found is None else asdict(found)
    _print(agreement | {"out": str(out), "bytes": size}, "".join(said), as_json=json)


@app.command
def inspect(
    models: Annotated[list[str], Parameter(name=["MODEL"])], /, *, tokens: int = 128, json: Json = False
) -> None:
    """Show parameters, FLOPs and memory of models side by side: presets, directories or engine files.

    For example:

        bertram inspect bert-base albert-base
        bertram inspect out/en-de

    Parameters
    ----------
    models
        Presets, model directories or engine files.
    tokens
        Length of the text for which FLOPs are counted.
    """
    from bertram.inspection import describe, render
    from bertram.model_names import config_of

    found = {model: describe(config_of(model), tokens) for model in models}
    _show(found, render, as_json=json)


@app.command
def bench(
    model: str,
    *,
    texts: Path | None = None,
    columns: TableColumns = None,
    lengths: LengthDistribution | None = None,
    against: Annotated[list[str] | None, Names] = None,
    rounds: int = 3,
    allow_pickle: Pickle = False,
    json: Json = False,
) -> None:
    """Benchmark an encoder as an engine: throughput, latency and memory, beside other runtimes in the same run.

    For example:

        bertram bench albert-base --against transformers onnxruntime openvino

    Parameters
    ----------
    model
        A model directory, an engine file, or a preset with random weights.
    texts
        A text file with one input a line, or a table with text [, text_b], to measure on. Default: random tokens.
    lengths
        How the lengths of the random texts are distributed: mixed (33 tokens on average, the default), or a log-normal
        distribution fitted to SST-2's dev sentences (sst2) or IMDB's reviews (imdb).
    against
        Installed libraries to compare with, separated by spaces or commas, in each precision they offer: transformers,
        onnxruntime, openvino, ctranslate2. All use the same number of threads.
    rounds
        Rounds to measure; medians are reported. Loading and memory are measured once, before them.
    """
    from bertram.benchmark.bench import bench as measure
    from bertram.benchmark.table import render_table

    found = measure(
        model,
        texts=texts,
        columns=columns,
        lengths=lengths,
        against=against or (),
        rounds=rounds,
        allow_pickle=allow_pickle,
    )
    _show(found, render_table, as_json=json)


@app.command(name="version")
def show_version(*, json: Json = False) -> None:
    """The version; with --json a report of the machine and the libraries, to paste into an issue."""
    from bertram.inference.kernels import machine

    _print(machine(), f"bertram {__version__}", as_json=json)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0; 1 I/O or internal error; 2 bad input; 3 nothing fits; 129, 130 or 143 stopped."""
    given = sys.argv[1:] if arguments is None else arguments
    _prepare_streams()
    try:
        for argument in given:
            check_utf8(argument)
        with stoppable():
            app(given, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(" ".join(str(error).split()), BadInput.exit_code)
    except BertramError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except MemoryError:
        _fail("out of memory", 1)
    except OSError as error:
        _fail(line_of(error), 1)
    except Interrupted as stop:
        _fail(str(stop), stop.exit_code)
    except KeyboardInterrupt:
        _fail("stopped at once", 130)


def _prepare_streams() -> None:
    """What a caller closed is empty, and what we write is UTF-8 as what we read, whatever the locale says."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        sys.stdout.reconfigure(encoding="utf-8")


def _fail(line: str, code: int) -> None:
    with suppress(OSError):  # the terminal was closed
        sys.stderr.write(f"bertram: {line}\n")
    sys.exit(code)


def _write(
    task: WritingTask,
    model: str,
    chunks: "Iterable[Sequence[Input]]",
    search: SearchOptions | None,
    *,
    allow_pickle: bool,
    as_json: bool,
) -> None:
    """What a model writes for each input, a line each whatever the text holds."""
    from bertram.artifacts import load_as
    from bertram.inference.generator import Generator

    options = search or {}
    if (wanted := options.get("n_best", 1)) > 1 and not as_json:
        raise BadInput(f"--n-best {wanted}: needs --json, which puts all outputs on one line")
    generator = load_as(Generator, model, task, allow_pickle=allow_pickle)
    how = replace(generator.search, **options)
    for chunk in chunks:
        answers = generator.predict(chunk, how)
        _lines(_dumps(answer) if as_json else " ".join(answer["text"].splitlines()) for answer in answers)


def _lines(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _print(value: Any, text: str, *, as_json: bool) -> None:
    sys.stdout.write(f"{_dumps(value, indent=2) if as_json else text}\n")


def _show(results: Any, render: Callable[[Any], "RenderableType"], page: Path | None = None, *, as_json: bool) -> None:
    if as_json:
        _print(results, "", as_json=True)
        return
    from rich.console import Console

    Console().print(render(results))
    if page is not None:
        sys.stdout.write(f"report: {page.resolve()}\n")


def _dumps(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


if __name__ == "__main__":
    main()
