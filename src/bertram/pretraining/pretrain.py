"""From raw text and a preset to a pre-trained model directory: what `bertram pretrain` does."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from bertram.config import Documents, EncoderConfig, Objectives, changed, check_published
from bertram.corpus.parts import corpus_files, guess_documents
from bertram.corpus.source import Corpus
from bertram.errors import BadInput, require_all
from bertram.model_directory import ModelDirectory
from bertram.model_names import Preset, require_encoder, resolve
from bertram.pretraining.settings import Pretraining
from bertram.pretraining.stores import prepare
from bertram.processes import share_cores
from bertram.progress import Report, silent
from bertram.run_directory import alone_in, prepare_directory, read_manifest
from bertram.training.recipe import BATCH_SIZE, Recipe

_LEARNING_RATE = 1e-3
_FURTHER_LEARNING_RATE = 1e-4  # Devlin et al. 2018, A.2
_LIBRARIES = ("torch", "safetensors", "tensorboard")

_MASKED = {"token": "tokens", "word": "words", "ngram": "n-grams"}
_SPOKEN = {"nsp_accuracy": "next-sentence accuracy", "sop_accuracy": "sentence-order accuracy"}


def pretrain(
    corpus: Sequence[str | Path],
    *,
    model: str | Path,
    out: str | Path,
    objectives: Objectives | None = None,
    recipe: Recipe,
    documents: Documents | None = None,
    validation: Sequence[str | Path] = (),
    tokenizer: str | Path | None = None,
    vocab_size: int | None = None,
    cased: bool = False,
    config: Mapping[str, Any] | None = None,
    resume: bool = False,
    allow_pickle: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Pre-train `model` on raw text and leave a model directory at `out`.

    Args:
        corpus: text files or JSONL, or directories of them.
        model: a preset, which starts from random weights, or a model directory, which is trained on.
        documents: what parts the documents of text files; None guesses.
        validation: files to evaluate on, which are left out of the corpus; without any a tenth of the corpus is held
            out, about a million tokens at most.
        tokenizer: a directory or file to take it from; without one a preset's is learned from the corpus.
        vocab_size: most entries of a tokenizer to learn; None: the preset's own number.
        cased: a tokenizer to learn keeps upper case and accents.
        config: fields of the preset's configuration to change.
        allow_pickle: read a pytorch_model.bin, tensors only.

    Started by torchrun, all processes train one model.

    Returns what OUT/bertram.json says.

    Raises:
        BadInput: the corpus, the model or a setting cannot be used, or `out` is not empty and `resume` is not given.
        Interrupted: a signal came; `resume` goes on from there.
        Lost: another process ended. Of several that fail together only the first raises, the others exit.
    """
    share_cores()
    require_all(_LIBRARIES, "train")
    from bertram.pretraining.training import train
    from bertram.training.distributed import together

    out = Path(out)
    with together() as processes, ExitStack() as stack:
        text, held_out = _texts(corpus, validation, documents)
        _check_recipe(recipe)
        source = _source(model, allow_pickle=allow_pickle)
        sizes = _config(source, config or {})
        objectives = objectives or Objectives()
        objective = objectives.sentence_objective or sizes.sentence_objective
        rate = _FURTHER_LEARNING_RATE if isinstance(source, ModelDirectory) else _LEARNING_RATE
        pretraining = Pretraining(
            corpus=text,
            held_out=held_out,
            source=source,
            config=sizes,
            objectives=replace(objectives, sentence_objective=objective),
            recipe=recipe.resolved(learning_rate=rate, batch_size=BATCH_SIZE),
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            cased=cased,
        )
        if processes.rank == 0:
            stack.enter_context(alone_in(out))
            if prepare_directory(out, source.path, pretraining.settings, resume=resume) is None:
                prepare(pretraining, out, report)
        processes.wait(patiently=True)
        finished = read_manifest(out)
        return finished if "status" in finished else train(pretraining, out, processes, report)


def _texts(
    corpus: Sequence[str | Path], validation: Sequence[str | Path], documents: Documents | None
) -> tuple[Corpus, Corpus | None]:
    """What is learned from, and what is evaluated on if that is given; a file is in one of them.

    Raises:
        BadInput: as `corpus_files`, or all files are to evaluate on, or documents are parted by nothing known.
    """
    if documents is not None and documents not in get_args(Documents):
        raise BadInput(f"--documents {documents!r:.40}: must be one of {', '.join(get_args(Documents))}")
    judged = corpus_files(validation)
    left_out = {file.resolve() for file in judged}
    files = [file for file in corpus_files(corpus) if file.resolve() not in left_out]
    if not files:
        raise BadInput("there is no file to train on" + (", as --validation is left out" if judged else ""))
    kind = documents or guess_documents(files)
    return Corpus(files, kind), Corpus(judged, kind) if judged else None


def _check_recipe(recipe: Recipe) -> None:
    """Check that pre-training takes the recipe.

    Raises:
        BadInput: it has no budget, or a setting that is not for pre-training.
    """
    recipe.require_budget()
    if recipe.label_smoothing:
        raise BadInput("--label-smoothing: masked tokens are not smoothed, as in both papers")


def _source(model: str | Path, *, allow_pickle: bool) -> ModelDirectory | Preset:
    """What `model` names; of a directory the weights are there.

    Raises:
        BadInput: nothing goes by that name, or something that is no encoder or has no weights.
    """
    found = require_encoder(resolve(model, allow_pickle=allow_pickle))
    if isinstance(found, ModelDirectory):
        found.find_weights()  # before hours over the corpus
    return found


def _config(source: ModelDirectory | Preset, changes: Mapping[str, Any]) -> EncoderConfig:
    """The configuration to train: a preset's with some fields changed, or that of a model directory.

    Raises:
        BadInput: a field is unknown, its value makes no sense, or the model is a directory and has its own.
    """
    if changes and isinstance(source, ModelDirectory):
        raise BadInput(f"{source}: is a trained model, whose configuration cannot be changed")
    found = changed(source.config, changes)
    check_published(found)  # what is trained must be what transformers computes with the same weights
    return found


def summary(manifest: dict[str, Any]) -> str:
    """What a person wants to know after a pre-training, in a few lines."""
    amount = f"{manifest['steps']:,} steps, {manifest['tokens']:,} tokens"
    train, held_out = (manifest["data"][name] for name in ("train", "validation"))
    kinds = {"file": " (one per text file)", "blank-line": " (separated by blank lines)", None: ""}
    kind = kinds[manifest["data"]["documents"]]
    lines = [f"{train['source']}: {train['tokens']:,} tokens in {train['documents']:,} documents{kind}"]
    lines.append(f"validation: {held_out['source']}, {held_out['tokens']:,} tokens")
    lines.append(f"{manifest['status']} after {amount} in {manifest['seconds']:,.0f} s")
    trained = manifest["pretraining"]
    pairs = {"nsp": " and next-sentence prediction", "sop": " and sentence-order prediction", "none": ""}
    lines.append(f"objective: masked {_MASKED[trained['masking']]}{pairs[trained['sentence_objective']]}")
    lines += [
        f"held-out {_SPOKEN.get(name, name.replace('_', ' '))} {value:.4f}"
        for name, value in manifest["scores"].items()
    ]
    return "\n".join(lines)
