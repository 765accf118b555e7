"""The commands that export a model and show what it costs, and the one that says on which machine."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bertram import __version__
from bertram.cli.arguments import Json, Names, Pickle, TableColumns
from bertram.cli.output import print_result, print_table
from bertram.config import ExportFormat, LengthDistribution, Precision


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
    print_result(agreement | {"out": str(out), "bytes": size}, "".join(said), as_json=json)


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
    print_table(found, render, as_json=json)


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
    print_table(found, render_table, as_json=json)


def version(*, json: Json = False) -> None:
    """The version; with --json a report of the machine and the libraries, to paste into an issue."""
    from bertram.inference.kernels import machine

    print_result(machine(), f"bertram {__version__}", as_json=json)
