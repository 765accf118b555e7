"""From raw text and a preset to a pre-trained model directory: what `bertram pretrain` does."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bertram import model_names
from bertram.batch import NO_PAIRS
from bertram.config import EncoderConfig, Objectives, SentenceObjective, changed, check_published
from bertram.corpus import store
from bertram.corpus.blocks import Blocks
from bertram.corpus.parts import Documents, corpus_files, guess_documents
from bertram.corpus.source import Corpus
from bertram.corpus.store import TokenStore
from bertram.errors import BadInput, require_all
from bertram.model_card import pretraining_card
from bertram.model_directory import ModelDirectory, check_max_length
from bertram.processes import share_cores
from bertram.progress import Report, silent
from bertram.run_directory import alone_in, begun, prepare_directory, read_manifest
from bertram.saving import learned_tokenizer, save
from bertram.text.lines import kind_of
from bertram.text.tokenizer import Tokenizer
from bertram.training.recipe import BATCH_SIZE, Recipe

if TYPE_CHECKING:
    from bertram.models.heads import Model
    from bertram.training.distributed import Processes

STORE = "store"

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
    from bertram.training.distributed import together

    out = Path(out)
    with together() as processes, ExitStack() as stack:
        text, held_out = _texts(corpus, validation, documents)
        pretraining = Pretraining(
            corpus=text,
            held_out=held_out,
            model=model,
            objectives=objectives or Objectives(),
            recipe=recipe,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            cased=cased,
            config=config or {},
            allow_pickle=allow_pickle,
        )
        if processes.rank == 0:
            stack.enter_context(alone_in(out))
            if prepare_directory(out, model_names.local(model), pretraining.settings, resume=resume) is None:
                pretraining.prepare(out, report)
        processes.wait(patiently=True)
        finished = read_manifest(out)
        return finished if "status" in finished else pretraining.train(out, processes, report)


def _texts(
    corpus: Sequence[str | Path], validation: Sequence[str | Path], documents: Documents | None
) -> tuple[Corpus, Corpus | None]:
    """What is learned from, and what is evaluated on if that is given; a file is in one of them.

    Raises:
        BadInput: as `corpus_files`, or all files are to evaluate on.
    """
    judged = corpus_files(validation)
    left_out = {file.resolve() for file in judged}
    files = [file for file in corpus_files(corpus) if file.resolve() not in left_out]
    if not files:
        raise BadInput("there is no file to train on" + (", as --validation is left out" if judged else ""))
    kind = documents or guess_documents(files)
    return Corpus(files, kind), Corpus(judged, kind) if judged else None


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """What is to be pre-trained, on what and how; recipe and objectives have their defaults where they said nothing.

    Raises:
        BadInput: the settings do not go together, or the model cannot be trained so.
    """

    corpus: Corpus
    held_out: Corpus | None
    model: str | Path
    objectives: Objectives
    recipe: Recipe
    tokenizer: str | Path | None
    vocab_size: int | None
    cased: bool
    config: Mapping[str, Any]
    allow_pickle: bool

    def __post_init__(self) -> None:
        self.recipe.require_budget()
        if self.recipe.label_smoothing:
            raise BadInput("--label-smoothing: masked tokens are not smoothed, as in both papers")
        source, sizes = self.source, self.sizes
        rate = _FURTHER_LEARNING_RATE if isinstance(source, ModelDirectory) else _LEARNING_RATE
        object.__setattr__(self, "recipe", self.recipe.resolved(learning_rate=rate, batch_size=BATCH_SIZE))
        objective = self.objectives.sentence_objective or sizes.sentence_objective
        object.__setattr__(self, "objectives", replace(self.objectives, sentence_objective=objective))
        check_max_length(self.model, sizes, self.objectives.max_length)
        if objective != "none" and sizes.type_vocab_size < 2:
            raise BadInput(f"{NO_PAIRS}: take --sentence-objective none")
        if self.tokenizer is not None and isinstance(source, ModelDirectory):
            raise BadInput(f"--tokenizer: {self.model} has its own; another's tokens would get the wrong embeddings")
        if self.vocab_size is not None and not self._learns_tokenizer:
            raise BadInput(f"--vocab-size {self.vocab_size}: there is a tokenizer already, which has its own size")
        if self.cased and not self._learns_tokenizer:
            raise BadInput("--cased: there is a tokenizer already, which keeps upper case and accents or does not")

    @cached_property
    def source(self) -> ModelDirectory | EncoderConfig:
        """What `model` names; of a directory the weights are there.

        Raises:
            BadInput: nothing goes by that name, or something that is no encoder or has no weights.
        """
        found = model_names.resolve_encoder(self.model, allow_pickle=self.allow_pickle)
        if isinstance(found, ModelDirectory):
            found.find_weights()  # before hours over the corpus
        return found

    @cached_property
    def sizes(self) -> EncoderConfig:
        """The configuration to train: a preset's with some fields changed, or that of a model directory.

        Raises:
            BadInput: a field is unknown, its value makes no sense, or the model is a directory and has its own.
        """
        if self.config and isinstance(self.source, ModelDirectory):
            raise BadInput(f"{self.source}: is a trained model, whose configuration cannot be changed")
        found = changed(self.source if isinstance(self.source, EncoderConfig) else self.source.config, self.config)
        check_published(found)  # what is trained must be what transformers computes with the same weights
        return found

    @property
    def sentence_objective(self) -> SentenceObjective:
        """The one that is trained."""
        return cast(SentenceObjective, self.objectives.sentence_objective)

    @property
    def _learns_tokenizer(self) -> bool:
        return self.tokenizer is None and isinstance(self.source, EncoderConfig)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the training depends on, for training.json."""
        return {
            "corpus": self.corpus.description(),
            "validation": self.held_out.description() if self.held_out else None,
            "documents": self.corpus.documents,
            "model": model_names.identity(self.model),
            "config": asdict(self.sizes),
            "tokenizer": None if self.tokenizer is None else Tokenizer.load(Path(self.tokenizer)).fingerprint,
            "vocab_size": self.vocab_size,
            "cased": self.cased,
            "objectives": asdict(self.objectives),
            "recipe": asdict(self.recipe),
        }

    def prepare(self, out: Path, report: Report = silent) -> None:
        """Leave the tokenizer and the token stores at `out`, as far as they are not there yet.

        Raises:
            BadInput: the corpus or the tokenizer cannot serve the objective, or another training began at `out`.
        """
        with begun(out, self.settings):
            tokenizer = self._find_tokenizer(out, report)
            # Refuse a tokenizer that cannot make sequences before hours over the corpus.
            _ = tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id, tokenizer.starts_word
            if self.sentence_objective != "none":
                tokenizer.check_pairs()
            self._build_stores(out, tokenizer, report)
            self._feeds(out, tokenizer)

    def _find_tokenizer(self, out: Path, report: Report) -> Tokenizer:
        """The one that is there already, is given or is the model's own, or one learned from the corpus.

        Raises:
            BadInput: it cannot be used, or has more entries than the model.
        """
        if self._learns_tokenizer:
            texts, sizes = self.corpus.sentences(report), self.sizes
            return learned_tokenizer(out, texts, sizes.model_type, sizes.vocab_size, self.vocab_size, cased=self.cased)
        if (out / "tokenizer.json").exists():
            return Tokenizer.load(out)
        own = self.source.read_tokenizer() if isinstance(self.source, ModelDirectory) else None
        tokenizer = own or Tokenizer.load(cast(Path, self.tokenizer))
        tokenizer.save(out)
        return tokenizer

    def _build_stores(self, out: Path, tokenizer: Tokenizer, report: Report) -> None:
        train, validation = out / STORE / "train", out / STORE / "validation"

        def tell(characters: int) -> None:
            report({"preparing": "token store", "characters": characters})

        if self.held_out is not None and not (validation / store.MANIFEST).exists():
            store.build(self.held_out.parts, tokenizer, validation, None, report=tell)
        if not all((folder / store.MANIFEST).exists() for folder in (train, validation)):
            corpus, both = self.corpus, None if self.held_out else validation
            how = {"seed": self.recipe.seed, "held_out_of": corpus.held_out_of}
            store.build(corpus.parts, tokenizer, train, both, **how, report=tell)

    def _feeds(self, out: Path, tokenizer: Tokenizer) -> tuple[Blocks, dict[str, Blocks]]:
        """The training feed, and held-out ones by what they are for: "own", and "nsp" and "sop" where they can be.

        Raises:
            BadInput: the training text cannot serve the objective.
        """
        own, longest, recipe = self.sentence_objective, self.objectives.max_length, self.recipe

        def feed(text: TokenStore, objective: SentenceObjective, batch_tokens: int) -> Blocks:
            how = {"max_length": longest, "batch_tokens": batch_tokens, "seed": recipe.seed}
            return Blocks(text, tokenizer, objective, self.objectives.masking, **how)

        tokens = recipe.batch_tokens or cast(int, recipe.batch_size) * longest
        train = feed(TokenStore.open(out / STORE / "train"), own, tokens)
        text = TokenStore.open(out / STORE / "validation")
        possible: tuple[SentenceObjective, ...] = () if own == "none" else ("sop",)
        if possible and text.document_count > 1:
            possible = ("nsp", "sop")
        held_out: dict[str, Blocks] = {objective: feed(text, objective, recipe.max_tokens) for objective in possible}
        # One held-out document has no foreign spans: then masked tokens alone are judged.
        held_out["own"] = held_out[own] if own in held_out else feed(text, "none", recipe.max_tokens)
        return train, held_out

    def _network(self, tokenizer: Tokenizer) -> "Model":
        """The model before its first step."""
        import torch

        from bertram.models.heads import Model

        heads = {"masked_language_model": 0} | ({} if self.sentence_objective == "none" else {"sentence_pair": 2})
        torch.manual_seed(self.recipe.seed)
        if isinstance(self.source, ModelDirectory):
            network = self.source.read_model(heads)
        else:
            network = Model(replace(self.sizes, vocab_size=tokenizer.vocab_size), heads)
        network.config = replace(network.config, sentence_objective=self.sentence_objective)
        return network

    def train(self, out: Path, processes: "Processes", report: Report = silent) -> dict[str, Any]:
        """Train what was prepared at `out`, and leave a model directory there; what bertram.json says.

        Raises:
            Interrupted: a signal came; the same call goes on from there.
            Lost: another process ended.
        """
        from bertram.training.held_out import scores_on
        from bertram.training.loop import Evaluation, Loop

        tokenizer, leads = Tokenizer.load(out), processes.rank == 0
        train, held_out = self._feeds(out, tokenizer)
        network = self._network(tokenizer)

        def evaluate() -> Evaluation:
            figures = scores_on(network, held_out["own"], processes)
            losses = sum(value for name, value in figures.items() if name.endswith("_loss"))
            return Evaluation(-losses, {f"validation_{name}": value for name, value in figures.items()})

        outcome = Loop(
            network,
            train,
            self.recipe,
            out,
            evaluate=evaluate,
            report=report if leads else silent,
            processes=processes,
            compile_unasked=True,
        ).run()
        scores = _scores(network, held_out, processes) if outcome.finished else {}
        read_before = self.source.max_length if isinstance(self.source, ModelDirectory) else 0
        manifest = {
            **outcome.to_dict(),
            "pretraining": asdict(self.objectives),
            "max_length": max(self.objectives.max_length, read_before),
            "base_model": model_names.name_of(self.model),
            "data": self._data({"train": train.store, "validation": held_out["own"].store}),
            "recipe": asdict(self.recipe),
            "processes": processes.size,
            "scores": {name: value for name, value in sorted(scores.items()) if math.isfinite(value)},
        }
        if leads:
            card = pretraining_card(manifest, anew=isinstance(self.source, EncoderConfig))
            save(network, tokenizer, out, manifest, card)
        processes.wait()  # torchrun ends all soon after one has ended, be it in the midst of writing
        return read_manifest(out)

    def _data(self, stores: Mapping[str, TokenStore]) -> dict[str, Any]:
        """Where each store's text comes from and how much it is, and what parted the documents of text files."""
        corpora = {"train": self.corpus, "validation": self.held_out}
        data = {
            name: {
                "source": _named(corpora[name]) or "held out of the corpus",
                "tokens": len(text.tokens),
                "documents": text.document_count,
            }
            for name, text in stores.items()
        }
        plain = any(kind_of(file) == ".txt" for file in self.corpus.files)
        return {**data, "documents": self.corpus.documents if plain else None}


def _scores(network: "Model", held_out: Mapping[str, Blocks], processes: "Processes") -> dict[str, float]:
    """Figures of the own objective, and the accuracy of both objectives of sentences where they can be judged.

    That of the trained one stands there once, by its name.
    """
    from bertram.training.held_out import scores_on

    scores = scores_on(network, held_out["own"], processes)
    scores.pop("sentence_pair_accuracy", None)
    for name in ("nsp", "sop"):  # in one order on all processes, which sum what they found
        found = scores_on(network, held_out[name], processes) if name in held_out else {}
        if "sentence_pair_accuracy" in found:
            scores[f"{name}_accuracy"] = found["sentence_pair_accuracy"]
    return scores


def _named(corpus: Corpus | None) -> str:
    names = [file.name for file in corpus.files] if corpus else []
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more files"


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
