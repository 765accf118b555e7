"""From raw text and a preset to a pre-trained model directory: what `bertram pretrain` does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bertram import artifacts
from bertram.config import EncoderConfig, Objectives, SentenceObjective
from bertram.errors import BadInput, require
from bertram.model_card import pretraining_card
from bertram.progress import Report, silent
from bertram.run_directory import SETTINGS, keep, prepare_directory, read_manifest
from bertram.text import store
from bertram.text.blocks import Blocks
from bertram.text.corpus import Documents, Part, corpus_files, read_parts
from bertram.text.store import TokenStore
from bertram.text.tokenizer import Tokenizer
from bertram.training.recipe import Recipe

if TYPE_CHECKING:
    from bertram.training.distributed import Processes

STORE = "store"

_SOURCES = {"train": "corpus", "validation": "validation"}

_LEARNING_RATE = 1e-3
_LIBRARIES = ("torch", "safetensors", "tensorboard")


@dataclass(frozen=True)
class Corpus:
    """Files of raw text."""

    files: list[Path]
    documents: Documents | None

    def parts(self) -> Iterator[Part]:
        return read_parts(self.files, self.documents)

    def sentences(self, report: Report) -> Iterator[str]:
        characters = 0
        for number, part in enumerate(self.parts()):
            yield from part.sentences
            characters += sum(len(sentence) for sentence in part.sentences)
            if number % 64 == 0:
                report({"preparing": "tokenizer", "characters": characters})

    def description(self) -> list[tuple[str, int]]:
        """Each file's name and size, by which a resumed run knows its corpus again without reading it."""
        return [(file.name, file.stat().st_size) for file in self.files]


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
    config: Mapping[str, Any] | None = None,
    resume: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Pre-train `model` on raw text and leave a model directory at `out`.

    Args:
        corpus: text files or JSONL, or directories of them.
        model: a preset, which starts from random weights, or a model directory, which is trained on.
        documents: what parts the documents of text files; None guesses.
        validation: files to evaluate on; without any a tenth of the corpus is held out.
        tokenizer: a directory or file to take it from; without one a preset's is learned from the corpus.
        config: fields of the preset's configuration to change.

    Started by torchrun, all processes train one model.

    Returns what OUT/bertram.json says.

    Raises:
        BadInput: the corpus, the model or a setting cannot be used, or `out` is not empty and `resume` is not given.
        Interrupted: a signal came; `resume` goes on from there.
        Lost: another process ended. Of several that fail together only the first raises, the others exit.
    """
    for library in _LIBRARIES:
        require(library, "train")
    if not recipe.bounded:
        raise BadInput("for how long? Give --steps, --tokens, --hours or --epochs")
    from bertram.training.distributed import together

    out, recipe, asked = Path(out), recipe.resolved(learning_rate=_LEARNING_RATE), objectives or Objectives()
    with together() as processes:
        sizes = _sizes(model, config or {})
        objectives = replace(asked, sentence_objective=asked.sentence_objective or sizes.sentence_objective)
        if objectives.max_length > sizes.max_position_embeddings:
            raise BadInput(
                f"--max-length {objectives.max_length}: the model has {sizes.max_position_embeddings} positions"
            )
        text = Corpus(corpus_files(corpus), documents)
        held_out = Corpus(corpus_files(validation), documents) if validation else None
        if processes.rank == 0 and prepare_directory(out, resume=resume) is None:
            settings = {
                **{"corpus": text.description(), "validation": held_out.description() if held_out else None},
                **{"documents": documents, "model": str(model), "config": asdict(sizes), "tokenizer": str(tokenizer)},
                **{"vocab_size": vocab_size, "objectives": asdict(objectives), "recipe": asdict(recipe)},
            }
            keep(out / SETTINGS, settings)
            found = _tokenizer(out, model, sizes, tokenizer, text, vocab_size, report)
            _build_stores(out, found, text, held_out, recipe.seed, report)
        processes.wait()
        finished = read_manifest(out)
        if "status" in finished:
            return finished
        return _train(out, model, sizes, objectives, recipe, processes, report if processes.rank == 0 else silent)


def _sizes(model: str | Path, changes: Mapping[str, Any]) -> EncoderConfig:
    """The configuration to train: a preset's with some fields changed, or that of a model directory.

    Raises:
        BadInput: a field is unknown, its value makes no sense, or the model is a directory and has its own.
    """
    sizes = artifacts.config_of(str(model))
    if changes and not isinstance(artifacts.resolve(model), EncoderConfig):
        raise BadInput(f"{model}: is a trained model, whose configuration cannot be changed")
    known = [field.name for field in fields(EncoderConfig) if field.name not in ("vocab_size", "sentence_objective")]
    for name in changes:
        if name not in known:
            raise BadInput(f"--config: no field {name!r:.40}; there are {', '.join(known)}")
    return replace(sizes, **changes)


def _tokenizer(
    out: Path,
    model: str | Path,
    sizes: EncoderConfig,
    given: str | Path | None,
    corpus: Corpus,
    vocab_size: int | None,
    report: Report,
) -> Tokenizer:
    """The one that is there already, is given or is the model's own, or one learned from the corpus."""
    source = artifacts.resolve(model)
    if (out / "tokenizer.json").exists():
        return Tokenizer.load(out)
    if given is not None:
        tokenizer = Tokenizer.load(given)
    elif isinstance(source, Path):
        tokenizer = artifacts.read_tokenizer(source, sizes)
    else:
        limit = sizes.vocab_size if vocab_size is None else min(vocab_size, sizes.vocab_size)
        tokenizer = Tokenizer.train(corpus.sentences(report), source.model_type, limit)
    tokenizer.save(out)
    return tokenizer


def _build_stores(
    out: Path, tokenizer: Tokenizer, corpus: Corpus, held_out: Corpus | None, seed: int, report: Report
) -> None:
    train, validation = out / STORE / "train", out / STORE / "validation"

    def tell(characters: int) -> None:
        report({"preparing": "token store", "characters": characters})

    if held_out is not None and not (validation / store.MANIFEST).exists():
        store.build(held_out.parts(), tokenizer, validation, None, report=tell)
    if not (train / store.MANIFEST).exists():
        store.build(corpus.parts(), tokenizer, train, None if held_out else validation, seed=seed, report=tell)


def _train(
    out: Path,
    model: str | Path,
    sizes: EncoderConfig,
    objectives: Objectives,
    recipe: Recipe,
    processes: "Processes",
    report: Report,
) -> dict[str, Any]:
    import torch

    from bertram.models.heads import Model
    from bertram.training.held_out import scores_on
    from bertram.training.loop import Evaluation, Loop

    tokenizer = Tokenizer.load(out)
    stores = {name: TokenStore.open(out / STORE / name) for name in ("train", "validation")}
    heads = {"masked_language_model": 0} | ({} if objectives.sentence_objective == "none" else {"sentence_pair": 2})
    torch.manual_seed(recipe.seed)
    source = artifacts.resolve(model)
    if isinstance(source, Path):
        network = artifacts.read_model(source, heads)
    else:
        network = Model(replace(sizes, vocab_size=tokenizer.vocab_size), heads)
    own = cast(SentenceObjective, objectives.sentence_objective)
    network.config = replace(network.config, sentence_objective=own)

    def feed(name: str, objective: SentenceObjective, batch_tokens: int) -> Blocks:
        length = objectives.max_length
        return Blocks(
            stores[name],
            tokenizer,
            objective,
            objectives.masking,
            max_length=length,
            batch_tokens=batch_tokens,
            seed=recipe.seed,
        )

    held_out = feed("validation", own, recipe.max_tokens)

    def evaluate() -> Evaluation:
        figures = scores_on(network, held_out, processes)
        losses = sum(value for name, value in figures.items() if name.endswith("_loss"))
        return Evaluation(-losses, {f"validation_{name}": value for name, value in figures.items()})

    batches = feed("train", own, recipe.batch_size * objectives.max_length)
    loop = Loop(network, batches, recipe, out, evaluate=evaluate, report=report, processes=processes)
    outcome = loop.run()
    network.eval()
    scores = scores_on(network, held_out, processes)
    if "sentence_pair" in network.heads:
        for other in ("nsp", "sop"):
            if other == "sop" or stores["validation"].documents[0] != stores["validation"].documents[-1]:
                found = scores_on(network, feed("validation", other, recipe.max_tokens), processes)
                scores[f"{other}_accuracy"] = found["sentence_pair_accuracy"]
    manifest = {
        "format": 1,
        "status": outcome.status,
        "reason": outcome.reason,
        "pretraining": asdict(objectives),
        "base_model": Path(model).name,
        "data": _data(out, stores),
        "recipe": asdict(recipe),
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "seconds": round(outcome.seconds, 1),
        "tokens_per_second": round(outcome.tokens / max(outcome.seconds, 1e-9), 1),
        "best_step": outcome.best_step,
        "processes": processes.size,
        "scores": scores,
    }
    if processes.rank == 0:
        artifacts.save(network, tokenizer, out, manifest, pretraining_card)
    return manifest


def _data(out: Path, stores: Mapping[str, TokenStore]) -> dict[str, dict[str, Any]]:
    """Where each store's text comes from, and how much it is."""
    settings = read_manifest(out, SETTINGS)
    names = {name: ", ".join(file for file, _ in settings[key] or []) for name, key in _SOURCES.items()}
    held_out = f"a tenth of the corpus, drawn with seed {settings['recipe']['seed']}"
    return {
        name: {"source": names[name] or held_out, "tokens": len(kept.tokens), "documents": kept.document_count}
        for name, kept in stores.items()
    }


def summary(manifest: dict[str, Any]) -> str:
    """What a person wants to know after a pre-training, in a few lines."""
    amount = f"{manifest['steps']:,} steps, {manifest['tokens']:,} tokens"
    lines = [f"{manifest['status']} after {amount} in {manifest['seconds']:,.0f} s", manifest["reason"]]
    lines += [f"held-out {name.replace('_', ' ')} {value:.4f}" for name, value in manifest["scores"].items()]
    return "\n".join(line for line in lines if line)
