"""The commands with which a trained model answers, and the one that scores its answers."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bertram.cli.arguments import (
    Columns,
    Data,
    Data2,
    Json,
    Pickle,
    Searching,
    SingleText,
    Source,
    TableColumns,
    WritingTask,
)
from bertram.cli.output import dumps, print_lines, print_result
from bertram.errors import BadInput
from bertram.search import SearchOptions

if TYPE_CHECKING:
    from bertram.text.inputs import Input


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
    print_result([asdict(score) for score in scores], said, as_json=json)


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
        print_lines(map(dumps, found))


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
        print_lines(dumps({"embedding": vector}) for vector in vectors.tolist())


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
        print_lines(map(dumps, answers))


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
        print_lines(map(dumps, answers))


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
        print_lines(dumps(answer) if as_json else " ".join(answer["text"].splitlines()) for answer in answers)
