"""From raw text and a preset to a pre-trained model directory: what `bertram pretrain` does."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bertram import model_names
from bertram.batch import NO_PAIRS
from bertram.config import EncoderConfig, Objectives, SentenceObjective, changed, check_published
from bertram.corpus import store
from bertram.corpus.blocks import Blocks
from bertram.corpus.parts import Documents, Part, corpus_files, guess_documents, read_parts
from bertram.corpus.store import TokenStore
from bertram.errors import BadInput, require_all
from bertram.model_card import pretraining_card
from bertram.model_directory import ModelDirectory, check_max_length
from bertram.processes import share_cores
from bertram.progress import Report, silent
from bertram.run_directory import alone_in, begun, prepare_directory, read_manifest, read_settings
from bertram.saving import learned_tokenizer, save
from bertram.text.records import kind_of
from bertram.text.tokenizer import Tokenizer
from bertram.training.recipe import BATCH_SIZE, Recipe

if TYPE_CHECKING:
    from bertram.models.heads import Model
    from bertram.training.distributed import Processes

STORE = "store"

_BYTES_A_TOKEN = 2.5  # of Chinese 3, of English more; with too few held out, they still come from all of it
_PACKED = 3  # a .gz file unpacks to about so many times its size

_SOURCES = {"train": "corpus", "validation": "validation"}

_LEARNING_RATE = 1e-3
_FURTHER_LEARNING_RATE = 1e-4  # Devlin et al. 2018, A.2
_LIBRARIES = ("torch", "safetensors", "tensorboard")


@dataclass(frozen=True)
class Corpus:
    """Files of raw text."""

    files: list[Path]
    documents: Documents

    def parts(self) -> Iterator[Part]:
        return read_parts(self.files, self.documents)

    def sentences(self, report: Report) -> Iterator[str]:
        characters = 0
        for number, part in enumerate(self.parts()):
            yield from part.sentences
            characters += part.characters
            if number % 64 == 0:
                report({"preparing": "tokenizer", "characters": characters})

    @property
    def held_out_of(self) -> int:
        """Of how many parts one is held out, so that they come from all of the corpus: ten, of a large one more."""
        sizes = (file.stat().st_size * (_PACKED if file.suffix == ".gz" else 1) for file in self.files)
        return max(store.HELD_OUT_OF, math.ceil(sum(sizes) / _BYTES_A_TOKEN / store.HELD_OUT_TOKENS))

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
    from bertram.training.distributed import together

    out, asked = Path(out), objectives or Objectives()
    with together() as processes, ExitStack() as stack:
        recipe.require_budget()
        if recipe.label_smoothing:
            raise BadInput("--label-smoothing: masked tokens are not smoothed, as in both papers")
        source = model_names.resolve_encoder(model, allow_pickle=allow_pickle)
        if isinstance(source, ModelDirectory):
            source.find_weights()  # before hours over the corpus
        rate = _FURTHER_LEARNING_RATE if isinstance(source, ModelDirectory) else _LEARNING_RATE
        recipe = recipe.resolved(learning_rate=rate, batch_size=BATCH_SIZE)
        sizes = _sizes(source, config or {})
        objectives = replace(asked, sentence_objective=asked.sentence_objective or sizes.sentence_objective)
        check_max_length(model, sizes, objectives.max_length)
        if objectives.sentence_objective != "none" and sizes.type_vocab_size < 2:
            raise BadInput(f"{NO_PAIRS}: take --sentence-objective none")
        if tokenizer is not None and isinstance(source, ModelDirectory):
            raise BadInput(f"--tokenizer: {model} has its own; another's tokens would get the wrong embeddings")
        if vocab_size is not None and (tokenizer is not None or isinstance(source, ModelDirectory)):
            raise BadInput(f"--vocab-size {vocab_size}: there is a tokenizer already, which has its own size")
        if cased and (tokenizer is not None or isinstance(source, ModelDirectory)):
            raise BadInput("--cased: there is a tokenizer already, which keeps upper case and accents or does not")
        judged = corpus_files(validation)
        left_out = {file.resolve() for file in judged}
        files = [file for file in corpus_files(corpus) if file.resolve() not in left_out]
        if not files:
            raise BadInput("there is no file to train on" + (", as --validation is left out" if judged else ""))
        kind = documents or guess_documents(files)
        text, held_out = Corpus(files, kind), Corpus(judged, kind) if judged else None
        if processes.rank == 0:
            stack.enter_context(alone_in(out))
            settings = {
                "corpus": text.description(),
                "validation": held_out.description() if held_out else None,
                "documents": kind,
                **model_names.identity(model),
                "config": asdict(sizes),
                "tokenizer": None if tokenizer is None else str(tokenizer),
                "vocab_size": vocab_size,
                "cased": cased,
                "objectives": asdict(objectives),
                "recipe": asdict(recipe),
            }
            if prepare_directory(out, model_names.local(model), settings, resume=resume) is None:
                with begun(out, settings):
                    found = _tokenizer(out, source, sizes, tokenizer, text, vocab_size, cased, report)
                    _check_tokenizer(found, objectives)
                    _build_stores(out, found, text, held_out, recipe.seed, report)
                    _feeds(out, found, objectives, recipe)
        processes.wait(patiently=True)
        finished = read_manifest(out)
        if "status" in finished:
            return finished
        report = report if processes.rank == 0 else silent
        return _train(out, source, sizes, objectives, recipe, processes, report)


def _sizes(source: ModelDirectory | EncoderConfig, changes: Mapping[str, Any]) -> EncoderConfig:
    """The configuration to train: a preset's with some fields changed, or that of a model directory.

    Raises:
        BadInput: a field is unknown, its value makes no sense, or the model is a directory and has its own.
    """
    if changes and isinstance(source, ModelDirectory):
        raise BadInput(f"{source}: is a trained model, whose configuration cannot be changed")
    found = changed(source if isinstance(source, EncoderConfig) else source.config, changes)
    check_published(found)  # what is trained must be what transformers computes with the same weights
    return found


def _tokenizer(
    out: Path,
    source: ModelDirectory | EncoderConfig,
    sizes: EncoderConfig,
    given: str | Path | None,
    corpus: Corpus,
    vocab_size: int | None,
    cased: bool,
    report: Report,
) -> Tokenizer:
    """The one that is there already, is given or is the model's own, or one learned from the corpus.

    Raises:
        BadInput: it cannot be used, or has more entries than the model.
    """
    if isinstance(source, EncoderConfig) and given is None:
        texts = corpus.sentences(report)
        return learned_tokenizer(out, texts, source.model_type, sizes.vocab_size, vocab_size, cased=cased)
    if (out / "tokenizer.json").exists():
        return Tokenizer.load(out)
    tokenizer = source.read_tokenizer() if isinstance(source, ModelDirectory) else Tokenizer.load(cast(Path, given))
    tokenizer.save(out)
    return tokenizer


def _check_tokenizer(tokenizer: Tokenizer, objectives: Objectives) -> None:
    """Refuse a tokenizer that no sequences can be made with, before hours over the corpus.

    Raises:
        BadInput: it lacks a special token, tells no words apart, or reads pairs in another way.
    """
    _ = tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id, tokenizer.starts_word
    if objectives.sentence_objective != "none":
        tokenizer.check_pairs()


def _build_stores(
    out: Path, tokenizer: Tokenizer, corpus: Corpus, held_out: Corpus | None, seed: int, report: Report
) -> None:
    train, validation = out / STORE / "train", out / STORE / "validation"

    def tell(characters: int) -> None:
        report({"preparing": "token store", "characters": characters})

    if held_out is not None and not (validation / store.MANIFEST).exists():
        store.build(held_out.parts(), tokenizer, validation, None, report=tell)
    if not all((place / store.MANIFEST).exists() for place in (train, validation)):
        both = None if held_out else validation
        store.build(corpus.parts(), tokenizer, train, both, seed=seed, held_out_of=corpus.held_out_of, report=tell)


def _feeds(out: Path, tokenizer: Tokenizer, objectives: Objectives, recipe: Recipe) -> tuple[Blocks, dict[str, Blocks]]:
    """The training feed, and held-out ones by what they are for: "own" objective, "nsp" and "sop" where they can be.

    Raises:
        BadInput: the training text cannot serve the objective.
    """

    def feed(text: TokenStore, objective: SentenceObjective, batch_tokens: int) -> Blocks:
        return Blocks(
            text,
            tokenizer,
            objective,
            objectives.masking,
            max_length=objectives.max_length,
            batch_tokens=batch_tokens,
            seed=recipe.seed,
        )

    own = cast(SentenceObjective, objectives.sentence_objective)
    tokens = recipe.batch_tokens or cast(int, recipe.batch_size) * objectives.max_length
    train = feed(TokenStore.open(out / STORE / "train"), own, tokens)
    text = TokenStore.open(out / STORE / "validation")
    possible: tuple[SentenceObjective, ...] = () if own == "none" else ("sop",)
    if possible and text.document_count > 1:
        possible = ("nsp", "sop")
    held_out: dict[str, Blocks] = {objective: feed(text, objective, recipe.max_tokens) for objective in possible}
    # One held-out document has no foreign spans: then masked tokens alone are judged.
    held_out["own"] = held_out[own] if own in held_out else feed(text, "none", recipe.max_tokens)
    return train, held_out


def _train(
    out: Path,
    source: ModelDirectory | EncoderConfig,
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
    train, held_out = _feeds(out, tokenizer, objectives, recipe)
    heads = {"masked_language_model": 0} | ({} if objectives.sentence_objective == "none" else {"sentence_pair": 2})
    torch.manual_seed(recipe.seed)
    if isinstance(source, ModelDirectory):
        network = source.read_model(heads)
    else:
        network = Model(replace(sizes, vocab_size=tokenizer.vocab_size), heads)
    objective = cast(SentenceObjective, objectives.sentence_objective)
    network.config = replace(network.config, sentence_objective=objective)

    def evaluate() -> Evaluation:
        figures = scores_on(network, held_out["own"], processes)
        losses = sum(value for name, value in figures.items() if name.endswith("_loss"))
        return Evaluation(-losses, {f"validation_{name}": value for name, value in figures.items()})

    max_length = objectives.max_length
    if isinstance(source, ModelDirectory):
        max_length = max(max_length, source.max_length)
    outcome = Loop(
        network,
        train,
        recipe,
        out,
        evaluate=evaluate,
        report=report,
        processes=processes,
        compile_unasked=True,
    ).run()
    scores = _scores(network, held_out, processes) if outcome.finished else {}
    manifest = {
        **outcome.to_dict(),
        "pretraining": asdict(objectives),
        "max_length": max_length,
        **_origin(out, {"train": train.store, "validation": held_out["own"].store}),
        "recipe": asdict(recipe),
        "processes": processes.size,
        "scores": {name: value for name, value in sorted(scores.items()) if math.isfinite(value)},
    }
    if processes.rank == 0:
        card = pretraining_card(manifest, anew=isinstance(source, EncoderConfig))
        save(network, tokenizer, out, manifest, card)
    processes.wait()  # torchrun ends all soon after one has ended, be it in the midst of writing
    return read_manifest(out)


def _scores(network: "Model", held_out: Mapping[str, Blocks], processes: "Processes") -> dict[str, float]:
    """Figures of the own objective, and the accuracy of both objectives of sentences where they can be judged."""
    from bertram.training.held_out import scores_on

    scores = scores_on(network, held_out["own"], processes)
    for name in ("nsp", "sop"):  # in one order on all processes, which sum what they found
        found = scores_on(network, held_out[name], processes) if name in held_out else {}
        if "sentence_pair_accuracy" in found:
            scores[f"{name}_accuracy"] = found["sentence_pair_accuracy"]
    return scores


def _origin(out: Path, stores: Mapping[str, TokenStore]) -> dict[str, Any]:
    """The model that was begun with, and where each store's text comes from and how much it is."""
    settings = read_settings(out)
    plain = any(kind_of(Path(file)) == ".txt" for file, _ in settings["corpus"])
    documents = settings["documents"] if plain else None
    sources = {name: _named([file for file, _ in settings[key] or []]) for name, key in _SOURCES.items()}
    sources["validation"] = sources["validation"] or "held out of the corpus"
    data = {
        name: {"source": sources[name], "tokens": len(text.tokens), "documents": text.document_count}
        for name, text in stores.items()
    }
    return {"base_model": model_names.name_of(settings["model"]), "data": data | {"documents": documents}}


def _named(files: list[str]) -> str:
    return ", ".join(files) if len(files) < 4 else f"{files[0]} and {len(files) - 1} more files"


def summary(manifest: dict[str, Any]) -> str:
    """What a person wants to know after a pre-training, in a few lines."""
    amount = f"{manifest['steps']:,} steps, {manifest['tokens']:,} tokens"
    train, held_out = (manifest["data"][name] for name in ("train", "validation"))
    kinds = {"file": " (one per text file)", "blank-line": " (separated by blank lines)", None: ""}
    kind = kinds[manifest["data"]["documents"]]
    lines = [f"{train['source']}: {train['tokens']:,} tokens in {train['documents']:,} documents{kind}"]
    lines.append(f"validation: {held_out['source']}, {held_out['tokens']:,} tokens")
    lines.append(f"{manifest['status']} after {amount} in {manifest['seconds']:,.0f} s")
    lines += [f"held-out {name.replace('_', ' ')} {value:.4f}" for name, value in manifest["scores"].items()]
    return "\n".join(lines)
