"""The commands that train, and the one that looks at the data before."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bertram.cli.arguments import (
    AnyTaskName,
    Cased,
    ColumnNames,
    Columns,
    Config,
    Data,
    Data2,
    Files,
    Flag,
    Json,
    MaxLength,
    Names,
    Pickle,
    Resume,
    TableColumns,
    Task,
    TaskName,
    Training,
    VocabSize,
)
from bertram.cli.output import print_result, print_table
from bertram.config import Documents, Lesson, Objectives
from bertram.errors import BadInput, NoCandidateFits
from bertram.shrinking.dial import Dial
from bertram.training.recipe import Recipe


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
    print_result(found, page, as_json=json)


def train(
    task: Task,
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
    print_result(manifest, summary(manifest), as_json=json)
    check_converged(out, manifest)


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
    print_table(results, render_table, out / "report.html", as_json=json)
    if results["choice"]["model"] is None:
        raise NoCandidateFits(results["choice"]["reason"])


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
        print_result(manifest, summary(manifest), as_json=json)
        check_converged(out, manifest)


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
        print_table([asdict(row) for row in rows], render_plan, as_json=json)
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
    print_table(results, render_table, out / "report.html", as_json=json)
