"""The training of a model on the token stores that were prepared for it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from bertram.corpus.blocks import Blocks
from bertram.corpus.source import Corpus
from bertram.corpus.store import TokenStore
from bertram.model_card import pretraining_card
from bertram.model_directory import ModelDirectory
from bertram.model_names import Preset
from bertram.models.heads import Model
from bertram.pretraining.settings import Pretraining
from bertram.pretraining.stores import feeds
from bertram.progress import Report
from bertram.saving import save
from bertram.text.lines import kind_of
from bertram.text.tokenizer import Tokenizer
from bertram.training.distributed import Processes
from bertram.training.held_out import scores_on
from bertram.training.loop import carry_out
from bertram.training.setup import Evaluation, TrainingSetup


def train(pretraining: Pretraining, out: Path, processes: Processes, report: Report) -> dict[str, Any]:
    """Train on what was prepared at `out`, leave a model directory there, and return what bertram.json says of it.

    Raises:
        Interrupted: a signal came; the same call goes on from there.
        Lost: another process ended.
    """
    source, objectives, tokenizer = pretraining.source, pretraining.objectives, Tokenizer.load(out)
    feed, held_out = feeds(pretraining, out, tokenizer)
    network = _network(pretraining, tokenizer)
    read_before = source.max_length if isinstance(source, ModelDirectory) else 0

    def evaluate() -> Evaluation:
        figures = scores_on(network, held_out["own"], processes)
        losses = sum(value for name, value in figures.items() if name.endswith("_loss"))
        return Evaluation(-losses, {f"validation_{name}": value for name, value in figures.items()})

    def results() -> dict[str, Any]:
        scores = sorted(_scores(network, held_out, processes).items())
        return {"scores": {name: value for name, value in scores if math.isfinite(value)}}

    def leave(manifest: dict[str, Any]) -> None:
        save(network, tokenizer, out, manifest, pretraining_card(manifest, anew=isinstance(source, Preset)))

    setup = TrainingSetup(
        network=network,
        feed=feed,
        evaluate=evaluate,
        results=results,
        save=leave,
        facts={
            "pretraining": asdict(objectives),
            "max_length": max(objectives.max_length, read_before),
            "base_model": source.name,
            "data": _data(pretraining, feed.store, held_out["own"].store),
            "processes": processes.size,
            "scores": {},
        },
        compile_unasked=True,
    )
    return carry_out(setup, pretraining.recipe, out, processes, report)


def _network(pretraining: Pretraining, tokenizer: Tokenizer) -> Model:
    """The model before its first step."""
    source, objective = pretraining.source, pretraining.sentence_objective
    heads = {"masked_language_model": 0} | ({} if objective == "none" else {"sentence_pair": 2})
    torch.manual_seed(pretraining.recipe.seed)
    if isinstance(source, ModelDirectory):
        network = source.read_model(heads)
    else:
        network = Model(replace(pretraining.config, vocab_size=tokenizer.vocab_size), heads)
    network.config = replace(network.config, sentence_objective=objective)
    return network


def _scores(network: Model, held_out: Mapping[str, Blocks], processes: Processes) -> dict[str, float]:
    """Figures of the own objective, and the accuracy of both objectives of sentences where they can be judged.

    That of the trained one stands there once, by its name.
    """
    scores = scores_on(network, held_out["own"], processes)
    scores.pop("sentence_pair_accuracy", None)
    for name in ("nsp", "sop"):  # in one order on all processes, which sum what they found
        found = scores_on(network, held_out[name], processes) if name in held_out else {}
        if "sentence_pair_accuracy" in found:
            scores[f"{name}_accuracy"] = found["sentence_pair_accuracy"]
    return scores


def _data(pretraining: Pretraining, train: TokenStore, validation: TokenStore) -> dict[str, Any]:
    """Where each store's text comes from and how much it is, and what parted the documents of text files."""
    corpus, held_out = pretraining.corpus, pretraining.held_out
    sources = {"train": _named(corpus), "validation": _named(held_out) if held_out else "held out of the corpus"}
    stores = {"train": train, "validation": validation}
    data = {
        name: {"source": sources[name], "tokens": len(text.tokens), "documents": text.document_count}
        for name, text in stores.items()
    }
    plain = any(kind_of(file) == ".txt" for file in corpus.files)
    return {**data, "documents": corpus.documents if plain else None}


def _named(corpus: Corpus) -> str:
    names = [file.name for file in corpus.files]
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more files"
