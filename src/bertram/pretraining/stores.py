"""What a pre-training reads its batches from: a tokenizer and the token stores at OUT, and the feeds over them."""

from pathlib import Path
from typing import cast

from bertram.config import SentenceObjective
from bertram.corpus import store
from bertram.corpus.blocks import Blocks
from bertram.corpus.store import TokenStore
from bertram.model_directory import ModelDirectory
from bertram.pretraining.settings import Pretraining
from bertram.progress import Report
from bertram.run_directory import begun
from bertram.saving import learned_tokenizer
from bertram.text.tokenizer import Tokenizer

_STORE = "store"


def prepare(pretraining: Pretraining, out: Path, report: Report) -> None:
    """Leave the tokenizer and the token stores at `out`, as far as they are not there yet.

    Raises:
        BadInput: the corpus or the tokenizer cannot serve the objective, or another training began at `out`.
    """
    with begun(out, pretraining.settings):
        tokenizer = _find_tokenizer(pretraining, out, report)
        # Refuse a tokenizer that cannot make sequences before hours over the corpus.
        _ = tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id, tokenizer.starts_word
        if pretraining.sentence_objective != "none":
            tokenizer.check_pairs()
        _build_stores(pretraining, out, tokenizer, report)
        feeds(pretraining, out, tokenizer)  # refuses text that cannot serve the objective


def _find_tokenizer(pretraining: Pretraining, out: Path, report: Report) -> Tokenizer:
    """The one that is there already, is given or is the model's own, or one learned from the corpus.

    Raises:
        BadInput: it cannot be used.
    """
    source, config = pretraining.source, pretraining.config
    if (out / "tokenizer.json").exists():
        return Tokenizer.load(out)
    if isinstance(source, ModelDirectory):
        tokenizer = source.read_tokenizer()
    elif pretraining.tokenizer is not None:
        tokenizer = Tokenizer.load(pretraining.tokenizer)
    else:
        return learned_tokenizer(
            out,
            pretraining.corpus.sentences(report),
            config.model_type,
            config.vocab_size,
            pretraining.vocab_size,
            cased=pretraining.cased,
        )
    tokenizer.save(out)
    return tokenizer


def _build_stores(pretraining: Pretraining, out: Path, tokenizer: Tokenizer, report: Report) -> None:
    corpus, held_out = pretraining.corpus, pretraining.held_out
    train, validation = out / _STORE / "train", out / _STORE / "validation"

    def tell(characters: int) -> None:
        report({"preparing": "token store", "characters": characters})

    if held_out is not None and not (validation / store.MANIFEST).exists():
        store.build(held_out.parts, tokenizer, validation, None, report=tell)
    if not all((folder / store.MANIFEST).exists() for folder in (train, validation)):
        both = validation if held_out is None else None
        how = {"seed": pretraining.recipe.seed, "held_out_of": corpus.held_out_of}
        store.build(corpus.parts, tokenizer, train, both, **how, report=tell)


def feeds(pretraining: Pretraining, out: Path, tokenizer: Tokenizer) -> tuple[Blocks, dict[str, Blocks]]:
    """The training feed, and held-out ones by what they are for: "own", and "nsp" and "sop" where they can be.

    Raises:
        BadInput: the training text cannot serve the objective.
    """
    objectives, recipe, own = pretraining.objectives, pretraining.recipe, pretraining.sentence_objective

    def feed(text: TokenStore, objective: SentenceObjective, batch_tokens: int) -> Blocks:
        how = {"max_length": objectives.max_length, "batch_tokens": batch_tokens, "seed": recipe.seed}
        return Blocks(text, tokenizer, objective, objectives.masking, **how)

    tokens = recipe.batch_tokens or cast(int, recipe.batch_size) * objectives.max_length
    train = feed(TokenStore.open(out / _STORE / "train"), own, tokens)
    text = TokenStore.open(out / _STORE / "validation")
    possible: tuple[SentenceObjective, ...] = () if own == "none" else ("sop",)
    if possible and text.document_count > 1:
        possible = ("nsp", "sop")
    held_out: dict[str, Blocks] = {objective: feed(text, objective, recipe.max_tokens) for objective in possible}
    # One held-out document has no foreign spans: then masked tokens alone are judged.
    held_out["own"] = held_out[own] if own in held_out else feed(text, "none", recipe.max_tokens)
    return train, held_out
